"""Unbiased estimates of S_N(sigma_0) = N sum_n w_n Re Cov(e^{i n theta_N(t)}, e^{i n theta_i(0)}) from one prompt.

- naive:   N (h(theta_N - theta_i) - H(theta_N)), of variance O(N^2);
- glauber: N / 2 (h(theta_N - theta_i) - h(theta_N - theta_i') - h(theta_N' - theta_i) + h(theta_N' - theta_i')),
  where token i is drawn again and the prompt run with it, theta_N'; the ends differ by O(1 / N): variance O(1);
- adjoint: N (d theta_N / d theta_i(0)) T(theta_N, theta_i), one reverse pass for every source: variance O(1).

h, H and T are the decoder's window, its mean and Stein's kernel (`window`, `source_law`). Less the limit's
prediction for the same prompt (`control`), the variance falls by another O(N).
"""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int

from jaxkinetic._types import Angles, PRNGKeyArray, Scalar
from jaxkinetic.integrate import constant_steps, march
from jaxkinetic.model import CausalAttention, PromptLaw
from jaxkinetic.particles import simulate
from jaxkinetic.particles.drift import velocity
from jaxkinetic.retrieval.control import Control
from jaxkinetic.retrieval.source_law import SourceLaw
from jaxkinetic.retrieval.window import window, window_slope


class Problem(eqx.Module):
    """What an estimator needs to turn a key into values.

    Attributes:
        model: kernel and positional weights.
        prompts: law of the initial tokens.
        time: depth t.
        step: length of the constant steps.
        tokens: indices of the source tokens, from 0, (S,).
        source: their law, tabulated.
        control: the limit's prediction and its mean for this estimator, (S,); None for neither.
        n_tokens: number of tokens N.
        n_steps: number of constant steps, in place of ``step``, for derivatives of an estimator: then both modes
            pass through the solve, one inside the other.
    """

    model: CausalAttention
    prompts: PromptLaw
    time: Scalar
    step: Scalar
    tokens: Int[Array, " source"]
    source: SourceLaw
    control: tuple[Control, Float[Array, " source"]] | None
    n_tokens: int = eqx.field(static=True)
    n_steps: int | None = eqx.field(static=True, default=None)

    def draw(self, key: PRNGKeyArray) -> Angles:
        """Initial angles of a prompt, in the precision of the model."""
        return self.prompts.sample(key, self.n_tokens).astype(self.time.dtype)

    def last(self, start: Angles) -> Scalar:
        """Final angle of the last token."""
        if self.n_steps is not None:
            return march(lambda theta, model: velocity(model, theta), start, self.time, self.n_steps, self.model)[
                -1
            ]
        return simulate(self.model, start, self.time[None], constant_steps(self.step)).angles[0, -1]

    def window(self, u: Array) -> Array:
        """The decoder's window h."""
        return window(u, self.source.vocab_size, self.source.accuracy)


def naive(problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
    """Values of the naive estimator; the control is what a last token that ignores the source would give."""
    start = problem.draw(key)
    end = problem.last(start)
    excess = problem.window(end - start[problem.tokens]) - problem.source.mean_window(end)
    values = problem.n_tokens * excess
    if problem.control is None:
        return values
    return values - naive_prediction(problem, problem.control[0], start)


def naive_prediction(problem: Problem, control: Control, start: Angles) -> Float[Array, " source"]:
    """What `naive` gives for a prompt whose last token ignores the source, N (h(e(x) - y) - H(e(x))); of mean 0."""
    end = control.end(start[-1])
    return problem.n_tokens * (problem.window(end - start[problem.tokens]) - problem.source.mean_window(end))


def adjoint(problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
    """Values of the adjoint estimator, every source from one reverse pass."""
    start = problem.draw(key)
    end, slopes = jax.value_and_grad(problem.last)(start)
    sources = start[problem.tokens]
    values = problem.n_tokens * slopes[problem.tokens] * problem.source.stein_kernel(end, sources)
    if problem.control is None:
        return values
    control, mean = problem.control
    return values - adjoint_prediction(problem, control, start) + mean


def adjoint_prediction(problem: Problem, control: Control, start: Angles) -> Float[Array, " source"]:
    """What the control predicts that `adjoint` gives for a prompt, slope(x, y) T(e(x), y)."""
    x, sources = start[-1], start[problem.tokens]
    return control.slope(x, sources) * problem.source.stein_kernel(control.end(x), sources)


def glauber(problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
    """Values of the re-drawing estimator, one more run for each source."""
    start, others = redrawn(problem, key)
    sources = start[problem.tokens]
    end = problem.last(start)
    ends = jax.vmap(lambda i, other: problem.last(start.at[i].set(other)))(problem.tokens, others)
    h = problem.window
    values = h(end - sources) - h(end - others) - h(ends - sources) + h(ends - others)
    values = problem.n_tokens / 2 * values
    if problem.control is None:
        return values
    control, mean = problem.control
    return values - glauber_prediction(problem, control, start, others) + mean


def redrawn(problem: Problem, key: PRNGKeyArray) -> tuple[Angles, Float[Array, " source"]]:
    """A prompt, and its sources drawn again."""
    first, second = jax.random.split(key)
    return problem.draw(first), problem.draw(second)[problem.tokens]


def glauber_prediction(
    problem: Problem, control: Control, start: Angles, others: Float[Array, " source"]
) -> Float[Array, " source"]:
    """What the control predicts that `glauber` gives for a prompt whose sources are drawn again as ``others``."""
    x, size, sources = start[-1], problem.source.vocab_size, start[problem.tokens]
    moved = control.displacement(x, sources) - control.displacement(x, others)
    slopes = window_slope(control.end(x) - sources, size) - window_slope(control.end(x) - others, size)
    return moved * slopes / 2


def naive_control(problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
    """What the control takes from `naive`."""
    assert problem.control is not None
    return naive_prediction(problem, problem.control[0], problem.draw(key))


def adjoint_control(problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
    """What the control takes from `adjoint`: the prediction less its mean."""
    assert problem.control is not None
    control, mean = problem.control
    return adjoint_prediction(problem, control, problem.draw(key)) - mean


def glauber_control(problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
    """What the control takes from `glauber`: the prediction less its mean."""
    assert problem.control is not None
    control, mean = problem.control
    return glauber_prediction(problem, control, *redrawn(problem, key)) - mean


ESTIMATORS = {"naive": naive, "glauber": glauber, "adjoint": adjoint}
CONTROLS = {"naive": naive_control, "glauber": glauber_control, "adjoint": adjoint_control}
