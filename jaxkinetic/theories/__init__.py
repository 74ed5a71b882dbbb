"""Theories of a retrieval curve: parameters, and the shape of the profile that they give.

    accuracy(sigma_0) = c0 + c1 s(sigma_0; parameters),    c1 >= 0,

with c0 and c1 of each curve its own. `paper` is the one head of arXiv:2605.09213; `of_model` makes a theory of any
model of attention, `of_function` of any function.
"""

from jaxkinetic.theories.paper import BETA_RANGE, LAM_RANGE, OneHead, Paper, paper
from jaxkinetic.theories.parameter import Parameter
from jaxkinetic.theories.theory import ModelTheory, Theory, of_function, of_model

__all__ = [
    "BETA_RANGE",
    "LAM_RANGE",
    "ModelTheory",
    "OneHead",
    "Paper",
    "Parameter",
    "Theory",
    "of_function",
    "of_model",
    "paper",
]
