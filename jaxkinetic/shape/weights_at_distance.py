"""Families of positional weights that hold a mean attention distance, whatever their free parameters x.

Each has one more parameter mu than x, on which the mean distance depends monotonically; it is solved for in

    int_0^1 s b(s; x, mu) ds = d int_0^1 b(s; x, mu) ds.

Splines and sums of exponentials are tilted by e^{-mu s}; of power laws mu is the exponent.
"""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar, trusted
from jaxkinetic.model import ExponentialSum, PositionalWeights, PowerLaw, SplineWeights

STEEPEST = 75.0
_SMOOTHNESS, _SIZE = 1e-4, 1e-6
_HALVINGS = 40
Weights = TypeVar("Weights", bound=PositionalWeights)


class SplineFamily(eqx.Module):
    """log b is the spline through x at evenly spaced distances, tilted.

    Of the many b that do equally well, a little of second differences and of x itself chooses a smooth one.
    """

    n_knots: int = eqx.field(static=True)

    def starts(self, lam: float) -> Float[np.ndarray, "start knot"]:
        """ALiBi."""
        return -lam * np.linspace(0, 1, self.n_knots)[None, :]

    def weights(self, x: Float[Array, " knot"], mean_distance: Scalar) -> SplineWeights:
        """The member of the family at x."""
        return SplineWeights(hold_mean_distance(x, mean_distance))

    def penalty(self, x: Float[Array, " knot"], start: Float[Array, " knot"]) -> Array:
        """Residuals to be small besides those of the profile."""
        return jnp.concatenate([_SMOOTHNESS * self.n_knots * jnp.diff(x, 2), _SIZE * (x - start)])


class ExponentialFamily(eqx.Module):
    """b is a sum of exponentials: x are log amplitudes of all terms but the first, then log gaps of the rates."""

    n_terms: int = eqx.field(static=True)

    def starts(self, lam: float) -> Float[np.ndarray, "start parameter"]:
        """Gaps of 2, 8 and 25, and later terms rarer, alike and stronger."""
        del lam
        n = self.n_terms - 1
        pairs = [(a, g) for a in (-2.0, 0.0, 2.0) for g in np.log([2.0, 8.0, 25.0])]
        return np.array([[a] * n + [g] * n for a, g in pairs])

    def weights(self, x: Float[Array, " parameter"], mean_distance: Scalar) -> ExponentialSum:
        """The member of the family at x."""

        def member(x: Array, mu: Scalar) -> ExponentialSum:
            zero = jnp.zeros(1, x.dtype)
            amplitudes, gaps = jnp.split(x, 2)
            rates = jnp.concatenate([zero, jnp.cumsum(jnp.exp(gaps))])
            return ExponentialSum(jnp.exp(jnp.concatenate([zero, amplitudes])), rates + mu)

        return _held(member, x, mean_distance, -4 * STEEPEST, 2 * STEEPEST)

    def penalty(self, x: Float[Array, " parameter"], start: Float[Array, " parameter"]) -> Array:
        """Residuals to be small besides those of the profile."""
        return _SIZE * (x - start)


class PowerFamily(eqx.Module):
    """b = (s + c)^{-p}: x is log c."""

    def starts(self, lam: float) -> Float[np.ndarray, "start parameter"]:
        """Scales from 0.01 to 10."""
        del lam
        return np.log([[0.01], [0.1], [1.0], [10.0]])

    def weights(self, x: Float[Array, " parameter"], mean_distance: Scalar) -> PowerLaw:
        """The member of the family at x."""
        most = STEEPEST / jnp.log1p(jnp.exp(-jax.lax.stop_gradient(x[0])))
        return _held(lambda x, p: PowerLaw(p, jnp.exp(x[0])), x, mean_distance, 0.0, most)

    def penalty(self, x: Float[Array, " parameter"], start: Float[Array, " parameter"]) -> Array:
        """Residuals to be small besides those of the profile."""
        return _SIZE * (x - start)


Family = SplineFamily | ExponentialFamily | PowerFamily


def hold_mean_distance(log_values: Float[Array, " knot"], mean_distance: Scalar) -> Float[Array, " knot"]:
    """Tilt log b by -mu s to the given mean attention distance, differentiable in the values.

    Args:
        log_values: log b at evenly spaced distances, see `SplineWeights`.
        mean_distance: the mean distance wanted.
    """

    def member(values: Array, mu: Scalar) -> SplineWeights:
        return SplineWeights(values).tilted(mu)

    return _held(member, log_values, mean_distance, -2 * STEEPEST, 2 * STEEPEST).log_values


@trusted()
def _held(
    member: Callable[[Array, Scalar], Weights], x: Array, mean_distance: Scalar, low: Scalar | float,
    high: Scalar | float,
) -> Weights:  # fmt: skip
    """The member at x whose mean distance, which falls with mu, is the one wanted; differentiable in x."""
    known, one = jax.lax.stop_gradient(x), jnp.ones_like(mean_distance)

    def halve(bracket, _):
        low, high = bracket
        middle = (low + high) / 2
        far = member(known, middle).mean_distance > mean_distance
        return (jnp.where(far, middle, low), jnp.where(far, high, middle)), None

    (low, high), _ = jax.lax.scan(halve, (low * one, high * one), None, length=_HALVINGS)
    mu = jax.lax.stop_gradient((low + high) / 2)
    # A step of Newton's whose start and denominator count as constants: its derivative is the implicit one.
    slope = jax.jvp(lambda mu: member(known, mu).mean_distance, (mu,), (one,))[1]
    return member(x, mu - (member(x, mu).mean_distance - mean_distance) / jax.lax.stop_gradient(slope))
