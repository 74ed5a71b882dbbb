"""The limit of infinitely many tokens: the mean field, its correlations, and closed forms."""

from jaxkinetic.limit.correlations import Correlations, solve_correlations
from jaxkinetic.limit.iterated_kernels import IteratedKernels, iterated_kernels
from jaxkinetic.limit.mean_field import MeanField, solve_mean_field
from jaxkinetic.limit.resolution import Resolution

__all__ = [
    "Correlations",
    "IteratedKernels",
    "MeanField",
    "Resolution",
    "iterated_kernels",
    "solve_correlations",
    "solve_mean_field",
]
