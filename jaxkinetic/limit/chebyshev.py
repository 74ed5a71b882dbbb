"""Chebyshev collocation on [0, 1]: nodes, interpolation anywhere, integration, and what is left unresolved.

A function is represented by its values at n Chebyshev extrema, including both ends. Interpolation evaluates its
coefficients by the recurrence T_{k+1} = 2 z T_k - T_{k-1}, which unlike the barycentric formula is smooth in the
point of evaluation, also at the nodes.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev


@cache
def nodes(n: int) -> np.ndarray:
    """The n points sin^2(pi j / (2 (n - 1))), j = 0..n-1, increasing from 0 to 1."""
    return np.sin(np.pi * np.arange(n) / (2 * (n - 1))) ** 2


@cache
def to_coefficients(n: int) -> np.ndarray:
    """Matrix from values at the nodes to coefficients of T_k(2 x - 1), k = 0..n-1."""
    k = np.arange(n)
    halved = np.where((k == 0) | (k == n - 1), 0.5, 1.0)
    # Nodes increase, so that node j is cos(pi (n - 1 - j) / (n - 1)).
    return 2 / (n - 1) * halved[:, None] * np.cos(np.pi * k[:, None] * k[::-1] / (n - 1)) * halved


@cache
def antiderivative(n: int) -> np.ndarray:
    """Matrix from values at the nodes to the integrals from 0 to each node."""
    coefficients = chebyshev.chebint(to_coefficients(n), lbnd=-1, scl=0.5, axis=0)
    return np.asarray(chebyshev.chebval(2 * nodes(n) - 1, coefficients).T)


def interpolation(x: Float[Array, "*shape"], n: int) -> Float[Array, "*shape {n}"]:
    """Matrix from values at the n nodes to the values at points x in [0, 1]; smooth in x."""
    return jnp.matmul(_polynomials(x, n), jnp.asarray(to_coefficients(n), x.dtype))


def moments(x: Float[Array, "point quadrature"], weights: Float[Array, "point quadrature"], n: int):
    """Sums over the last axis of weights times T_k(2 x - 1), (point, n), without storing the polynomials."""

    def step(pair, _):
        last, this = pair
        return (this, 2 * z * this - last), jnp.sum(weights * last, axis=-1)

    z = 2 * x - 1
    _, sums = jax.lax.scan(step, (jnp.ones_like(z), z), None, length=n)
    return sums.T


def tail(values: Float[Array, "... node"]) -> Float[Array, ""]:
    """Largest of the last coefficients of functions given at the nodes: an estimate of the interpolation error."""
    n = values.shape[-1]
    last = to_coefficients(n)[-max(2, n // 10) :]
    return jnp.max(jnp.abs(jnp.matmul(values, jnp.asarray(last.T, values.dtype))))


def _polynomials(x: Float[Array, "*shape"], n: int) -> Float[Array, "*shape {n}"]:
    z = 2 * x - 1

    def step(pair, _):
        last, this = pair
        return (this, 2 * z * this - last), last

    _, values = jax.lax.scan(step, (jnp.ones_like(z), z), None, length=n)
    return jnp.moveaxis(values, 0, -1)
