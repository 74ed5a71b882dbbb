"""What a sweep will take: work, memory and time, from its numbers and pilots."""

import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic._types import check_positive
from jaxkinetic.particles.ensemble import BLOCK, Moments, batch_size, local_devices
from jaxkinetic.retrieval.steps import choose_steps
from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.contents import check_same
from jaxkinetic.sweep.location import parse_location
from jaxkinetic.sweep.preparation import STEP_PROMPTS
from jaxkinetic.sweep.results import PointState
from jaxkinetic.sweep.run import extended
from jaxkinetic.sweep.store import read_store
from jaxkinetic.sweep.work import evaluations, expected_prompts, expected_steps, runs

# Points whose variance is asked of one block of prompts each; others are taken for the nearest of these.
_PILOTS = 32
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The work that a sweep has left.

    Attributes:
        n_points: points of the grid.
        n_left: points that are not done.
        n_prompts: prompts left; with a target error as many as the pilots' variances ask for.
        most_prompts: the most that the target may take.
        evaluations: velocities of single tokens left: prompts times tokens times evaluations of (1.1).
        memory: bytes on each device.
        n_steps: constant steps to depth t that the pilot chose.
        rate: evaluations per second that the pilot measured, on all devices and processes together.
        n_programs: programs to compile: points that differ by values only share one.
        seconds: time left at that rate, compilation and the limit's predictions included.
    """

    n_points: int
    n_left: int
    n_prompts: int
    most_prompts: int
    evaluations: float
    memory: float
    n_steps: int
    rate: float
    n_programs: int
    seconds: float

    def __str__(self) -> str:
        prompts = (
            f"{self.n_prompts}"
            if self.most_prompts == self.n_prompts
            else (f"{self.n_prompts} (expected; at most {self.most_prompts})")
        )
        if not self.n_left:
            return f"points      {self.n_points}, of which none is left: every goal is reached"
        return "\n".join(
            [
                f"points      {self.n_points}, of which {self.n_left} are left",
                f"prompts     {prompts}",
                f"work        {self.evaluations:.3g} token-drift evaluations, {self.n_steps} steps to depth t",
                f"memory      {self.memory / 2**20:.3g} MiB on each device",
                f"time        {_duration(self.seconds)} at {self.rate:.3g} a second, measured at one point; "
                f"{self.n_programs} programs to compile",
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

    One point of middle size is compiled and timed on one block of prompts. With a target error up to 32 points,
    spread over the grid, run one block each, and the others are expected to vary as the nearest of these.

    Args:
        config: what to compute.
        store: a store, or where one will be; none if None.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.

    Raises:
        ValueError: as `run_sweep`.
    """
    here = local_devices(devices)
    check_positive("memory", memory)
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
    memory: float = 2.0**30,
    devices: Sequence[Any] | None = None,
) -> SweepPlan:
    """Say what `extend_sweep` will take with these goals; nothing is written.

    Raises:
        ValueError: as `extend_sweep`, and if there is no store.
    """
    here = local_devices(devices)
    check_positive("memory", memory)
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
    begun = [None] * len(points) if states is None else states
    left = [
        (point, state)
        for point, state in zip(points, begun, strict=True)
        if state is None or not config.is_done(state.moments)
    ]
    if not left:
        return SweepPlan(len(points), 0, 0, 0, 0.0, 0.0, config.n_steps or 0, 0.0, 0, 0.0)
    pilot = _measure(config, [point for point, _ in left], memory, devices)
    known = [(point.time, state.n_steps) for point, state in left if state] or [(pilot.point.time, pilot.n_steps)]
    seen = _variances(config, left, pilot, known, memory, devices)
    workers = len(devices) * jax.process_count()
    counts, most, work = [], 0, 0.0
    for point, state in left:
        done = 0 if state is None else state.moments.count
        n_steps = expected_steps(config, point, known) if state is None else state.n_steps
        expected = expected_prompts(config, _nearest(seen, point) if state is None else state.moments)
        counts.append(max(expected - done, 0))
        most += (config.max_prompts or config.n_prompts or 0) - done
        work += counts[-1] * evaluations(config, point, n_steps)
        if state is None:
            # Steps and steps half as long, on one block and one device, tell what the steps leave.
            both = evaluations(config, point, n_steps) + evaluations(config, point, 2 * n_steps)
            work += workers * BLOCK * both
    rate = workers * pilot.rate
    n_programs = len({_program(config, point) for point, _ in left})
    largest = max(config.bytes_per_prompt(point) for point, _ in left)
    seconds = work / rate + pilot.compilation * n_programs + pilot.preparation * len(left)
    return SweepPlan(
        len(points), len(left), sum(counts), most if config.standard_error is not None else sum(counts), work,
        largest * batch_size(largest, memory), pilot.n_steps, rate, n_programs, seconds,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Pilot:
    """What one point of middle size took, on one block of prompts and one device: seconds and token-drifts each."""

    point: Point
    n_steps: int
    moments: Moments
    rate: float
    compilation: float
    preparation: float


def _measure(config: SweepConfig, points: list[Point], memory: float, devices: Sequence[Any]) -> _Pilot:
    weights = [point.n_tokens * runs(config, point) for point in points]
    point = points[int(np.argsort(weights, kind="stable")[len(points) // 2])]
    key = jax.random.key(config.seed)
    ensemble, first_preparation = _timed(lambda: config.prepare(point))
    _, preparation = _timed(lambda: config.prepare(point))
    (n_steps, _), first = _timed(
        lambda: choose_steps(ensemble, key, STEP_PROMPTS, config.n_steps, 0, memory, devices)
    )
    values, once = _timed(lambda: ensemble.pilot(n_steps, key, 0, memory, devices))
    compilation = max(first - 3 * once, 0.0) + max(first_preparation - preparation, 0.0)
    rate = BLOCK * evaluations(config, point, n_steps) / once
    return _Pilot(point, n_steps, Moments.of(values), rate, compilation, preparation)


def _variances(
    config: SweepConfig,
    left: list[tuple[Point, PointState | None]],
    pilot: _Pilot,
    known: Sequence[tuple[float, int]],
    memory: float,
    devices: Sequence[Any],
) -> dict[tuple[int, ...], Moments]:
    """Moments of points that have begun, and of the first block of others, if a target error asks for them."""
    seen = {pilot.point.index: pilot.moments} | {p.index: state.moments for p, state in left if state is not None}
    fresh = [point for point, _ in left if point.index not in seen]
    if config.standard_error is None or not fresh:
        return seen
    key = jax.random.key(config.seed)
    for i in np.unique(np.linspace(0, len(fresh) - 1, _PILOTS).round().astype(int)):
        point = fresh[i]
        n_steps = expected_steps(config, point, known)
        seen[point.index] = Moments.of(config.prepare(point).pilot(n_steps, key, 0, memory, devices))
    return seen


def _nearest(seen: dict[tuple[int, ...], Moments], point: Point) -> Moments:
    """Moments of the point that is the fewest steps of the grid away."""
    return seen[min(seen, key=lambda index: sum(abs(a - b) for a, b in zip(index, point.index, strict=True)))]


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    found = action()
    return found, time.perf_counter() - start


def _program(config: SweepConfig, point: Point) -> Hashable:
    """What two points must have in common to be compiled once: sizes and kinds, not values."""
    model, law = config.build_model(point), config.build_law(point.law)
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(law))
    chosen = config.chosen_estimator(point.law, point.estimator)
    return model.kernel.n_modes, point.n_tokens, point.vocab_size, jax.tree.structure(law), shapes, chosen


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
