"""Ensembles whose means are retrieval profiles: what is asked for is checked, chosen and tabulated."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import (
    PRNGKeyArray,
    as_float,
    as_numbers,
    check_at_least,
    check_choice,
    check_flags,
    check_positive_number,
    check_type,
)
from jaxkinetic.integrate import reason
from jaxkinetic.model import CausalAttention, Circle, Layer, PromptLaw, UniformPrompts
from jaxkinetic.particles.ensemble import BLOCK, Moments, batch_size, run_blocks, run_ensemble
from jaxkinetic.retrieval.control import Control, law_control, uniform_control
from jaxkinetic.retrieval.estimators import ESTIMATORS, Estimator, Problem
from jaxkinetic.retrieval.source_law import tabulate_source
from jaxkinetic.retrieval.window import Accuracy

_FEW = 9


class NoControlWarning(UserWarning):
    """A control was left out because its limit is not resolved."""


@dataclasses.dataclass(frozen=True)
class ProfileEnsemble:
    """An ensemble whose means are a retrieval profile: checked and tabulated, ready to run.

    Attributes:
        problem: what turns a key into values; its number of steps is set when it runs.
        estimator: what turns a prompt into values.
        bytes_per_prompt: working memory of one prompt.
        may_drop_control: whether there is a control that nobody asked for.
    """

    problem: Problem
    estimator: Estimator
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
            self.estimator, dataclasses.replace(self.problem, n_steps=n_steps), key, n_prompts, first=first,
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
        problem = dataclasses.replace(self.problem, n_steps=n_steps)
        return self._block(self.estimator, problem, key, first, memory, devices)

    def pilot_control(
        self, key: PRNGKeyArray, first: int, memory: float, devices: Sequence[Any]
    ) -> Float[np.ndarray, "prompt source"]:
        """What the control takes from the values of each of these prompts."""
        return self._block(self.estimator.control, self.problem, key, first, memory, devices)

    def _block(self, statistic, problem, key, first, memory, devices):
        batch = batch_size(self.bytes_per_prompt, memory)
        (values,) = run_blocks(statistic, problem, key, [first // BLOCK], devices[:1], batch)
        return values.astype(np.float64)


def prepare_profile(
    model: Layer,
    time: Any,
    vocab_size: int,
    n_tokens: int,
    *,
    prompts: PromptLaw | None = None,
    estimator: str | Estimator = "auto",
    control_variate: bool | None = None,
    sources: Any = None,
    accuracy: Accuracy = "soft",
) -> ProfileEnsemble:
    """Check what is to be estimated and tabulate what all its prompts share; arguments as `estimate_profile`."""
    law = UniformPrompts() if prompts is None else prompts
    check_type("model", model, Layer)
    if not isinstance(model.space, Circle):
        raise ValueError(f"Argument `model` must move tokens on the circle for an estimate, not on {model.space}.")
    check_type("prompts", law, PromptLaw)
    check_positive_number("time", time)
    if control_variate is not None:
        check_flags(control_variate=control_variate)
    check_at_least("vocab_size", vocab_size, 2)
    check_at_least("n_tokens", n_tokens, 2)
    check_sensible(time=time, vocab_size=vocab_size, n_tokens=n_tokens)
    check_choice("accuracy", accuracy, ("soft", "hard"))
    every = law.is_uniform and estimator_named(estimator).takes_all_sources
    tokens = source_tokens(sources, n_tokens, every)
    chosen = choose_estimator(law, estimator, accuracy, (tokens + 1) / n_tokens)
    wanted = choose_control(control_variate, law, chosen, accuracy, model)
    dtype = model.dtype
    sigma = jnp.asarray((tokens + 1) / n_tokens, dtype)
    depth = as_float(time).astype(dtype)
    source = tabulate_source(law, sigma, vocab_size, accuracy, stein=chosen.needs_density)
    problem = Problem(model, law, depth, jnp.asarray(tokens), source, None, n_tokens)
    if wanted:
        problem = dataclasses.replace(problem, control=_control(problem, sigma, chosen, control_variate))
    size = bytes_per_prompt(model, n_tokens, tokens.size, chosen)
    return ProfileEnsemble(problem, chosen, size, problem.control is not None and control_variate is None)


def estimator_named(estimator: str | Estimator) -> Estimator:
    """The estimator of a name, or as given; "auto" is the one that is tried first, the adjoint.

    Raises:
        ValueError: on other names.
    """
    if isinstance(estimator, Estimator):
        return estimator
    check_choice("estimator", estimator, ("auto", *ESTIMATORS))
    return ESTIMATORS["adjoint" if estimator == "auto" else estimator]


def choose_estimator(
    law: PromptLaw, estimator: str | Estimator, accuracy: Accuracy, sigma: Any = None
) -> Estimator:
    """The estimator to use; one that is biased for the law is refused.

    "auto" takes the adjoint where it is valid from the first token to the last, so that its choice does not depend
    on the sources: for uniform tokens, and, soft decoder, for densities that stay above zero.

    Args:
        law: law of the initial tokens.
        estimator: "auto", "naive", "glauber" or "adjoint", or an `Estimator`.
        accuracy: the decoder, "soft" or "hard".
        sigma: positions of the sources, for which the estimator has to be valid; the whole prompt if None.

    Raises:
        ValueError: on other names, and on "adjoint" for laws that have no derivative to integrate by parts.
    """
    chosen = estimator_named(estimator)
    is_auto = isinstance(estimator, str) and estimator == "auto"
    invalid = chosen.why_invalid(law, accuracy, None if is_auto else sigma)
    if invalid is None:
        return chosen
    if is_auto:
        return ESTIMATORS["glauber"]
    raise ValueError(f"Argument `estimator` must not be {chosen.name!r} {invalid}. Use 'glauber'.")


def choose_control(
    wanted: bool | None, law: PromptLaw, estimator: Estimator, accuracy: Accuracy, model: Layer | None = None
) -> bool:
    """Whether to subtract the limit's prediction: if it exists and unless told not to."""
    missing = why_no_control(law, estimator, accuracy, model)
    if wanted and missing:
        raise ValueError(f"Argument `control_variate` must be False here: {missing}.")
    return missing is None if wanted is None else bool(wanted)


