"""The priors of a curve's line, and the evidence of curves without a theory."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Float

from jaxkinetic._types import check_finite, check_positive_number, check_scalar


class Priors(eqx.Module):
    """Priors of `curve_posterior` for each curve; those of a theory's parameters are flat in their scales.

    Attributes:
        mean: centre m0 of the normal prior of each curve's mean accuracy m.
        mean_spread: its standard deviation tau_m.
        contrast_spread: tau_k; the standard deviation k >= 0 of a curve over its positions is half-normal.
    """

    mean: float = 0.5
    mean_spread: float = 0.5
    contrast_spread: float = 0.2

    def __check_init__(self):
        check_scalar("mean", self.mean)
        check_finite("mean", self.mean)
        for name in ("mean_spread", "contrast_spread"):
            check_positive_number(name, getattr(self, name))
            if not 1e-9 <= getattr(self, name) <= 1e9:
                raise ValueError(f"Argument `{name}` must lie within (1e-09, 1e+09), but is {getattr(self, name)}.")

    def __str__(self) -> str:
        """Say the priors in words, a line each."""
        return (
            f"mean      of each curve: normal, {self.mean:g} +- {self.mean_spread:g}\n"
            f"contrast  of each curve: half-normal, standard deviation {self.contrast_spread:g}"
        )


def linear_evidence(
    columns: Float[np.ndarray, "position column"],
    accuracy: Float[np.ndarray, " position"],
    weight: Float[np.ndarray, " position"],
    priors: Priors,
) -> float:
    """Log evidence of accuracy = m + columns x with x standard normal.

    Integrated out, accuracy ~ N(m0, W^{-1} + tau_m^2 + columns columns^T).

    Args:
        columns: shapes in which the curve may vary.
        accuracy: measured fractions.
        weight: their inverse variances, W.
        priors: of m.
    """
    covariance = np.diag(1 / weight) + priors.mean_spread**2 + columns @ columns.T
    root = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(root, accuracy - priors.mean)
    size = accuracy.size * math.log(2 * math.pi)
    return float(-(scaled @ scaled + size) / 2 - np.sum(np.log(np.diag(root))))


def alternative_columns(name: str, sources: Float[np.ndarray, " position"], priors: Priors) -> np.ndarray:
    """Columns of `linear_evidence` for "constant", "quadratic" and "free-form" curves, of comparable contrast.

    A quadratic has two orthogonal polynomials of standard deviation tau_k / sqrt(2) each over the positions; a free
    form moves every point by tau_k on its own.
    """
    n = sources.size
    if name == "constant":
        return np.zeros((n, 0))
    if name == "free-form":
        return priors.contrast_spread * np.eye(n)
    degree = min(2, n - 1)
    basis, _ = np.linalg.qr(np.vander(sources, degree + 1, increasing=True))
    return priors.contrast_spread * math.sqrt(n / degree) * basis[:, 1:]
