"""Causal sums over the tokens before each token, which attention and its averages are made of."""

from jaxkinetic.sums.convolution import convolved_average
from jaxkinetic.sums.recurrence import causal_sum, weight_totals

__all__ = ["causal_sum", "convolved_average", "weight_totals"]
