"""How much a point costs: prompts that it will take, and velocities of tokens that each of these needs."""

import math
from collections.abc import Sequence

import numpy as np

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import Point, SweepConfig

# A value with its gradient costs two to three values.
_FEWEST_STEPS = 4


def evaluations(config: SweepConfig, point: Point, n_steps: int) -> int:
    """Velocities of tokens for one prompt: Tsit5 asks for six a step, and one before."""
    return point.n_tokens * (6 * n_steps + 1) * runs(config, point)


def runs(config: SweepConfig, point: Point) -> int:
    """Solves of one prompt, in units of one without gradient."""
    n_sources = config.positions(point.n_tokens).size
    return config.chosen_estimator(point.law, point.estimator).work(n_sources)


def expected_prompts(config: SweepConfig, moments: Moments | None) -> int:
    """Prompts that a point will take in all, as far as its variance tells."""
    fewest = config.n_prompts or 0
    if moments is None or config.standard_error is None:
        return fewest if moments is None else max(fewest, moments.count)
    if config.is_done(moments):
        return moments.count
    ratio = float(np.max(moments.standard_error)) / config.standard_error
    return int(np.clip(moments.count * ratio**2, max(fewest, moments.count), config.max_prompts))


def expected_steps(config: SweepConfig, point: Point, known: Sequence[tuple[float, int]]) -> int:
    """Steps that a point will take, from depths and steps of others: as long as at the nearest depth.

    Numbers of steps are doubled from the fewest, so that steps are as long within a factor of two.
    """
    if config.n_steps is not None or not known:
        return config.n_steps or _FEWEST_STEPS
    time, n_steps = min(known, key=lambda pair: abs(math.log(pair[0] / point.time)))
    wanted = n_steps * point.time / time
    return _FEWEST_STEPS * 2 ** max(0, round(math.log2(wanted / _FEWEST_STEPS)))
