"""Unbiased estimates of S_N(sigma_0) = N sum_n w_n Re Cov(e^{i n theta_N(t)}, e^{i n theta_i(0)}) from one prompt.

- naive:   N (h(theta_N - theta_i) - H(theta_N)), of variance O(N^2);
- glauber: N / 2 (h(theta_N - theta_i) - h(theta_N - theta_i') - h(theta_N' - theta_i) + h(theta_N' - theta_i')),
  where token i is drawn again and the prompt run with it, theta_N'; the ends differ by O(1 / N): variance O(1);
- adjoint: N (d theta_N / d theta_i(0)) T(theta_N, theta_i), one reverse pass for every source: variance O(1).

h, H and T are the decoder's window, its mean and Stein's kernel (`window`, `source_law`). Less the limit's
prediction for the same prompt (`control`), the variance falls by another O(N).
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxkinetic._types import Angles, PRNGKeyArray, Scalar
from jaxkinetic.integrate import march
from jaxkinetic.model import Layer, PromptLaw
from jaxkinetic.retrieval.control import Control
from jaxkinetic.retrieval.source_law import SMALLEST_DENSITY, SourceLaw, lowest_density
from jaxkinetic.retrieval.window import Accuracy, window, window_slope


class Problem(eqx.Module):
    """What an estimator needs to turn a key into values.

    Attributes:
        model: attention, or any layer.
        prompts: law of the initial tokens.
        time: depth t.
        tokens: indices of the source tokens, from 0, (S,).
        source: their law, tabulated.
        control: the limit's prediction and its mean for this estimator, (S,); None for neither.
        n_tokens: number of tokens N.
        n_steps: number of equal steps to depth t.
    """

    model: Layer
    prompts: PromptLaw
    time: Scalar
    tokens: Int[Array, " source"]
    source: SourceLaw
    control: tuple[Control, Float[Array, " source"]] | None
    n_tokens: int = eqx.field(static=True)
    n_steps: int = eqx.field(static=True, default=1)

    def draw(self, key: PRNGKeyArray) -> Angles:
        """Initial angles of a prompt, in the precision of the model."""
        return self.prompts.sample(key, self.n_tokens).astype(self.time.dtype)

    def last(self, start: Angles) -> Scalar:
        """Final angle of the last token; not finite where the steps are too long for the forces."""
        return march(lambda theta, model: model.velocity(theta), start, self.time, self.n_steps, self.model)[-1]

    def window(self, u: Array) -> Array:
        """The decoder's window h."""
        return window(u, self.source.vocab_size, self.source.accuracy)


