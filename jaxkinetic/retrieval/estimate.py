"""The retrieval profile of finite prompts, estimated from particles with standard errors."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxkinetic._types import PRNGKeyArray, as_float, check_at_least, check_positive, check_scalar
from jaxkinetic.integrate import CONSTANT_STEPS
from jaxkinetic.model import (
    ALiBi,
    CausalAttention,
    ClusterPrompts,
    DensityPrompts,
    PositionalWeights,
    PromptLaw,
    UniformPrompts,
)
from jaxkinetic.particles.ensemble import (
    BLOCK,
    Moments,
    batch_size,
    check_first,
    local_devices,
    run_blocks,
    run_ensemble,
)
from jaxkinetic.retrieval.control import Control, law_control, uniform_control
from jaxkinetic.retrieval.estimators import ESTIMATORS, Problem
from jaxkinetic.retrieval.source_law import tabulate_source
from jaxkinetic.retrieval.window import Accuracy, level

Estimator = Literal["auto", "naive", "glauber", "adjoint"]
_FEW = 9
_BIAS = 0.02
_FIRST_STEPS = 4


@dataclasses.dataclass(frozen=True)
class ProfileEstimate:
    """A retrieval profile S_N(sigma_0) from particles.

    Attributes:
        sources: positions sigma_0 = i / N of the source tokens, (S,).
        values: estimates of S_N(sigma_0), (S,).
        standard_error: their standard errors, (S,).
        n_prompts: number of prompts.
        n_tokens: number of tokens N.
        vocab_size: vocabulary size M of the decoder.
        accuracy: the decoder, "soft" or "hard".
        estimator: "naive", "glauber" or "adjoint".
        control_variate: whether the limit's prediction was subtracted.
        n_steps: number of constant steps to depth t.
        step_error: root-mean-square error that these leave in one prompt's values, at worst over the sources.
        moments: count, mean and M2, which merge with those of other prompts.
    """

    sources: Float[np.ndarray, " source"]
    values: Float[np.ndarray, " source"]
    standard_error: Float[np.ndarray, " source"]
    n_prompts: int
    n_tokens: int
    vocab_size: int
    accuracy: Accuracy
    estimator: str
    control_variate: bool
    n_steps: int
    step_error: float
    moments: Moments = dataclasses.field(repr=False)

    @property
    def covariance(self) -> Float[np.ndarray, "source source"]:
        """Joint covariance of the estimates, (S, S); estimate with ``joint=True``."""
        return self.moments.covariance

    def retrieval(self) -> Float[np.ndarray, " source"]:
        """The part of the accuracy that remembers the source, 2 c S_N / N: sqrt(2 pi) / (M N) S_N if soft."""
        return 2 * level(self.accuracy, self.vocab_size) / self.n_tokens * self.values


def estimate_profile(
    model: CausalAttention,
    time: Any,
    vocab_size: int,
    n_tokens: int,
    n_prompts: int,
    key: PRNGKeyArray,
    prompts: PromptLaw | None = None,
    estimator: Estimator = "auto",
    control_variate: bool | None = None,
    sources: Any = None,
    accuracy: Accuracy = "soft",
    joint: bool = False,
    n_steps: int | None = None,
    first: int = 0,
    memory: float = 2.0**30,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> ProfileEstimate:
    """Estimate the retrieval profile of prompts of N tokens, without bias and with standard errors.

    S_N(sigma_0) = N sum_{n >= 1} w_n Re Cov(e^{i n theta_N(t)}, e^{i n theta_i(0)}),    i = ceil(N sigma_0),

    which tends to S_t(sigma_0) (1.21) as N grows; the accuracy (1.4) or (1.5) is chance plus 2 c S_N / N.

    Args:
        model: kernel and positional weights.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2 of the decoder.
        n_tokens: number of tokens N >= 2.
        n_prompts: number of prompts; prompt p draws from ``fold_in(key, p)``.
        key: random key.
        prompts: law of the initial tokens; uniform if None.
        estimator: "naive"; "glauber", for every law, one more run a source; "adjoint", for uniform tokens and
            positive densities, every source at once. "auto" takes adjoint where it is valid, else glauber.
        control_variate: whether to subtract the limit's prediction; where there is one if None.
        sources: positions sigma_0 in (0, 1), which become tokens ceil(N sigma_0) < N. If None all tokens before the
            last for uniform prompts, and 9 of them, evenly spaced, for "glauber" and other laws.
        accuracy: the decoder, "soft" (1.5) or "hard" (1.4).
        joint: whether to keep the covariance between sources.
        n_steps: constant steps to depth t; if None as many as keep their error below a fiftieth of the standard
            error, found on the first prompts.
        first: index of the first prompt, a multiple of 32, to extend an earlier estimate.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.
        progress: whether to show prompts done, their rate and the time left, on a terminal.

    Returns:
        The estimate, the same for any number of devices, processes and restarts.

    Raises:
        ValueError: on t <= 0, M < 2, sources outside (0, 1) or more of them than tokens, or an estimator or a
            control that the law or the decoder does not allow.
    """
    check_at_least("n_prompts", n_prompts, 1)
    here = local_devices(devices)
    check_first(first)
    ensemble = prepare_profile(
        model, time, vocab_size, n_tokens, prompts, estimator, control_variate, sources, accuracy
    )
    n_steps, step_error = choose_steps(ensemble, key, n_prompts, n_steps, first, memory, here)
    moments = ensemble.run(n_steps, key, n_prompts, first, memory, here, joint=joint, progress=progress)
    return ProfileEstimate(
        ensemble.sources, moments.mean, moments.standard_error, moments.count, n_tokens, vocab_size,
        accuracy, ensemble.estimator, ensemble.problem.control is not None, n_steps, step_error, moments,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ProfileEnsemble:
    """An ensemble whose means are a retrieval profile: checked and tabulated, ready to run.

    Attributes:
        problem: what turns a key into values; its step is set when it runs.
        estimator: "naive", "glauber" or "adjoint".
        bytes_per_prompt: working memory of one prompt.
    """

    problem: Problem
    estimator: Literal["naive", "glauber", "adjoint"]
    bytes_per_prompt: float

    @property
    def sources(self) -> Float[np.ndarray, " source"]:
        """Positions sigma_0 = i / N of the source tokens, (S,)."""
        return (np.asarray(self.problem.tokens) + 1) / self.problem.n_tokens

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
        """Moments of the values over prompts ``first``, ...; ``options`` as `run_ensemble` has them."""
        return run_ensemble(
            ESTIMATORS[self.estimator], _with_steps(self.problem, n_steps), key, n_prompts, first=first,
            devices=devices, bytes_per_prompt=self.bytes_per_prompt, memory=memory, **options,
        )  # fmt: skip

    def pilot(
        self, n_steps: int, key: PRNGKeyArray, first: int, memory: float, devices: Sequence[Any]
    ) -> Float[np.ndarray, "prompt source"]:
        """Values of each prompt of the block that starts at ``first``, on one device."""
        batch = batch_size(self.bytes_per_prompt, memory)
        problem = _with_steps(self.problem, n_steps)
        (values,) = run_blocks(ESTIMATORS[self.estimator], problem, key, [first // BLOCK], devices[:1], batch)
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
    if accuracy not in ("soft", "hard"):
        raise ValueError(f"Argument `accuracy` must be 'soft' or 'hard', but is {accuracy!r}.")
    chosen = choose_estimator(law, estimator, accuracy)
    tokens = source_tokens(sources, n_tokens, isinstance(law, UniformPrompts) and chosen != "glauber")
    controlled = choose_control(control_variate, law, chosen, accuracy, model.positions)
    dtype = model.positions.dtype
    sigma = jnp.asarray((tokens + 1) / n_tokens, dtype)
    depth = as_float(time).astype(dtype)
    source = tabulate_source(law, sigma, vocab_size, accuracy, stein=chosen == "adjoint")
    control = _control(model, law, depth, sigma, chosen, source) if controlled else None
    problem = Problem(model, law, depth, depth, jnp.asarray(tokens), source, control, n_tokens)
    return ProfileEnsemble(problem, chosen, bytes_per_prompt(model, n_tokens, tokens.size, chosen))


def choose_estimator(law: PromptLaw, estimator: str, accuracy: str) -> Literal["naive", "glauber", "adjoint"]:
    """The estimator to use; one that is not valid for the law is refused."""
    if not isinstance(law, PromptLaw):
        raise ValueError(f"Argument `prompts` must be a PromptLaw, but is {type(law).__name__}.")
    valid = isinstance(law, UniformPrompts) or (isinstance(law, DensityPrompts) and accuracy == "soft")
    if estimator == "auto":
        return "adjoint" if valid else "glauber"
    if estimator not in ESTIMATORS:
        raise ValueError(
            f"Argument `estimator` must be 'auto', 'naive', 'glauber' or 'adjoint', but is {estimator!r}."
        )
    if estimator == "adjoint" and not valid:
        raise ValueError(
            f"Argument `estimator` must not be 'adjoint' for {type(law).__name__} and {accuracy} accuracy: it "
            "integrates by parts over the source's density, here with the soft decoder only. Use 'glauber'."
        )
    return estimator  # pyright: ignore[reportReturnType]


def choose_control(
    wanted: bool | None, law: PromptLaw, estimator: str, accuracy: str, positions: PositionalWeights | None = None
) -> bool:
    """Whether to subtract the limit's prediction, which exists unless told below."""
    reason = None
    if isinstance(law, ClusterPrompts):
        reason = "ClusterPrompts has no limit that polynomials in sigma resolve"
    elif estimator == "glauber" and accuracy == "hard":
        reason = "the hard decoder has no slope to predict with"
    elif not isinstance(positions, ALiBi | None) and not isinstance(law, UniformPrompts):
        solved = f"the limit of {type(law).__name__} is solved for ALiBi weights"
        reason = f"{solved}, not for {type(positions).__name__}"
    if wanted and reason:
        raise ValueError(f"Argument `control_variate` must be False here: {reason}.")
    return reason is None if wanted is None else bool(wanted)


