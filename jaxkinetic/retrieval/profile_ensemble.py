"""Ensembles whose means are retrieval profiles: what is asked for is checked, chosen and tabulated."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import PRNGKeyArray, as_float, check_at_least, check_positive, check_scalar
from jaxkinetic.integrate import reason
from jaxkinetic.model import (
    ALiBi,
    CausalAttention,
    ClusterPrompts,
    DensityPrompts,
    PositionalWeights,
    PromptLaw,
    UniformPrompts,
)
from jaxkinetic.particles.ensemble import BLOCK, Moments, batch_size, run_blocks, run_ensemble
from jaxkinetic.retrieval.control import Control, law_control, uniform_control
from jaxkinetic.retrieval.estimators import CONTROLS, ESTIMATORS, Problem
from jaxkinetic.retrieval.source_law import SMALLEST_DENSITY, SourceLaw, lowest_density, tabulate_source
from jaxkinetic.retrieval.window import Accuracy

Estimator = Literal["auto", "naive", "glauber", "adjoint"]
_FEW = 9


class NoControlWarning(UserWarning):
    """A control was left out because its limit is not resolved."""


@dataclasses.dataclass(frozen=True)
class ProfileEnsemble:
    """An ensemble whose means are a retrieval profile: checked and tabulated, ready to run.

    Attributes:
        problem: what turns a key into values; its step is set when it runs.
        estimator: "naive", "glauber" or "adjoint".
        bytes_per_prompt: working memory of one prompt.
        may_drop_control: whether there is a control that nobody asked for.
    """

    problem: Problem
    estimator: Literal["naive", "glauber", "adjoint"]
    bytes_per_prompt: float
    may_drop_control: bool = False

    @property
    def sources(self) -> Float[np.ndarray, " source"]:
        """Positions sigma_0 = i / N of the source tokens, (S,)."""
        return (np.asarray(self.problem.tokens) + 1) / self.problem.n_tokens

    def replace(self, problem: Problem) -> "ProfileEnsemble":
        """The same ensemble of another problem."""
        return dataclasses.replace(self, problem=problem)

    def insist(self) -> "ProfileEnsemble":
        """The same ensemble, its control asked for."""
        return dataclasses.replace(self, may_drop_control=False)

    def without_control(self) -> "ProfileEnsemble":
        """The same ensemble without its control."""
        return dataclasses.replace(
            self, problem=dataclasses.replace(self.problem, control=None), may_drop_control=False
        )

    def run(
        self,
        n_steps: int,
        key: PRNGKeyArray,
        n_prompts: int,
        first: int,
        memory: float,
        devices: Sequence[Any],
        **options: Any,
    ) -> Moments:
        """Moments of the values over prompts ``first``, ...; ``options`` as `run_ensemble` has them.

        Raises:
            RuntimeError: if a value is not finite.
        """
        moments = run_ensemble(
            ESTIMATORS[self.estimator], with_steps(self.problem, n_steps), key, n_prompts, first=first,
            devices=devices, bytes_per_prompt=self.bytes_per_prompt, memory=memory, **options,
        )  # fmt: skip
        if not (np.all(np.isfinite(moments.mean)) and np.all(np.isfinite(moments.m2))):
            raise RuntimeError(
                f"Values of the prompts from {first} on are not finite with {n_steps} constant steps to "
                f"t = {float(self.problem.time):g}: raise `n_steps`, or stop at an earlier `time`."
            )
        return moments

    def pilot(
        self, n_steps: int, key: PRNGKeyArray, first: int, memory: float, devices: Sequence[Any]
    ) -> Float[np.ndarray, "prompt source"]:
        """Values of each prompt of the block that starts at ``first``, on one device."""
        return self._block(
            ESTIMATORS[self.estimator], with_steps(self.problem, n_steps), key, first, memory, devices
        )

    def pilot_control(
        self, key: PRNGKeyArray, first: int, memory: float, devices: Sequence[Any]
    ) -> Float[np.ndarray, "prompt source"]:
        """What the control takes from the values of each of these prompts."""
        return self._block(CONTROLS[self.estimator], self.problem, key, first, memory, devices)

    def _block(self, statistic, problem, key, first, memory, devices):
        batch = batch_size(self.bytes_per_prompt, memory)
        (values,) = run_blocks(statistic, problem, key, [first // BLOCK], devices[:1], batch)
        return values.astype(np.float64)


def prepare_profile(
    model: CausalAttention,
    time: Any,
    vocab_size: int,
    n_tokens: int,
    prompts: PromptLaw | None = None,
    estimator: Estimator = "auto",
    control_variate: bool | None = None,
    sources: Any = None,
    accuracy: Accuracy = "soft",
) -> ProfileEnsemble:
    """Check what is to be estimated and tabulate what all its prompts share; arguments as `estimate_profile`."""
    law = UniformPrompts() if prompts is None else prompts
    check_scalar("time", time)
    check_positive("time", time)
    check_at_least("vocab_size", vocab_size, 2)
    check_at_least("n_tokens", n_tokens, 2)
    check_sensible(time=time, vocab_size=vocab_size, n_tokens=n_tokens)
    if accuracy not in ("soft", "hard"):
        raise ValueError(f"Argument `accuracy` must be 'soft' or 'hard', but is {accuracy!r}.")
    every = isinstance(law, UniformPrompts) and estimator != "glauber"
    tokens = source_tokens(sources, n_tokens, every)
    chosen = choose_estimator(law, estimator, accuracy, (tokens + 1) / n_tokens)
    wanted = choose_control(control_variate, law, chosen, accuracy, model.positions)
    dtype = model.positions.dtype
    sigma = jnp.asarray((tokens + 1) / n_tokens, dtype)
    depth = as_float(time).astype(dtype)
    source = tabulate_source(law, sigma, vocab_size, accuracy, stein=chosen == "adjoint")
    control = _control(model, law, depth, sigma, chosen, source, control_variate) if wanted else None
    problem = Problem(model, law, depth, depth, jnp.asarray(tokens), source, control, n_tokens)
    size = bytes_per_prompt(model, n_tokens, tokens.size, chosen)
    return ProfileEnsemble(problem, chosen, size, control is not None and control_variate is None)


def choose_estimator(
    law: PromptLaw, estimator: str, accuracy: str, sigma: Any = None
) -> Literal["naive", "glauber", "adjoint"]:
    """The estimator to use; one that is not valid for the law is refused.

    "auto" takes the adjoint where it is valid from the first token to the last, so that its choice does not depend
    on the sources: for uniform tokens, and, soft decoder, for densities that stay above zero.

    Args:
        law: law of the initial tokens.
        estimator: "auto", "naive", "glauber" or "adjoint".
        accuracy: the decoder, "soft" or "hard".
        sigma: positions of the sources, for which "adjoint" has to be valid; the whole prompt if None.

    Raises:
        ValueError: on other names, and on "adjoint" for laws that have no derivative to integrate by parts.
    """
    if not isinstance(law, PromptLaw):
        raise ValueError(f"Argument `prompts` must be a PromptLaw, but is {type(law).__name__}.")
    if estimator not in ("auto", *ESTIMATORS):
        raise ValueError(
            f"Argument `estimator` must be 'auto', 'naive', 'glauber' or 'adjoint', but is {estimator!r}."
        )
    valid = isinstance(law, UniformPrompts) or (isinstance(law, DensityPrompts) and accuracy == "soft")
    if estimator == "adjoint" and not valid:
        raise ValueError(
            f"Argument `estimator` must not be 'adjoint' for {type(law).__name__} and {accuracy} accuracy: it "
            "integrates by parts over the source's density, here with the soft decoder only. Use 'glauber'."
        )
    if estimator not in ("auto", "adjoint"):
        return estimator  # pyright: ignore[reportReturnType]
    if valid and isinstance(law, DensityPrompts):
        lowest = lowest_density(law, None if estimator == "auto" else sigma)
        if estimator == "adjoint" and lowest < SMALLEST_DENSITY:
            raise ValueError(
                f"Argument `estimator` must not be 'adjoint' for a density that falls to {lowest:.2g}: it divides "
                "by the density. Use 'glauber'."
            )
        valid = lowest >= SMALLEST_DENSITY
    return "adjoint" if valid else "glauber"


def choose_control(
    wanted: bool | None, law: PromptLaw, estimator: str, accuracy: str, positions: PositionalWeights | None = None
) -> bool:
    """Whether to subtract the limit's prediction: if it exists and unless told not to."""
    missing = why_no_control(law, estimator, accuracy, positions)
    if wanted and missing:
        raise ValueError(f"Argument `control_variate` must be False here: {missing}.")
    return missing is None if wanted is None else bool(wanted)


