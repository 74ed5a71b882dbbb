"""The entire Bessel functions behind the closed form (1.23).

    Phi_m(z) = sum_{k >= 0} z^k / (k! (k + m)!) = 0F1(; m + 1; z) / m!

equals I_m(2 sqrt(z)) / z^{m/2} for z > 0 and J_m(2 sqrt(-z)) / (-z)^{m/2} for z < 0, and has the derivative
Phi_m' = Phi_{m+1}. Written this way nothing is singular at z = 0.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float

_SERIES_BELOW = 9.0
_SERIES_TERMS = 26
_SERIES_ABOVE = -4.0
_HANKEL_TERMS = 12
_INTEGRAL_NODES = 24
_ASYMPTOTIC_BELOW = -225.0


def entire_bessel(order: int, z: Float[Array, "*shape"], signed: bool = True) -> Float[Array, "*shape"]:
    """Evaluate Phi_m(z) for any real z, to a few roundings relative to its envelope.

    Args:
        order: m >= 0; every derivative raises it by one, up to 5 in all.
        z: real argument of any sign. Where Phi_m(z) exceeds the floating-point range it is infinite: there
            `scaled_entire_bessel` serves.
        signed: whether z may be negative; the positive half alone costs less.
    """
    return scaled_entire_bessel(order, z, jnp.zeros_like(z), signed)


@partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def scaled_entire_bessel(
    order: int, z: Float[Array, "*shape"], log_factor: Float[Array, "*shape"], signed: bool = True
) -> Float[Array, "*shape"]:
    """Evaluate e^{log_factor} Phi_m(z) without overflow on the way.

    Args:
        order: m, as in `entire_bessel`.
        z: real argument.
        log_factor: logarithm of the factor; differentiable like z.
        signed: whether z may be negative.
    """
    middle = (z > _SERIES_ABOVE) & (z < _SERIES_BELOW)
    value = _series(order, jnp.where(middle, z, 0.0))
    if signed:
        far = z < _ASYMPTOTIC_BELOW
        near = jnp.where(far, _SERIES_ABOVE, jnp.minimum(z, _SERIES_ABOVE))
        asymptotic = _hankel(order, jnp.minimum(z, _ASYMPTOTIC_BELOW))
        oscillating = jnp.where(far, asymptotic, _bessel_integral(order, near))
        value = jnp.where(z <= _SERIES_ABOVE, oscillating, value)
    value = value * jnp.exp(log_factor)
    return jnp.where(z >= _SERIES_BELOW, _growing(order, jnp.maximum(z, _SERIES_BELOW), log_factor), value)


@scaled_entire_bessel.defjvp
def _scaled_entire_bessel_jvp(order, signed, primals, tangents):
    (z, log_factor), (dz, dlog_factor) = primals, tangents
    value = scaled_entire_bessel(order, z, log_factor, signed)
    slope = scaled_entire_bessel(order + 1, z, log_factor, signed)
    return value, slope * dz + value * dlog_factor


def _series(order, z):
    total = jnp.zeros_like(z)
    for k in reversed(range(_SERIES_TERMS)):
        total = 1.0 / (math.factorial(k) * math.factorial(k + order)) + z * total
    return total


def _growing(order, z, log_factor):
    # exp(2 sqrt z) times scaled Bessel functions; the upward recurrence loses little for 2 sqrt(z) >= 6.
    root = jnp.sqrt(z)
    x = 2 * root
    lower, upper = i0e(x), i1e(x)
    for m in range(order):
        lower, upper = upper, lower - (2 * (m + 1) / x) * upper
    # Half of the exponential at a time, so that nothing overflows before the result does.
    half = jnp.exp(root + log_factor / 2)
    return (lower * half / root**order) * half


def _bessel_integral(order, z):
    # J_m(x) = (2 / pi) int_0^{pi/2} cos(x sin(phi)) cos(m phi) d phi, with sines for odd m, by the midpoint rule,
    # which converges faster than exponentially on this periodic integrand.
    phi = (np.arange(_INTEGRAL_NODES) + 0.5) * np.pi / (2 * _INTEGRAL_NODES)
    wave, harmonic = (jnp.sin, np.sin) if order % 2 else (jnp.cos, np.cos)
    x = 2 * jnp.sqrt(-z)

    def add(total, node):
        weight, sine = node
        return total + weight * wave(sine * x), None

    weights = harmonic(order * phi) / _INTEGRAL_NODES
    nodes = jnp.asarray(weights, z.dtype), jnp.asarray(np.sin(phi), z.dtype)
    return jax.lax.scan(add, jnp.zeros_like(z), nodes)[0] * (2 / x) ** order


def _hankel(order, z):
    # J_m(x) = sqrt(2 / (pi x)) (P cos(chi) - Q sin(chi)), chi = x - m pi / 2 - pi / 4
    x = 2 * jnp.sqrt(-z)
    term, p, q = 1.0, jnp.ones_like(x), jnp.zeros_like(x)
    for k in range(1, _HANKEL_TERMS):
        term = term * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k * x)
        sign = -1.0 if k % 4 in (2, 3) else 1.0
        p, q = (p + sign * term, q) if k % 2 == 0 else (p, q + sign * term)
    chi = x - (2 * order + 1) * math.pi / 4
    return jnp.sqrt(2 / (math.pi * x)) * (p * jnp.cos(chi) - q * jnp.sin(chi)) * (2 / x) ** order
