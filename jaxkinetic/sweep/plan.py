"""What a sweep will take: work, memory and time, from its numbers and a pilot of one point."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxkinetic.particles.ensemble import BLOCK, Moments, batch_size, local_devices
from jaxkinetic.retrieval.estimate import choose_steps
from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.run import STEP_PROMPTS, expected_prompts
from jaxkinetic.sweep.store import check_same, open_sweep, parse_location, read_store

# A value with its gradient costs two to three values.
_GRADIENT = 3


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The work that a sweep has left.

    Attributes:
        n_points: points of the grid.
        n_left: points that are not done.
        n_prompts: prompts left; with a target error as many as the pilot's variance asks for.
        most_prompts: the most that the target may take.
        evaluations: velocities of single tokens left: prompts times tokens times evaluations of (1.1).
        memory: bytes on each device.
        n_steps: constant steps to depth t that the pilot chose.
        rate: evaluations per second that the pilot measured, on all devices and processes together.
        seconds: time left at that rate, compilation included.
    """

    n_points: int
    n_left: int
    n_prompts: int
    most_prompts: int
    evaluations: float
    memory: float
    n_steps: int
    rate: float
    seconds: float

    def __str__(self) -> str:
        prompts = (
            f"{self.n_prompts}"
            if self.most_prompts == self.n_prompts
            else (f"{self.n_prompts} (expected; at most {self.most_prompts})")
        )
        return "\n".join(
            [
                f"points      {self.n_points}, of which {self.n_left} are left",
                f"prompts     {prompts}",
                f"work        {self.evaluations:.3g} token-drift evaluations, {self.n_steps} steps to depth t",
                f"memory      {self.memory / 2**20:.3g} MiB on each device",
                f"time        {_duration(self.seconds)} at {self.rate:.3g} a second, measured at one point",
            ]
        )


def plan_sweep(
    config: SweepConfig,
    store: str | Path | None = None,
    *,
    memory: float = 2.0**30,
    devices: Sequence[Any] | None = None,
) -> SweepPlan:
    """Say what a sweep will take, less what its store already has; nothing is written.

    One point of middle size is compiled and timed on one block of prompts.

    Args:
        config: what to compute.
        store: a store, or where one will be; none if None.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.

    Raises:
        ValueError: as `run_sweep`.
    """
    here = local_devices(devices)
    points = list(config.points())
    moments = _known(config, points, store)
    left = [(p, m) for p, m in zip(points, moments, strict=True) if not config.is_done(m)]
    if not left:
        return SweepPlan(len(points), 0, 0, 0, 0.0, 0.0, config.n_steps or 0, 0.0, 0.0)
    weights = [point.n_tokens * _runs(config, point) for point, _ in left]
    middle, _ = left[int(np.argsort(weights, kind="stable")[len(left) // 2])]
    ensemble, key = config.prepare(middle), jax.random.key(config.seed)
    start = time.perf_counter()
    n_steps, _ = choose_steps(ensemble, key, STEP_PROMPTS, config.n_steps, 0, memory, here)
    first = time.perf_counter() - start
    start = time.perf_counter()
    values = ensemble.pilot(n_steps, key, 0, memory, here)
    once = time.perf_counter() - start
    workers = len(here) * jax.process_count()
    rate = workers * BLOCK * evaluations(config, middle, n_steps) / once
    pilot = Moments.of(values)
    counts, most, work = [], 0, 0.0
    for point, known in left:
        done = 0 if known is None else known.count
        counts.append(max(expected_prompts(config, known or pilot) - done, 0))
        most += (config.max_prompts or config.n_prompts or 0) - done
        work += counts[-1] * evaluations(config, point, n_steps)
        if known is None:
            # Steps and steps half as long, on one block and one device, tell what the steps leave.
            work += (
                workers * BLOCK * (evaluations(config, point, n_steps) + evaluations(config, point, 2 * n_steps))
            )
    programs = len({(p.beta, p.n_tokens, p.vocab_size, p.law, p.estimator) for p, _ in left})
    largest = max(config.bytes_per_prompt(point) for point, _ in left)
    return SweepPlan(
        len(points), len(left), sum(counts), most if config.standard_error is not None else sum(counts), work,
        largest * batch_size(largest, memory), n_steps, rate, work / rate + max(first - 3 * once, 0) * programs,
    )  # fmt: skip


def _known(config: SweepConfig, points: list[Point], store: str | Path | None) -> list[Moments | None]:
    """Moments that a store already has."""
    found = None if store is None else read_store(store)
    if store is None or found is None:
        return [None] * len(points)
    check_same(found[0], config, parse_location(store))
    data = open_sweep(store)
    counts, means, squares = (data[name].values for name in ("count", "mean", "m2"))
    known = [(int(counts[p.index]), means[p.index], squares[p.index]) for p in points]
    return [Moments(n, mean[~np.isnan(mean)], m2[~np.isnan(m2)]) if n else None for n, mean, m2 in known]


def _runs(config: SweepConfig, point: Point) -> int:
    """Solves of one prompt, in units of one without gradient."""
    chosen = config.chosen_estimator(point.law, point.estimator)
    n_sources = config.positions(point.n_tokens).size
    return {"naive": 1, "adjoint": _GRADIENT, "glauber": 1 + n_sources}[chosen]


def evaluations(config: SweepConfig, point: Point, n_steps: int) -> int:
    """Velocities of tokens for one prompt: Tsit5 asks for six a step, and one before."""
    return point.n_tokens * (6 * n_steps + 1) * _runs(config, point)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