def why_no_control(
    law: PromptLaw, estimator: str, accuracy: str, positions: PositionalWeights | None = None
) -> str | None:
    """Why there is no prediction of the limit to subtract; None where there is one."""
    if isinstance(law, ClusterPrompts):
        return "ClusterPrompts has no limit that polynomials in sigma resolve"
    if estimator == "glauber" and accuracy == "hard":
        return "the hard decoder has no slope to predict with"
    if not isinstance(positions, ALiBi | None) and not isinstance(law, UniformPrompts):
        solved = f"the limit of {type(law).__name__} is solved for ALiBi weights"
        return f"{solved}, not for {type(positions).__name__}"
    return None


def source_tokens(sources: Any, n_tokens: int, every_token: bool) -> Int[np.ndarray, " source"]:
    """Indices, from 0, of the source tokens: of positions, of "all", or if None of all or of a few."""
    if isinstance(sources, str):
        if sources != "all":
            raise ValueError(f"Argument `sources` must be positions or 'all', but is {sources!r}.")
        return np.arange(n_tokens - 1)
    if sources is None:
        if every_token or n_tokens - 1 <= _FEW:
            return np.arange(n_tokens - 1)
        sources = np.arange(1, _FEW + 1) / (_FEW + 1)
    given = np.asarray(sources, dtype=float)
    if given.ndim != 1 or given.size == 0:
        raise ValueError(
            f"Argument `sources` must be a non-empty one-dimensional array, but has shape {given.shape}."
        )
    if not np.all((given > 0) & (given < 1)):
        raise ValueError(f"Argument `sources` must lie in (0, 1), but is {given if given.size <= 6 else '...'}.")
    # Half a rounding of the precision that they were given in: 0.3 in single precision is a little more than that.
    precision = np.asarray(sources).dtype
    rounding = np.finfo(precision).eps if precision.kind == "f" else 0.0
    tokens = np.ceil(n_tokens * (given - rounding / 2) - 1e-9).astype(int) - 1
    if given.size > n_tokens - 1:
        raise ValueError(f"N = {n_tokens} is too small for {given.size} `sources`: the last token is none.")
    if np.any(tokens >= n_tokens - 1):
        late = given[np.argmax(tokens)]
        raise ValueError(
            f"Argument `sources` must name tokens before the last, but {late:g} names the last of N = {n_tokens}: "
            "give other sources, or more tokens."
        )
    names, counts = np.unique(tokens, return_counts=True)
    if names.size < tokens.size:
        twice = names[np.argmax(counts > 1)]
        shared = " and ".join(f"{s:g}" for s in given[tokens == twice][:2])
        raise ValueError(
            f"Argument `sources` must name different tokens, but {shared} both name token {twice + 1} of "
            f"N = {n_tokens}: give other sources, or more tokens."
        )
    return tokens


