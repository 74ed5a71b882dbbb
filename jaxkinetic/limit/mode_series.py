"""The sum over modes of the closed form as one power series: many positions at little more than the price of one.

    sum_n w_n psi_{c_n}(Y) = sum_{k >= 0} M_k Y^k / (k! (k + 1)!),    M_k = sum_n w_n c_n^{k + 1},

with c_n = a_n t >= 0.

The moments M_k are the kernel's alone: points which share it share them, and a multiplication and an addition per
point and term stand for a Bessel function per point and mode. No term is negative: nothing cancels, and the
relative accuracy is that of the sum of the modes.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar

LARGEST = 3000.0
_BLOCK = 8
_MOST_TERMS = 1760
_HUGE = 1e150


def largest_exponent(rates: Float[Array, " mode"], weights: Float[Array, " mode"], time: Scalar, y: Array) -> Array:
    """2 sqrt(c Y) for the largest c that counts: the series serves where this is at most `LARGEST`."""
    return 2 * jnp.sqrt(_largest(rates, weights, time) * jnp.maximum(y, 0))


def mode_sum(
    rates: Float[Array, "kernel mode"],
    weights: Float[Array, " mode"],
    time: Scalar,
    y: Float[Array, "kernel *points"],
) -> tuple[Float[Array, "kernel *points"], Float[Array, "kernel *points"]]:
    """Evaluate sum_n w_n psi_{c_n}(Y) for several kernels, each at many Y.

    The series is nested, M_0 (1 + r_0 Y (1 + r_1 Y (...))) with r_k = M_{k+1} / (M_k (k + 1) (k + 2)). Its number
    of terms follows from the largest argument; forward derivatives go through, reverse ones do not.

    Args:
        rates: a_n >= 0 of each kernel, n = 1..K.
        weights: w_n >= 0.
        time: depth t > 0.
        y: the variable Y of (1.24), not negative.

    Returns:
        (values, log_scale): the sum is values e^{log_scale}; NaN where 2 sqrt(c Y) exceeds `LARGEST`.
    """
    exponent = jax.vmap(lambda a, at: largest_exponent(a, weights, time, at))(rates, y)
    served = exponent <= LARGEST
    needed = _n_terms(jax.lax.stop_gradient(jnp.max(jnp.where(served, exponent, 0.0))))
    n_blocks = jnp.minimum(-(-needed.astype(int) // _BLOCK), _MOST_TERMS // _BLOCK)
    first, ratios = _ratios(rates, weights, time, n_blocks)
    # One axis of points runs through the loop several times faster than many.
    flat = jnp.where(served, y, 0.0).reshape(y.shape[0], -1)

    def block(i, state):
        total, one, log_scale = state
        here = jax.lax.dynamic_slice_in_dim(ratios, (n_blocks - 1 - i) * _BLOCK, _BLOCK)
        for ratio in here[::-1]:
            total = one + ratio[:, None] * flat * total
        huge = total > _HUGE
        shrink = jnp.where(huge, 1 / _HUGE, 1.0)
        return shrink * total, shrink * one, log_scale + jnp.where(huge, math.log(_HUGE), 0.0)

    start = jnp.zeros_like(flat), jnp.ones_like(flat), jnp.zeros_like(flat)
    total, _, log_scale = jax.lax.fori_loop(0, n_blocks, block, start)
    total = (first[:, None] * total).reshape(y.shape)
    return jnp.where(served, total, jnp.nan), log_scale.reshape(y.shape)


def _largest(rates, weights, time):
    # A mode whose weight is as good as zero neither counts nor may stand alone.
    return jnp.max(jnp.where(weights > jnp.finfo(weights.dtype).tiny ** 0.9, rates, 0.0)) * time


def _n_terms(exponent):
    """Terms beyond which less than 1e-17 of the sum is left: they are about normal round exponent / 2."""
    return exponent / 2 + 4.3 * jnp.sqrt(exponent) + 14


def _ratios(rates, weights, time, n_blocks):
    """M_0 of each kernel, and r_k in blocks of k, (terms, kernel)."""
    largest = jax.vmap(lambda a: _largest(a, weights, time))(rates)
    share = jnp.minimum(rates * time / largest[:, None], 1.0)
    powers = weights[None, :] * share

    def block(i, state):
        ratios, powers, moment = state
        first, found = i * _BLOCK, []
        for k in range(_BLOCK):
            powers = powers * share
            following = jnp.sum(powers, axis=1)
            found.append(largest * following / moment / ((first + k + 1) * (first + k + 2)))
            moment = following
        return jax.lax.dynamic_update_slice_in_dim(ratios, jnp.stack(found), first, 0), powers, moment

    moment = jnp.sum(powers, axis=1)
    empty = jnp.zeros((_MOST_TERMS, rates.shape[0]), rates.dtype)
    ratios, _, _ = jax.lax.fori_loop(0, n_blocks, block, (empty, powers, moment))
    return largest * moment, ratios
