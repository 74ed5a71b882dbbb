"""The cost of a point: the number of its prompts, and token-drift evaluations per prompt."""

import numpy as np

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import Point, SweepConfig


def evaluations(config: SweepConfig, point: Point, n_steps: int) -> int:
    """Evaluations of a token's drift for one prompt: Tsit5 takes six per step."""
    n_sources = config.positions(point.n_tokens).size
    solves = config.chosen_estimator(point.law, point.estimator).work(n_sources)
    return point.n_tokens * 6 * n_steps * solves


def relative_cost(config: SweepConfig, point: Point) -> float:
    """Cost of one prompt up to a factor: steps are about as long at every point."""
    return evaluations(config, point, 1) * point.time


def expected_prompts(config: SweepConfig, moments: Moments | None) -> int:
    """Total number of prompts at a point, estimated from its moments so far."""
    fewest = config.n_prompts or 0
    if moments is None or config.standard_error is None:
        return fewest if moments is None else max(fewest, moments.count)
    if config.is_done(moments):
        return moments.count
    ratio = float(np.max(moments.standard_error)) / config.standard_error
    return int(np.clip(moments.count * ratio**2, max(fewest, moments.count), config.max_prompts))
