"""The retrieval profile of finite prompts, estimated from particles with standard errors."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    PRNGKeyArray,
    check_at_least,
    check_flags,
    check_key,
    check_positive_number,
    check_type,
)
from jaxkinetic.model import Layer, PromptLaw
from jaxkinetic.particles.ensemble import BLOCK, MEMORY, Moments, check_first, local_devices
from jaxkinetic.retrieval.band import simultaneous_factor
from jaxkinetic.retrieval.estimators import Estimator
from jaxkinetic.retrieval.profile_ensemble import ProfileEnsemble, prepare_profile
from jaxkinetic.retrieval.steps import check_steps, settle_ensemble
from jaxkinetic.retrieval.window import Accuracy, level


@dataclasses.dataclass(frozen=True, repr=False)
class ProfileEstimate(Shown):
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
        first: index of the first prompt.
        origin: digest of the model, the depth, the law at the sources and the key.
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
    first: int = 0
    origin: str = dataclasses.field(default="", repr=False)

    @property
    def is_joint(self) -> bool:
        """Whether the covariance between sources was kept."""
        return self.moments.m2.ndim == 2

    @property
    def covariance(self) -> Float[np.ndarray, "source source"]:
        """Joint covariance of the estimates, (S, S); estimate with ``joint=True``."""
        return self.moments.covariance

    def simultaneous_error(self, level: float = 0.95) -> Float[np.ndarray, " source"]:
        """Half-width of the band that holds the whole curve at once, (S,): of ``joint=True`` and 4 prompts or more.

        P(|S_N - values| <= simultaneous_error at every source) = level
        """
        return simultaneous_factor(self.covariance, self.n_prompts, level) * self.standard_error

    def retrieval(self) -> Float[np.ndarray, " source"]:
        """The part of the accuracy that remembers the source, 2 c S_N / N: sqrt(2 pi) / (M N) S_N if soft."""
        return 2 * level(self.accuracy, self.vocab_size) / self.n_tokens * self.values


def estimate_profile(
    model: Layer,
    time: Any,
    vocab_size: int,
    n_tokens: int,
    *,
    n_prompts: int,
    key: PRNGKeyArray,
    prompts: PromptLaw | None = None,
    estimator: str | Estimator = "auto",
    control_variate: bool | None = None,
    sources: Any = None,
    accuracy: Accuracy = "soft",
    joint: bool = False,
    n_steps: int | None = None,
    first: int = 0,
    onto: ProfileEstimate | None = None,
    memory: float = MEMORY,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> ProfileEstimate:
    """Estimate the retrieval profile of prompts of N tokens, without bias and with standard errors.

    S_N(sigma_0) = N sum_{n >= 1} w_n Re Cov(e^{i n theta_N(t)}, e^{i n theta_i(0)}),    i = ceil(N sigma_0),

    which tends to S_t(sigma_0) (1.21) as N grows; the accuracy (1.4) or (1.5) is chance plus 2 c S_N / N.

    Args:
        model: attention, or any layer or sum of layers.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2 of the decoder.
        n_tokens: number of tokens N >= 2.
        n_prompts: number of prompts; prompt p draws from ``fold_in(key, p)``.
        key: random key.
        prompts: law of the initial tokens; uniform if None.
        estimator: "naive"; "glauber", for every law, one more run a source; "adjoint", for uniform tokens and
            positive densities, every source at once. "auto" takes adjoint where it is valid, else glauber.
        control_variate: whether to subtract the limit's prediction; if None where there is one that sharpens the
            estimate, with a warning where its equations are not resolved.
        sources: positions sigma_0 in (0, 1), which become tokens ceil(N sigma_0) < N, or "all" tokens before the
            last. If None all for uniform prompts, and 9 of them, evenly spaced, for "glauber" and other laws.
        accuracy: the decoder, "soft" (1.5) or "hard" (1.4).
        joint: whether to keep the covariance between sources, for `ProfileEstimate.simultaneous_error`.
        n_steps: constant steps to depth t; if None as many as keep their error below a fiftieth of the standard
            error, found on the first prompts.
        first: index of the first prompt, a multiple of 32; that of ``onto`` where there is one.
        onto: an earlier estimate of the same profile with the same key, which becomes part of the result: the
            prompts go on where it stopped, with its number of steps, and the result has the bits of one run of all.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.
        progress: whether to show prompts done, their rate and the time left, on a terminal.

    Returns:
        The estimate, the same for any number of devices, processes and restarts.

    Raises:
        ValueError: on t <= 0, M < 2, sources outside (0, 1) or more of them than tokens, an estimator or a control
            that the law or the decoder does not allow, or an earlier estimate of something else.
        RuntimeError: if values are not finite, if constant steps do not resolve the way to t, or if a control was
            asked for and its limit is not resolved.

    Warns:
        UserWarning: where the error of the steps is not well below the standard error, and where a control is left
            out because its limit is not resolved; it says what helps.
    """
    check_at_least("n_prompts", n_prompts, 1)
    check_sensible(n_prompts=n_prompts)
    check_positive_number("memory", memory)
    check_key("key", key)
    check_flags(joint=joint, progress=progress)
    if n_steps is not None:
        check_steps(n_steps)
    if onto is not None:
        check_type("onto", onto, ProfileEstimate)
    here = local_devices(devices)
    check_first(first)
    ensemble = prepare_profile(
        model, time, vocab_size, n_tokens, prompts=prompts, estimator=estimator, control_variate=control_variate,
        sources=sources, accuracy=accuracy,
    )  # fmt: skip
    origin = _origin(ensemble, key)
    if onto is None:
        ensemble, n_steps, step_error = settle_ensemble(ensemble, key, n_prompts, n_steps, first, memory, here)
        moments = ensemble.run(n_steps, key, n_prompts, first, memory, here, joint=joint, progress=progress)
    else:
        if ensemble.may_drop_control and not onto.control_variate:
            ensemble = ensemble.without_control()
        _check_same(onto, ensemble, vocab_size, accuracy, joint, n_steps, first or onto.first, origin)
        n_steps, step_error = onto.n_steps, onto.step_error
        first = onto.first
        moments = ensemble.run(
            n_steps, key, n_prompts, first + onto.n_prompts, memory, here, joint=joint, onto=onto.moments,
            progress=progress,
        )  # fmt: skip
    return ProfileEstimate(
        ensemble.sources, moments.mean, moments.standard_error, moments.count, n_tokens, vocab_size, accuracy,
        ensemble.estimator.name, ensemble.problem.control is not None, n_steps, step_error, moments, first, origin,
    )  # fmt: skip


def _origin(ensemble: ProfileEnsemble, key: PRNGKeyArray) -> str:
    """Digest of what an estimate of the same profile must share; laws count by what they are at the sources."""
    problem, digest = ensemble.problem, hashlib.sha256()
    for leaf in jax.tree.leaves((problem.model, problem.time, problem.source, jax.random.key_data(key))):
        digest.update(np.asarray(leaf).tobytes() if eqx.is_array(leaf) else repr(leaf).encode())
    return digest.hexdigest()


def _check_same(
    onto: ProfileEstimate,
    ensemble: ProfileEnsemble,
    vocab_size: int,
    accuracy: str,
    joint: bool,
    n_steps: int | None,
    first: int,
    origin: str,
) -> None:
    """Refuse to go on from an estimate of something else."""
    problem = ensemble.problem
    now = {
        "n_tokens": problem.n_tokens, "vocab_size": vocab_size, "accuracy": accuracy,
        "estimator": ensemble.estimator.name, "control_variate": problem.control is not None, "joint": joint,
        "n_steps": onto.n_steps if n_steps is None else n_steps, "first": first,
    }  # fmt: skip
    then = {name: getattr(onto, name, None) for name in now} | {"joint": onto.is_joint, "first": onto.first}
    for name, value in now.items():
        if value != then[name]:
            raise ValueError(f"Argument `{name}` must be {then[name]!r}, as `onto` has it, but is {value!r}.")
    if not np.array_equal(onto.sources, ensemble.sources):
        raise ValueError("Argument `sources` must be those of `onto`.")
    if onto.origin and onto.origin != origin:
        raise ValueError("Argument `onto` must be an estimate of the same model, depth and law, from the same key.")
    if onto.n_prompts % BLOCK:
        raise ValueError(
            f"Argument `onto` must hold a multiple of {BLOCK} prompts to go on from, but holds {onto.n_prompts}."
        )
