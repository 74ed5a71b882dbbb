"""What the first prompts say: how many constant steps the way to depth t takes, and whether a control helps."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxkinetic._types import PRNGKeyArray, check_at_least
from jaxkinetic.particles.ensemble import BLOCK
from jaxkinetic.retrieval.profile_ensemble import ProfileEnsemble

# Most equal steps of a run.
CONSTANT_STEPS = 256
_FIRST_STEPS = 4
# Shares of the standard error: what is aimed at, what is too much to keep quiet about, and that of rounding,
# which does not add up over prompts.
_AIM, _LOUD, _LOUD_ROUNDING = 0.02, 0.1, 0.5
# Of what prompts differ by: below it an error may be rounding, beyond it the steps resolve nothing.
_SMALL, _UNRESOLVED = 0.05, 0.5
_ROUNDING = 8.0


def check_steps(n_steps: int) -> None:
    """Raise ValueError unless 1 <= n_steps <= CONSTANT_STEPS / 2: the pilot also runs with 2 n_steps."""
    check_at_least("n_steps", n_steps, 1)
    if 2 * n_steps > CONSTANT_STEPS:
        raise ValueError(f"Argument `n_steps` must be at most {CONSTANT_STEPS // 2}, but is {n_steps}.")


class Settled(NamedTuple):
    """What the first block of prompts says about an ensemble.

    Attributes:
        ensemble: the ensemble, without its control where that is optional and sharpens nothing.
        n_steps: number of constant steps to depth t.
        step_error: root-mean-square error that these leave in one prompt's values, at worst over the sources.
    """

    ensemble: ProfileEnsemble
    n_steps: int
    step_error: float


def choose_steps(
    ensemble: ProfileEnsemble,
    key: PRNGKeyArray,
    n_prompts: int,
    n_steps: int | None,
    first: int,
    memory: float,
    devices: Sequence[Any],
) -> tuple[int, float]:
    """The steps of `settle_ensemble`, and their error, for an ensemble that keeps its control."""
    return settle_ensemble(ensemble.insist(), key, n_prompts, n_steps, first, memory, devices)[1:]


def measure_steps(
    ensemble: ProfileEnsemble, key: PRNGKeyArray, n_steps: int, memory: float, devices: Sequence[Any]
) -> float:
    """Root-mean-square error that so many steps leave in one prompt's values, at worst over sources; not judged."""
    check_steps(n_steps)
    coarse, fine = (ensemble.pilot(steps, key, 0, memory, devices) for steps in (n_steps, 2 * n_steps))
    return float(_distance(fine, coarse).max())


def settle_ensemble(
    ensemble: ProfileEnsemble,
    key: PRNGKeyArray,
    n_prompts: int,
    n_steps: int | None,
    first: int,
    memory: float,
    devices: Sequence[Any],
) -> Settled:
    """Halve the steps until what they leave, measured against steps half as long, is far below the noise.

    An error that does not fall is rounding only if it is already a small share of what prompts differ by, and as
    large as the change that the last digit of the depth makes; else the steps may still be too long for the forces.

    Args:
        ensemble: the ensemble.
        key: its random key.
        n_prompts: number of prompts whose standard error counts.
        n_steps: number of steps, whose error is then measured only; found if None.
        first: index of the first prompt of the block on which errors are measured.
        memory: memory budget in bytes on each device.
        devices: local devices.

    Raises:
        ValueError: on a number of steps below one or above 128.
        RuntimeError: if values are not finite, or if the most steps that there are resolve no prompt.

    Warns:
        UserWarning: where that error is not well below the standard error; it says what helps.
    """
    if n_steps is not None:
        check_steps(n_steps)

    def pilot(steps: int, of: ProfileEnsemble) -> Float[np.ndarray, "prompt source"]:
        return of.pilot(steps, key, first, memory, devices)

    control = ensemble.pilot_control(key, first, memory, devices) if ensemble.may_drop_control else None
    steps, last, is_rounding = n_steps or _FIRST_STEPS, np.inf, False
    coarse = pilot(steps, ensemble)
    while True:
        fine = pilot(2 * steps, ensemble)
        error, spread = _distance(fine, coarse), _spread(fine)
        if control is not None and not np.mean(_log_ratio(spread, _spread(fine + control))) < 0:
            ensemble, control, fine = ensemble.without_control(), None, fine + control
            spread = _spread(fine)
        aim = np.maximum(_AIM / np.sqrt(max(n_prompts, BLOCK)) * spread, _smallest(ensemble))
        if n_steps is not None or np.all(error <= aim):
            break
        if last / 2 <= error.max() < np.inf and np.all(error <= np.maximum(_SMALL * spread, aim)):
            noise = _distance(fine, pilot(2 * steps, _nudged(ensemble)))
            is_rounding = bool(np.all((error <= aim) | (error <= _ROUNDING * noise)))
        if is_rounding or 4 * steps > CONSTANT_STEPS:
            break
        steps, coarse, last = 2 * steps, fine, float(error.max())
    _judge(
        ensemble, steps, n_steps is not None, is_rounding, error, spread, spread / np.sqrt(max(n_prompts, BLOCK))
    )
    return Settled(ensemble, steps, float(error.max()))