def source_tokens(sources: Any, n_tokens: int, every_token: bool) -> Int[np.ndarray, " source"]:
    """Indices, from 0, of the source tokens."""
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
    tokens = np.ceil(n_tokens * given - 1e-9).astype(int) - 1
    if np.any(tokens >= n_tokens - 1) or np.unique(tokens).size < tokens.size:
        raise ValueError(
            f"Argument `sources` must name different tokens before the last, but N = {n_tokens} is too small for "
            f"{given.size} sources up to {given.max():g}."
        )
    return tokens


def _control(model, law, time, sigma, estimator, source) -> tuple[Control, jax.Array]:
    if isinstance(law, UniformPrompts):
        control: Control = uniform_control(model, time, sigma)
    else:
        control = law_control(model, law, time, sigma)
    mean = {"adjoint": control.mean_of_adjoint, "glauber": control.mean_of_redraw}.get(estimator)
    return control, jnp.zeros_like(sigma) if mean is None else eqx.filter_jit(mean)(source)


def bytes_per_prompt(model: CausalAttention, n_tokens: int, n_sources: int, estimator: str) -> float:
    """Working memory of one prompt: states of the solver, and of the modes where the sum is differentiated."""
    runs = {"naive": 1, "adjoint": 8, "glauber": 1 + n_sources}[estimator]
    return float(model.positions.dtype.itemsize * n_tokens * runs * (24 + model.kernel.n_modes))


