"""The shape S_N(sigma_0) of a theory from particles and its derivatives, and blocks of stochastic steps on them.

Coordinates u are those of the theory's two parameters in their scales: (log beta, arcsinh lam). A prompt gives an
unbiased value v(u) of S_N (`estimators`) and, by forward mode through the simulation, one of its Jacobian. The
control is the limit's prediction for the same prompt, taken to first order round a center u_c,

    v(u) - [c(u_c) + D (u - u_c)],    D_j = (c(u_c + h e_j) - c(u_c - h e_j)) / 2 h,

a sum of predictions whose exact means have been subtracted: without bias however far u is, sharp near u_c.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from jaxkinetic._types import PRNGKeyArray, trusted
from jaxkinetic.model import CausalAttention
from jaxkinetic.retrieval.control import Control
from jaxkinetic.retrieval.estimators import Estimator, Problem
from jaxkinetic.theories import ModelTheory

SPACING = 0.02
_LARGEST_GRADIENT = 10.0
_FARTHEST = 0.25


class SimulatedShape(eqx.Module):
    """Values of S_N and of its Jacobian from single prompts.

    Attributes:
        problem: law, depth, source tokens and number of steps; its model is replaced.
        stencil: controls at u_c, u_c +- h e_1, u_c +- h e_2 with their means, stacked; None for no control.
        center: u_c.
        theory: builds the model.
        estimator: what turns a prompt into values.
    """

    problem: Problem
    stencil: tuple[Control, Float[Array, "5 source"]] | None
    center: Float[Array, "2"]
    theory: ModelTheory
    estimator: Estimator = eqx.field(static=True)

    @trusted()
    def model(self, u: Float[Array, "2"]) -> CausalAttention:
        """The model at coordinates u."""
        return self.theory.model(*self.theory.unscaled(u))

    def value(self, u: Float[Array, "2"], key: PRNGKeyArray) -> Float[Array, " source"]:
        """An unbiased value of S_N at every source token."""
        value, slope = self._prediction(key)
        return self._plain(u, key) - value - slope @ (u - self.center)

    def jacobian(self, u: Float[Array, "2"], key: PRNGKeyArray) -> Float[Array, "source 2"]:
        """Its derivative in u with the prompt held: forward mode over whatever the estimator does."""
        return jax.jacfwd(lambda u: self._plain(u, key))(u) - self._prediction(key)[1]

    @property
    def limit(self) -> Float[Array, "source 2"]:
        """The limit's own Jacobian at u_c; zero without a control."""
        if self.stencil is None:
            return jnp.zeros((self.problem.tokens.shape[0], 2), self.center.dtype)
        return _differences(self.stencil[1])

    def _plain(self, u, key):
        problem = eqx.tree_at(lambda p: p.model, self.problem, self.model(u))
        return self.estimator(problem, key)

    def _prediction(self, key):
        if self.stencil is None:
            n_sources = self.problem.tokens.shape[0]
            return jnp.zeros(n_sources, self.center.dtype), jnp.zeros((n_sources, 2), self.center.dtype)
        drawn = self.estimator.draw(self.problem, key)
        predicted = eqx.filter_vmap(lambda c: self.estimator.prediction(self.problem, c, drawn))
        controls, means = self.stencil
        at = predicted(controls) - means
        return at[0], _differences(at)


def _differences(stencil: Float[Array, "5 source"]) -> Float[Array, "source 2"]:
    return jnp.stack([stencil[1] - stencil[2], stencil[3] - stencil[4]], axis=1) / (2 * SPACING)


