"""Profiles of position given by numbers: functions of sigma that are pytrees of their coefficients.

Two of them with tables of the same shape are the same program, which a closure over a table is not.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import Scalar, as_floats


class Polynomials(eqx.Module):
    """Polynomials in sigma, sum_d c_{rd} sigma^d.

    Attributes:
        coefficients: c_{rd}, of 1, sigma, sigma^2, ..., (R, D).

    Raises:
        ValueError: if the coefficients are no table of numbers.
    """

    coefficients: Float[Array, "row degree"] = eqx.field(converter=lambda x: as_floats("coefficients", x))

    def __check_init__(self):
        if self.coefficients.ndim != 2 or self.coefficients.size == 0:
            raise ValueError(
                "Argument `coefficients` must be a non-empty two-dimensional array, but has shape "
                f"{self.coefficients.shape}."
            )

    def __call__(self, sigma: Scalar) -> Float[Array, " row"]:
        """Values at sigma, (R,)."""
        return self.coefficients @ sigma ** jnp.arange(self.coefficients.shape[1])


class Waves(eqx.Module):
    """Fourier modes of a density made of turning waves (`DensityPrompts`).

    f(sigma, theta) = 1 + sum_r c_r(sigma) cos(n_r theta - q_r sigma) + s_r(sigma) sin(n_r theta - q_r sigma)

    Attributes:
        cos: amplitudes c_r(sigma).
        sin: amplitudes s_r(sigma).
        turn: turning rates q_r, radians, (R,).
        orders: n_r >= 1; several waves may share one.
    """

    cos: Polynomials
    sin: Polynomials
    turn: Float[Array, " row"] = eqx.field(converter=lambda x: as_floats("turn", x))
    orders: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, sigma: Scalar) -> Complex[Array, " mode"]:
        """Modes hat f(sigma, n), n = 1..K for the largest order K."""
        waves = (self.cos(sigma) - 1j * self.sin(sigma)) / 2 * jnp.exp(-1j * self.turn * sigma)
        place = jnp.asarray(self.orders) - 1
        return jnp.zeros(max(self.orders), waves.dtype).at[place].add(waves)