def check_steps(n_steps: int) -> None:
    """Refuse numbers of steps below one or above what a solve may take, twice as many included."""
    check_at_least("n_steps", n_steps, 1)
    if 2 * n_steps > CONSTANT_STEPS:
        raise ValueError(f"Argument `n_steps` must be at most {CONSTANT_STEPS // 2}, but is {n_steps}.")


def _with_steps(problem: Problem, n_steps: int) -> Problem:
    return eqx.tree_at(lambda p: p.step, problem, problem.time / n_steps)


def choose_steps(
    ensemble: ProfileEnsemble,
    key: PRNGKeyArray,
    n_prompts: int,
    n_steps: int | None,
    first: int,
    memory: float,
    devices: Sequence[Any],
) -> tuple[int, float]:
    """Halve the steps until what they leave, measured against steps half as long, is far below the noise."""
    if n_steps is not None:
        check_steps(n_steps)

    def pilot(steps: int) -> np.ndarray:
        return ensemble.pilot(steps, key, first, memory, devices)

    steps, coarse, last = n_steps or _FIRST_STEPS, pilot(n_steps or _FIRST_STEPS), np.inf
    while True:
        fine = pilot(2 * steps)
        error = np.sqrt(np.mean((fine - coarse) ** 2, axis=0))
        allowed = _BIAS * fine.std(axis=0, ddof=1) / np.sqrt(max(n_prompts, BLOCK))
        if n_steps is not None or np.all(error <= allowed):
            return steps, float(error.max())
        # At rounding level the error no longer falls, and no longer adds up over prompts.
        is_rounding = not error.max() < last / 2
        if is_rounding or 4 * steps > CONSTANT_STEPS:
            # Half a standard error is too much to keep quiet about.
            if is_rounding and np.any(error > allowed / (2 * _BIAS)):
                warnings.warn(
                    f"Constant steps leave an error of {error.max():.1e} a prompt: use double precision, or, where "
                    "tokens part from one another so fast that derivatives explode, estimator='glauber'.",
                    stacklevel=3,
                )
            return steps, float(error.max())
        steps, coarse, last = 2 * steps, fine, float(error.max())