def why_no_control(
    law: PromptLaw, estimator: Estimator, accuracy: Accuracy, model: Layer | None = None
) -> str | None:
    """Why there is no prediction of the limit to subtract; None where there is one."""
    unpredicted = estimator.why_unpredicted(accuracy)
    if unpredicted is not None:
        return unpredicted
    if law.has_jumps:
        return f"{type(law).__name__} has no limit that polynomials in sigma resolve"
    return None if model is None else model.why_no_limit(law.is_uniform)


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
    given = as_numbers("sources", sources)
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
    problem: Problem, sigma: jax.Array, estimator: Estimator, wanted: bool | None
) -> tuple[Control, jax.Array] | None:
    """The control and its mean; None, with a warning, if its limit is not resolved and nobody asked for it."""
    model, law, time = problem.model, problem.prompts, problem.time
    assert isinstance(model, CausalAttention)
    try:
        if law.is_uniform:
            control: Control = uniform_control(model, time, sigma)
        else:
            control = law_control(model, law, time, sigma, problem.source.vocab_size)
        mean = eqx.filter_jit(estimator.mean_prediction)(problem, control)
        if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((control, mean))):
            raise RuntimeError("The limit is not resolved: its prediction is not finite.")
    except RuntimeError as error:
        where = f"the limit for {type(law).__name__} at t = {float(time):g} could not be computed"
        why = reason(error)
        if wanted:
            raise RuntimeError(f"Argument `control_variate` must be False here: {where}. {why}") from error
        message = f"No control variate: {where}, so that standard errors are larger. {why}"
        warnings.warn(message, NoControlWarning, stacklevel=4)
        return None
    return control, mean


def bytes_per_prompt(model: Layer, n_tokens: int, n_sources: int, estimator: Estimator) -> float:
    """Working memory of one prompt: states of the solver, and of the layer."""
    numbers = 8 + model.memory_per_token
    return float(model.dtype.itemsize * n_tokens * estimator.runs(n_sources) * numbers)
