"""Polynomials in sigma_0 of each curve, beside which a fit is judged."""

import dataclasses
import math

import jax
import numpy as np

from jaxkinetic.inference.fit.likelihood import CurveData

DEGREES = {"constant": 0, "quadratic": 2}


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A description of the same curves that is not the theory, and how well it fits.

    Attributes:
        name: what it is.
        chi2: its chi-squared.
        dof: points less parameters.
        p_value: probability of a larger chi-squared if it were true; NaN where errors are not known.
        aic: Akaike's criterion, chi2 + 2 parameters; lower is better.
    """

    name: str
    chi2: float
    dof: int
    p_value: float
    aic: float


def fit_polynomial(name: str, degree: int, data: CurveData, errors_known: bool) -> Alternative:
    """Weighted least-squares polynomial in sigma_0 of each curve."""
    total, n_points, n_parameters = 0.0, 0, 0
    for sources, accuracy, weight in zip(
        *(np.asarray(x) for x in (data.sources, data.accuracy, data.weight)), strict=True
    ):
        real = weight > 0
        root = np.sqrt(weight[real])
        basis = root[:, None] * np.vander(sources[real], degree + 1)
        coefficients = np.linalg.lstsq(basis, root * accuracy[real], rcond=None)[0]
        total += float(np.sum((basis @ coefficients - root * accuracy[real]) ** 2))
        n_points += int(real.sum())
        # Two points have a line through them, not a quadratic.
        n_parameters += min(degree + 1, int(real.sum()))
    dof = n_points - n_parameters
    p_value = goodness(total, dof) if errors_known else math.nan
    return Alternative(name, total, dof, p_value, total + 2 * n_parameters)


def goodness(chi2: float, dof: int) -> float:
    """Probability of a larger chi-squared if the theory were true."""
    return float(jax.scipy.special.gammaincc(dof / 2, chi2 / 2)) if dof > 0 else math.nan