class Estimator(abc.ABC):
    """An unbiased estimator of S_N from one prompt, less what the limit predicts for the same prompt.

    A new estimator implements `draw`, `value` and, if it can be predicted, `prediction` and `mean_prediction`.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def draw(self, problem: Problem, key: PRNGKeyArray) -> Any:
        """What is random: a prompt, and whatever else."""

    @abc.abstractmethod
    def value(self, problem: Problem, drawn: Any) -> Float[Array, " source"]:
        """Value of S_N at every source, without bias."""

    def prediction(self, problem: Problem, control: Control, drawn: Any) -> Float[Array, " source"]:
        """What the control predicts for that value, up to a part whose mean is `mean_prediction`."""
        del control, drawn
        return jnp.zeros(problem.tokens.shape, problem.time.dtype)

    def mean_prediction(self, problem: Problem, control: Control) -> Float[Array, " source"]:
        """Exact mean of the prediction; zero by default."""
        del control
        return jnp.zeros(problem.tokens.shape, problem.time.dtype)

    def runs(self, n_sources: int) -> int:
        """Memory of one prompt, in that of one run without derivatives."""
        del n_sources
        return 1

    def work(self, n_sources: int) -> int:
        """Cost of one prompt, in that of one run without derivatives."""
        del n_sources
        return 1

    @property
    def needs_density(self) -> bool:
        """Whether it needs Stein's kernel of the source's density."""
        return False

    @property
    def takes_all_sources(self) -> bool:
        """Whether all sources cost no more than one."""
        return True

    def why_invalid(self, law: PromptLaw, accuracy: Accuracy, sigma: Any = None) -> str | None:
        """Why it is biased for a law and a decoder, at positions or over the whole prompt; None if it is not."""
        del law, accuracy, sigma
        return None

    def why_unpredicted(self, accuracy: Accuracy) -> str | None:
        """Why the limit predicts nothing for it; None if it does."""
        del accuracy
        return None

    def __call__(self, problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
        """Value at every source of the prompt of a key, less its prediction, whose mean is added."""
        drawn = self.draw(problem, key)
        value = self.value(problem, drawn)
        return value if problem.control is None else value - self._excess(problem, drawn)

    def control(self, problem: Problem, key: PRNGKeyArray) -> Float[Array, " source"]:
        """What the control takes from the values: the prediction less its mean."""
        return self._excess(problem, self.draw(problem, key))

    def _excess(self, problem: Problem, drawn: Any) -> Float[Array, " source"]:
        assert problem.control is not None
        control, mean = problem.control
        return self.prediction(problem, control, drawn) - mean


class Naive(Estimator):
    """N (h(theta_N - theta_i) - H(theta_N)); predicted is a last token that ignores the source."""

    name = "naive"

    def draw(self, problem, key):
        """A prompt."""
        return problem.draw(key)

    def value(self, problem, drawn):
        """The window at the source, less its mean over sources."""
        return self._at(problem, problem.last(drawn), drawn)

    def prediction(self, problem, control, drawn):
        """The same for a last token at e(x)."""
        return self._at(problem, control.end(drawn[-1]), drawn)

    def _at(self, problem, end, drawn):
        excess = problem.window(end - drawn[problem.tokens]) - problem.source.mean_window(end)
        return problem.n_tokens * excess


class Glauber(Estimator):
    """N / 2 (h(theta_N - theta_i) - h(theta_N - theta_i') - h(theta_N' - theta_i) + h(theta_N' - theta_i'))."""

    name = "glauber"

    def draw(self, problem, key):
        """A prompt, and its sources drawn again."""
        first, second = jax.random.split(key)
        return problem.draw(first), problem.draw(second)[problem.tokens]

    def value(self, problem, drawn):
        """One more run for each source."""
        start, others = drawn
        sources = start[problem.tokens]
        end = problem.last(start)
        ends = jax.vmap(lambda i, other: problem.last(start.at[i].set(other)))(problem.tokens, others)
        h = problem.window
        return problem.n_tokens / 2 * (h(end - sources) - h(end - others) - h(ends - sources) + h(ends - others))

    def prediction(self, problem, control, drawn):
        """To first order in the displacement."""
        start, others = drawn
        x, size, sources = start[-1], problem.source.vocab_size, start[problem.tokens]
        moved = control.displacement(x, sources) - control.displacement(x, others)
        slopes = window_slope(control.end(x) - sources, size) - window_slope(control.end(x) - others, size)
        return moved * slopes / 2

    def mean_prediction(self, problem, control):
        """Covariance of displacement and slope."""
        return control.mean_of_redraw(problem.source)

    def runs(self, n_sources):
        """All at once."""
        return 1 + n_sources

    def work(self, n_sources):
        """One more run for each source."""
        return 1 + n_sources

    @property
    def takes_all_sources(self):
        """Each source costs a run."""
        return False

    def why_unpredicted(self, accuracy):
        """The prediction needs the window's slope."""
        return "the hard decoder has no slope to predict with" if accuracy == "hard" else None


class Adjoint(Estimator):
    """N (d theta_N / d theta_i(0)) T(theta_N, theta_i), every source from one reverse pass."""

    name = "adjoint"

    def draw(self, problem, key):
        """A prompt."""
        return problem.draw(key)

    def value(self, problem, drawn):
        """By reverse-mode differentiation of the run."""
        end, slopes = jax.value_and_grad(problem.last)(drawn)
        sources = drawn[problem.tokens]
        return problem.n_tokens * slopes[problem.tokens] * problem.source.stein_kernel(end, sources)

    def prediction(self, problem, control, drawn):
        """slope(x, y) T(e(x), y)."""
        x, sources = drawn[-1], drawn[problem.tokens]
        return control.slope(x, sources) * problem.source.stein_kernel(control.end(x), sources)

    def mean_prediction(self, problem, control):
        """Its mean over both laws."""
        return control.mean_of_adjoint(problem.source)

    def runs(self, n_sources):
        """States of the steps, kept for the reverse pass."""
        del n_sources
        return 8

    def work(self, n_sources):
        """The run and its reverse pass."""
        del n_sources
        return 3

    @property
    def needs_density(self):
        """For Stein's kernel."""
        return True

    def why_invalid(self, law, accuracy, sigma=None):
        """It integrates by parts over the source's density, which must not vanish."""
        if law.is_uniform:
            return None
        if law.n_modes is None or accuracy == "hard":
            return (
                f"for {type(law).__name__} and {accuracy} accuracy: it integrates by parts over the source's "
                "density, here with the soft decoder only"
            )
        lowest = lowest_density(law, sigma)
        if lowest < SMALLEST_DENSITY:
            return f"for a density that falls to {lowest:.2g}: it divides by the density"
        return None


ESTIMATORS: dict[str, Estimator] = {e.name: e for e in (Naive(), Glauber(), Adjoint())}