class Geometry(eqx.Module):
    """How a block turns residuals into steps: fixed within the block, from the blocks before.

    Attributes:
        gain: matrix from the residuals to the gradient in whitened coordinates, (2, C, P); it is orthogonal to
            constants and to the shape, so that the offset c0 of a curve drops out of the gradient.
        contrast: c1 of each curve, (C,).
        whiten: matrix from whitened coordinates to u, (2, 2).
        accuracy: measured fractions, (C, P).
        index: source token of each position, (C, P).
        low: lower ends of u.
        high: upper ends of u.
    """

    gain: Float[Array, "2 curve position"]
    contrast: Float[Array, " curve"]
    whiten: Float[Array, "2 2"]
    accuracy: Float[Array, "curve position"]
    index: Int[Array, "curve position"]
    low: Float[Array, "2"]
    high: Float[Array, "2"]

    def gradient(self, shape: Float[Array, " source"]) -> Float[Array, "2"]:
        """Gradient of half of chi-squared, c0 and c1 eliminated, from an independent value of the shape."""
        return jnp.sum(self.gain * (self.accuracy - self.contrast[:, None] * shape[self.index])[None], axis=(1, 2))


class Block(eqx.Module):
    """What a block of steps found.

    Attributes:
        end: coordinates after the last step.
        optimizer: state of the optimizer there.
        mean: mean of the coordinates at which prompts were run.
        shape: mean of their values, (S,).
        jacobians: means of the Jacobian at the block's start over two halves of other prompts, (2, S, 2).
        resolved: whether the kernel's modes resolved every beta.
        at_end: whether a step was cut at an end of the range, for each parameter.
    """

    end: Float[Array, "2"]
    optimizer: Any
    mean: Float[Array, "2"]
    shape: Float[Array, " source"]
    jacobians: Float[Array, "2 source 2"]
    resolved: Bool[Array, ""]
    at_end: Bool[Array, "2"]


def descent(learning_rate: float) -> optax.GradientTransformation:
    """Constant steps in whitened coordinates; a start far away comes nearer by steps of bounded length."""
    return optax.chain(optax.clip_by_global_norm(_LARGEST_GRADIENT), optax.sgd(learning_rate))


@eqx.filter_jit
def run_block(
    shape: SimulatedShape,
    geometry: Geometry,
    start: Float[Array, "2"],
    state: Any,
    key: PRNGKeyArray,
    first: UInt[Array, ""],
    learning_rate: float,
    steps: int,
    batch: int,
    n_jacobian: int,
    chunk: int,
) -> Block:
    """Run ``steps`` stochastic steps of ``batch`` fresh prompts each, from prompt ``first`` on: one scan.

    The first ``n_jacobian`` prompts give the Jacobian, for blocks to come. ``chunk`` prompts move at once.
    """
    optimizer = descent(learning_rate)

    def over(function, begin, count):
        return jax.lax.map(
            lambda p: function(jax.random.fold_in(key, p)),
            first + begin + jnp.arange(count, dtype=first.dtype),
            batch_size=min(chunk, count),
        )

    def step(carry, k):
        u, state = carry
        values = jnp.mean(over(lambda key: shape.value(u, key), n_jacobian + k * batch, batch), axis=0)
        updates, state = optimizer.update(geometry.gradient(values), state)
        free = u + geometry.whiten @ optax.apply_updates(jnp.zeros_like(u), updates)  # pyright: ignore
        inside = jnp.clip(free, geometry.low, geometry.high)
        # A block's matrices hold near its start.
        moved = jnp.clip(inside, start - _FARTHEST, start + _FARTHEST)
        return (moved, state), (u, values, shape.model(u).kernel.is_resolved(), inside != free)

    jacobians = over(lambda key: shape.jacobian(start, key), 0, n_jacobian)
    halves = jnp.mean(jacobians.reshape(2, -1, *jacobians.shape[1:]), axis=1)
    (end, state), (us, values, resolved, cut) = jax.lax.scan(
        step, (start, state), jnp.arange(steps, dtype=first.dtype)
    )
    return Block(
        end, state, jnp.mean(us, axis=0), jnp.mean(values, axis=0), halves, jnp.all(resolved), jnp.any(cut, axis=0)
    )
