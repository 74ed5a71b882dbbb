"""The cost of a point: the number of prompts, and token-drift evaluations per prompt."""

import math
from collections.abc import Sequence

import numpy as np

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import Point, SweepConfig

# A value with its gradient costs two to three values.
_FEWEST_STEPS = 4


def evaluations(config: SweepConfig, point: Point, n_steps: int) -> int:
    """Evaluations of a token's drift for one prompt: Tsit5 takes six per step, and one at the start."""
    return point.n_tokens * (6 * n_steps + 1) * runs(config, point)


def runs(config: SweepConfig, point: Point) -> int:
    """Cost of an estimator in solves of one prompt without gradient."""
    n_sources = config.positions(point.n_tokens).size
    return config.chosen_estimator(point.law, point.estimator).work(n_sources)


def expected_prompts(config: SweepConfig, moments: Moments | None) -> int:
    """Total number of prompts at a point, estimated from its moments so far."""
    fewest = config.n_prompts or 0
    if moments is None or config.standard_error is None:
        return fewest if moments is None else max(fewest, moments.count)
    if config.is_done(moments):
        return moments.count
    ratio = float(np.max(moments.standard_error)) / config.standard_error
    return int(np.clip(moments.count * ratio**2, max(fewest, moments.count), config.max_prompts))


def expected_steps(config: SweepConfig, point: Point, known: Sequence[tuple[float, int]]) -> int:
    """Steps that a point will take if they are as long as those of the known point of nearest depth.

    Like `choose_steps` it doubles the fewest steps.
    """
    if config.n_steps is not None or not known:
        return config.n_steps or _FEWEST_STEPS
    time, n_steps = min(known, key=lambda pair: abs(math.log(pair[0] / point.time)))
    wanted = n_steps * point.time / time
    return _FEWEST_STEPS * 2 ** max(0, round(math.log2(wanted / _FEWEST_STEPS)))
