"""Offset and contrast of a curve integrated out, in closed form.

For given (beta, lam) one curve is accuracy = m + k s, where s is S_t at its positions, standardised to mean 0 and
standard deviation 1 over them. With the priors m ~ N(m0, tau_m^2) and k ~ N(0, tau_k^2) cut to k >= 0, and points
of inverse variances w, the integral over both is Gaussian in m and a Gaussian tail in k:

    Z = prod sqrt(w / 2 pi) / (tau_m tau_k sqrt(det L)) e^{-(z^T W z - h^T L^{-1} h) / 2} 2 Phi(k^ / s_k),

    z = y - m0,  B = (1, s),  L = B^T W B + diag(tau_m^-2, tau_k^-2),  h = B^T W z,  (m^, k^) = L^{-1} h.
"""

import dataclasses
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar, as_numbers, check_finite, check_positive


class LinePriors(NamedTuple):
    """Priors of m and k alone: numbers that compiled code takes as they come.

    Attributes:
        mean: m0.
        mean_spread: tau_m.
        contrast_spread: tau_k.
    """

    mean: float | Scalar
    mean_spread: float | Scalar
    contrast_spread: float | Scalar


# Beyond these S_t or its spread over the positions leaves the range of double precision.
_LIMITS = {"beta_range": (1e-8, 600.0), "lam_range": (-400.0, 400.0)}


@dataclasses.dataclass(frozen=True)
class Priors:
    """Priors of `curve_posterior`, all proper.

    Attributes:
        beta_range: beta is flat in log(beta) between these.
        lam_range: lam is flat in arcsinh(lam / lam_scale) between these.
        lam_scale: below it lam is about flat, above it about flat in log|lam|.
        mean: centre m0 of the normal prior of each curve's mean accuracy m.
        mean_spread: its standard deviation tau_m.
        contrast_spread: tau_k; the standard deviation k >= 0 of a curve over its positions is half-normal.
    """

    beta_range: tuple[float, float] = (0.01, 10.0)
    lam_range: tuple[float, float] = (-20.0, 100.0)
    lam_scale: float = 1.0
    mean: float = 0.5
    mean_spread: float = 0.5
    contrast_spread: float = 0.2

    def __post_init__(self):
        for name, (least, most) in _LIMITS.items():
            given = as_numbers(name, getattr(self, name))
            if given.shape != (2,):
                raise ValueError(f"Argument `{name}` must be two numbers, but is {getattr(self, name)!r}.")
            (check_positive if name == "beta_range" else check_finite)(name, given)
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"Argument `{name}` must increase, but is {(low, high)}.")
            if low < least or high > most:
                raise ValueError(f"Argument `{name}` must lie within {(least, most)}, but is {(low, high)}.")
        check_finite("mean", self.mean)
        for name in ("lam_scale", "mean_spread", "contrast_spread"):
            check_positive(name, getattr(self, name))
            if not 1e-9 <= getattr(self, name) <= 1e9:
                raise ValueError(f"Argument `{name}` must lie within (1e-09, 1e+09), but is {getattr(self, name)}.")

    @property
    def line(self) -> LinePriors:
        """Those of m and k."""
        return LinePriors(self.mean, self.mean_spread, self.contrast_spread)

    def __str__(self) -> str:
        """Say the priors in words, a line each."""
        return "\n".join(
            [
                f"beta      flat in log(beta), {self.beta_range[0]:g} to {self.beta_range[1]:g}",
                f"lam       flat in arcsinh(lam / {self.lam_scale:g}), {self.lam_range[0]:g} to "
                f"{self.lam_range[1]:g}",
                f"mean      of each curve: normal, {self.mean:g} +- {self.mean_spread:g}",
                f"contrast  of each curve: half-normal, standard deviation {self.contrast_spread:g}",
            ]
        )


class Nuisances(eqx.Module):
    """What (beta, lam) leaves to say about m and k of one curve: normal, cut to k >= 0.

    Attributes:
        log_evidence: log of the likelihood with m and k integrated out.
        mean: (m^, k^) of the normal before the cut.
        covariance: L^{-1}.
    """

    log_evidence: Scalar
    mean: Float[Array, "2"]
    covariance: Float[Array, "2 2"]


def standardise(
    values: Float[Array, " position"], present: Float[Array, " position"], others: Float[Array, " other"]
) -> tuple[Float[Array, " position"], Float[Array, " other"]]:
    """Scale S_t to mean 0 and standard deviation 1 over the positions that are present; others go along."""
    total = jnp.sum(present)
    center = jnp.sum(present * values) / total
    variance = jnp.sum(present * (values - center) ** 2) / total
    # A shape without spread stays flat; the guard is far below any spread that matters.
    spread = jnp.sqrt(jnp.maximum(variance, jnp.finfo(values.dtype).tiny ** 0.5))
    return present * (values - center) / spread, (others - center) / spread


def integrate_nuisances(
    shape: Float[Array, " position"],
    accuracy: Float[Array, " position"],
    weight: Float[Array, " position"],
    priors: LinePriors,
) -> Nuisances:
    """Integrate m and k >= 0 of one curve, in closed form.

    Args:
        shape: standardised S_t; zero at positions that are not there.
        accuracy: measured fractions.
        weight: their inverse variances; zero at positions that are not there.
        priors: of m and k.
    """
    z = accuracy - priors.mean
    a = jnp.sum(weight) + priors.mean_spread**-2
    b = jnp.sum(weight * shape)
    d = jnp.sum(weight * shape**2) + priors.contrast_spread**-2
    determinant = a * d - b**2
    p, q = jnp.sum(weight * z), jnp.sum(weight * shape * z)
    m, k = (d * p - b * q) / determinant, (a * q - b * p) / determinant
    # The sum of squares round the best line and the pull of the priors, without cancellation.
    misfit = (
        jnp.sum(weight * (z - m - k * shape) ** 2)
        + (m / priors.mean_spread) ** 2
        + (k / priors.contrast_spread) ** 2
    )
    there = weight > 0
    log_points = jnp.sum(jnp.where(there, jnp.log(jnp.where(there, weight, 1.0) / (2 * math.pi)), 0.0)) / 2
    log_priors = -jnp.log(jnp.asarray(priors.mean_spread * priors.contrast_spread) ** 2 * determinant) / 2
    log_cut = math.log(2) + jax.scipy.special.log_ndtr(k * jnp.sqrt(determinant / a))
    covariance = jnp.array([[d, -b], [-b, a]]) / determinant
    return Nuisances(log_points + log_priors - misfit / 2 + log_cut, jnp.stack([priors.mean + m, k]), covariance)


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