def _judge(
    ensemble: ProfileEnsemble,
    steps: int,
    is_given: bool,
    is_rounding: bool,
    error: Float[np.ndarray, " source"],
    spread: Float[np.ndarray, " source"],
    standard_error: Float[np.ndarray, " source"],
) -> None:
    """Fail where nothing is resolved, and warn where the steps' error is not well below the statistical one."""
    time = float(ensemble.problem.time)
    helps = _what_helps(ensemble, is_given, is_rounding)
    if not np.all(np.isfinite(error)):
        raise RuntimeError(f"{2 * steps} constant steps to t = {time:g} do not give finite values: {helps}.")
    floor = _smallest(ensemble)
    is_lost = np.any(error > np.maximum(_UNRESOLVED * spread, floor))
    if is_lost and not is_given and not is_rounding:
        raise RuntimeError(
            f"{steps} constant steps do not resolve the way to t = {time:g}: half as long, they change the values "
            f"of a prompt by up to {error.max():.1e}, as much as prompts differ. {helps.capitalize()}."
        )
    loud = (_LOUD_ROUNDING if is_rounding else _LOUD) * standard_error
    if np.any(error > np.maximum(loud, floor)):
        worst = float(np.max(error / np.maximum(standard_error, np.finfo(float).tiny)))
        warnings.warn(
            f"{steps} constant steps leave an error of {error.max():.1e} in a prompt's values, up to {worst:.2g} "
            f"standard errors: {helps}.",
            stacklevel=4,
        )


def _what_helps(ensemble: ProfileEnsemble, is_given: bool, is_rounding: bool) -> str:
    """What to do about an error that is too large; nothing that is done already."""
    single = jnp.finfo(ensemble.problem.time.dtype).bits < 64
    ways = []
    if is_given:
        ways.append("raise `n_steps`, or leave it out")
    elif is_rounding and single:
        ways.append("use double precision")
    if not is_given and ensemble.estimator.needs_density:
        ways.append("where tokens part so fast that derivatives explode, use estimator='glauber'")
    if not is_given:
        ways.append("stop at an earlier `time`, or take a smaller beta")
    return "; or ".join(ways)


def _distance(
    a: Float[np.ndarray, "prompt source"], b: Float[np.ndarray, "prompt source"]
) -> Float[np.ndarray, " source"]:
    """Root-mean-square difference at each source; infinite where a value is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        rms = np.sqrt(np.mean((a - b) ** 2, axis=0))
    return np.where(np.isfinite(rms), rms, np.inf)


def _spread(values: Float[np.ndarray, "prompt source"]) -> Float[np.ndarray, " source"]:
    """Standard deviation over prompts; zero where values are not finite, so that no error is below it."""
    with np.errstate(invalid="ignore", over="ignore"):
        spread = values.std(axis=0, ddof=1)
    return np.where(np.isfinite(spread), spread, 0)


def _log_ratio(a: Float[np.ndarray, " source"], b: Float[np.ndarray, " source"]) -> Float[np.ndarray, " source"]:
    tiny = np.finfo(float).tiny
    return np.log(np.maximum(a, tiny) / np.maximum(b, tiny))


def _smallest(ensemble: ProfileEnsemble) -> float:
    """An error that is nothing even where all prompts have the same value."""
    return float(jnp.finfo(ensemble.problem.time.dtype).eps) ** 0.75


def _nudged(ensemble: ProfileEnsemble) -> ProfileEnsemble:
    """The same ensemble to a depth that differs by a unit in the last place."""
    time = ensemble.problem.time
    return ensemble.replace(eqx.tree_at(lambda p: p.time, ensemble.problem, time * (1 + jnp.finfo(time.dtype).eps)))