def _control(
    model: CausalAttention,
    law: PromptLaw,
    time: jax.Array,
    sigma: jax.Array,
    estimator: str,
    source: SourceLaw,
    wanted: bool | None,
) -> tuple[Control, jax.Array] | None:
    """The control and its mean; None, with a warning, if its limit is not resolved and nobody asked for it."""
    try:
        if isinstance(law, UniformPrompts):
            control: Control = uniform_control(model, time, sigma)
        else:
            control = law_control(model, law, time, sigma, source.vocab_size)
        mean = {"adjoint": control.mean_of_adjoint, "glauber": control.mean_of_redraw}.get(estimator)
        exact = jnp.zeros_like(sigma) if mean is None else eqx.filter_jit(mean)(source)
        if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((control, exact))):
            raise RuntimeError("The limit is not resolved: its prediction is not finite.")
    except RuntimeError as error:
        where = f"the limit's prediction for {type(law).__name__} at t = {float(time):g} is not to be had"
        why = reason(error)
        if wanted:
            raise RuntimeError(f"Argument `control_variate` must be False here: {where}. {why}") from error
        message = f"No control variate: {where}, so that standard errors are larger. {why}"
        warnings.warn(message, NoControlWarning, stacklevel=4)
        return None
    return control, exact


def bytes_per_prompt(model: CausalAttention, n_tokens: int, n_sources: int, estimator: str) -> float:
    """Working memory of one prompt: states of the solver, and of the modes where the sum is differentiated."""
    runs = {"naive": 1, "adjoint": 8, "glauber": 1 + n_sources}[estimator]
    return float(model.positions.dtype.itemsize * n_tokens * runs * (24 + model.kernel.n_modes))


def with_steps(problem: Problem, n_steps: int) -> Problem:
    """The same problem, with that many constant steps to its depth."""
    return eqx.tree_at(lambda p: p.step, problem, problem.time / n_steps)
