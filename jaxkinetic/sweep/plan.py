"""What a sweep will take: work, memory and time, from its numbers and a pilot."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxkinetic._types import check_positive_number, check_type
from jaxkinetic.particles.ensemble import BLOCK, MEMORY, Moments, batch_size, local_devices
from jaxkinetic.retrieval.steps import choose_steps
from jaxkinetic.sweep.config import Point, SweepConfig, check_goals
from jaxkinetic.sweep.contents import check_same
from jaxkinetic.sweep.cost import evaluations, expected_prompts, relative_cost
from jaxkinetic.sweep.location import parse_location
from jaxkinetic.sweep.preparation import STEP_PROMPTS
from jaxkinetic.sweep.results import PointState
from jaxkinetic.sweep.run import extended
from jaxkinetic.sweep.store import read_store


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The remaining work of a sweep.

    Attributes:
        n_points: points of the grid.
        n_left: points that are not done.
        n_prompts: remaining prompts. With a target error they are estimated from the variance so far, or from that
            of the pilot at points that have not begun.
        most_prompts: the most that the target may take.
        evaluations: remaining evaluations of a token's velocity: prompts times tokens times evaluations of (1.1).
        memory: bytes on each device.
        n_steps: constant steps to depth t that the pilot chose.
        seconds: remaining time at the pilot's rate, without compilation.
    """

    n_points: int
    n_left: int
    n_prompts: int = 0
    most_prompts: int = 0
    evaluations: float = 0.0
    memory: float = 0.0
    n_steps: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.n_left:
            return f"points      {self.n_points}, of which none is left: every goal is reached"
        most = f" (expected; at most {self.most_prompts})" if self.most_prompts > self.n_prompts else ""
        return "\n".join(
            [
                f"points      {self.n_points}, of which {self.n_left} are left",
                f"prompts     {self.n_prompts}{most}",
                f"work        {self.evaluations:.3g} token-drift evaluations, {self.n_steps} steps to depth t",
                f"memory      {self.memory / 2**20:.3g} MiB on each device",
                f"time        {_duration(self.seconds)}, as measured at one point, compilation apart",
            ]
        )


def plan_sweep(
    config: SweepConfig,
    store: str | Path | None = None,
    *,
    memory: float = MEMORY,
    devices: Sequence[Any] | None = None,
) -> SweepPlan:
    """Estimate work, memory and time of a sweep, less what its store already has; nothing is written.

    One point of median cost is compiled and timed on one block of prompts.

    Args:
        config: what to compute.
        store: the store, or where it will be; None for a sweep that has not begun.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.

    Raises:
        ValueError: as `run_sweep`.
    """
    here = local_devices(devices)
    check_type("config", config, SweepConfig)
    check_positive_number("memory", memory)
    found = None if store is None else read_store(store)
    if store is not None and found is not None:
        check_same(found.config, config, parse_location(store))
    return _plan(config, None if found is None else list(found.states.values()), memory, here)


def plan_extension(
    store: str | Path,
    *,
    n_prompts: int | None = None,
    standard_error: float | None = None,
    max_prompts: int | None = None,
    memory: float = MEMORY,
    devices: Sequence[Any] | None = None,
) -> SweepPlan:
    """Estimate work, memory and time of `extend_sweep` with these goals; nothing is written.

    Raises:
        ValueError: as `extend_sweep`, and if there is no store.
    """
    here = local_devices(devices)
    check_positive_number("memory", memory)
    check_goals(n_prompts=n_prompts, standard_error=standard_error, max_prompts=max_prompts)
    found = read_store(store)
    if found is None:
        raise ValueError(f"Argument `store` must be a sweep's store, but there is none at {store}.")
    goals = {"n_prompts": n_prompts, "standard_error": standard_error, "max_prompts": max_prompts}
    wanted = extended(found.config, {name: value for name, value in goals.items() if value is not None})
    return _plan(wanted, list(found.states.values()), memory, here)


def _plan(
    config: SweepConfig, states: list[PointState | None] | None, memory: float, devices: Sequence[Any]
) -> SweepPlan:
    points = list(config.points())
    left = [
        (point, state)
        for point, state in zip(points, states or [None] * len(points), strict=True)
        if state is None or not config.is_done(state.moments)
    ]
    if not left:
        return SweepPlan(len(points), 0)
    pilot = _measure(config, [point for point, _ in left], memory, devices)
    n_prompts = most_prompts = work = 0
    for point, state in left:
        done = 0 if state is None else state.moments.count
        as_long = max(round(pilot.n_steps * point.time / pilot.point.time), 1)
        expected = expected_prompts(config, pilot.moments if state is None else state.moments)
        n_prompts += expected - done
        most_prompts += (config.max_prompts or config.n_prompts or 0) - done
        work += (expected - done) * evaluations(config, point, as_long if state is None else state.n_steps)
    largest = max(config.bytes_per_prompt(point) for point, _ in left)
    seconds = work / (pilot.rate * len(devices) * jax.process_count())
    return SweepPlan(
        len(points), len(left), n_prompts, most_prompts, float(work), largest * batch_size(largest, memory),
        pilot.n_steps, seconds,
    )  # fmt: skip


class _Pilot(NamedTuple):
    """One block of prompts at a point of median cost: steps, moments, and evaluations per second on one device."""

    point: Point
    n_steps: int
    moments: Moments
    rate: float


def _measure(config: SweepConfig, points: list[Point], memory: float, devices: Sequence[Any]) -> _Pilot:
    point = sorted(points, key=lambda point: relative_cost(config, point))[len(points) // 2]
    key, ensemble = jax.random.key(config.seed), config.prepare(point)
    n_steps, _ = choose_steps(ensemble, key, STEP_PROMPTS, config.n_steps, 0, memory, devices)
    start = time.perf_counter()
    moments = Moments.of(ensemble.pilot(n_steps, key, 0, memory, devices))
    rate = BLOCK * evaluations(config, point, n_steps) / (time.perf_counter() - start)
    return _Pilot(point, n_steps, moments, rate)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
