"""Offset and contrast of a curve integrated out, in closed form.

For given parameters of a theory one curve is accuracy = m + k s, where s is the shape at its positions,
standardised to mean 0 and standard deviation 1 over them. With the priors m ~ N(m0, tau_m^2) and
k ~ N(0, tau_k^2) cut to k >= 0, and points of inverse variances w, the integral over both is Gaussian in m and a
Gaussian tail in k:

    Z = prod sqrt(w / 2 pi) / (tau_m tau_k sqrt(det L)) e^{-(z^T W z - h^T L^{-1} h) / 2} 2 Phi(k^ / s_k),

    z = y - m0,  B = (1, s),  L = B^T W B + diag(tau_m^-2, tau_k^-2),  h = B^T W z,  (m^, k^) = L^{-1} h.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar
from jaxkinetic.inference.posterior.priors import Priors


class LineLaw(eqx.Module):
    """What a theory's parameters leave to say about m and k of one curve: normal, cut to k >= 0.

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
    """Scale a shape to mean 0 and standard deviation 1 over the positions that are present; others go along."""
    total = jnp.sum(present)
    center = jnp.sum(present * values) / total
    variance = jnp.sum(present * (values - center) ** 2) / total
    # A shape without spread stays flat; the guard is far below any spread that matters.
    spread = jnp.sqrt(jnp.maximum(variance, jnp.finfo(values.dtype).tiny ** 0.5))
    return present * (values - center) / spread, (others - center) / spread


def integrate_line(
    shape: Float[Array, " position"],
    accuracy: Float[Array, " position"],
    weight: Float[Array, " position"],
    priors: Priors,
) -> LineLaw:
    """Integrate m and k >= 0 of one curve, in closed form.

    Args:
        shape: standardised shape; zero at positions that are not there.
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
    return LineLaw(log_points + log_priors - misfit / 2 + log_cut, jnp.stack([priors.mean + m, k]), covariance)
