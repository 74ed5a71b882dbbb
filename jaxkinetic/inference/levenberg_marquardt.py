"""Levenberg-Marquardt for two parameters, small enough to run from many starts at once and to compile quickly.

A step d from v solves (J^T J + mu D) d = -J^T r, D = max diag J^T J. It is taken if it lowers r^T r; mu follows how
well the linear model foretold that (Nielsen, 1999).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxkinetic._types import Scalar

_FIRST_DAMPING = 0.1
_LARGEST_DAMPING = 1e12


def least_squares(
    residual: Callable[[Float[Array, "2"]], Float[Array, " point"]],
    start: Float[Array, "2"],
    free: Bool[Array, "2"],
    tolerance: float = 1e-13,
    max_steps: int = 100,
) -> tuple[Float[Array, "2"], Scalar]:
    """Go downhill in r^T r from a start: where that ends, and r^T r there.

    Args:
        residual: r of the two parameters.
        start: where to begin, (2,).
        free: which of them may move, (2,).
        tolerance: the search ends where a step promises less than this share of 1 + r^T r.
        max_steps: evaluations after which it ends in any case; it has still only gone downhill.
    """

    def normal(v):
        def twice(v):
            r = residual(v)
            return r, r

        jacobian, r = jax.jacfwd(twice, has_aux=True)(v)
        jacobian = jnp.where(free, jacobian, 0)
        return jnp.sum(r**2), jacobian.T @ r, jacobian.T @ jacobian

    def step(state):
        count, v, trial, at, mu, growth, promised, _ = state
        # One place in the program evaluates r and J, the start's among them: all else is small.
        there = normal(trial)
        lower = there[0] < at[0]
        v = jnp.where(lower, trial, v)
        gain = (at[0] - there[0]) / promised
        at = jax.tree.map(lambda new, old: jnp.where(lower, new, old), there, at)
        mu = jnp.where(lower, mu * jnp.maximum(0.1, 1 - (2 * gain - 1) ** 3), mu * growth)
        mu = jnp.where(count == 0, _FIRST_DAMPING, mu)
        growth = jnp.where(lower, 2.0, 2 * growth)
        squares, gradient, hessian = at
        largest = jnp.max(jnp.diagonal(hessian))
        # Where nothing is free or moves r, the step is zero and promises nothing.
        damping = mu * jnp.where(largest > 0, largest, 1.0)
        (a, b), (_, c) = hessian + damping * jnp.eye(2, dtype=v.dtype)
        move = jnp.stack([b * gradient[1] - c * gradient[0], b * gradient[0] - a * gradient[1]]) / (a * c - b**2)
        promised = jnp.sum(move * (damping * move - gradient))
        done = (promised <= tolerance * (1 + squares)) | (mu > _LARGEST_DAMPING) | (count + 1 >= max_steps)
        return count + 1, v, v + move, at, mu, growth, promised, done

    one = jnp.ones((), start.dtype)
    nowhere = jnp.inf * one, jnp.zeros_like(start), jnp.zeros((2, 2), start.dtype)
    state = jnp.asarray(0), start, start, nowhere, one, 2 * one, one, jnp.asarray(False)
    _, v, _, (squares, *_), *_ = jax.lax.while_loop(lambda state: ~state[-1], step, state)
    return v, squares
