"""What is computed before a store is made, so that a sweep that cannot be computed leaves none behind."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval.profile_ensemble import ProfileEnsemble
from jaxkinetic.retrieval.steps import choose_steps
from jaxkinetic.sweep.config import Point, SweepConfig, one_line
from jaxkinetic.sweep.cost import evaluations
from jaxkinetic.sweep.first_process import on_first
from jaxkinetic.sweep.results import PointState

# Prompts whose standard error the error of the steps must not spoil.
STEP_PROMPTS = 2**16
_MOST_READY = 256


@dataclasses.dataclass
class Prepared:
    """Ensembles of some points, and steps of the point that is the hardest to solve, kept for the run."""

    ensembles: dict[Point, ProfileEnsemble] = dataclasses.field(default_factory=dict)
    states: dict[Point, PointState] = dataclasses.field(default_factory=dict)


def prepare_points(config: SweepConfig, memory: float, devices: Sequence[Any], progress: bool) -> Prepared:
    """Prepare every point and solve the first prompts of the hardest one.

    Raises:
        ValueError: if a point cannot be computed; it names the point.
    """
    points, ready = list(config.points()), Prepared()
    largest = max(points, key=config.bytes_per_prompt)
    if (needed := config.bytes_per_prompt(largest)) > (room := _memory_of_machine(devices)):
        raise ValueError(
            f"The point {largest} cannot be computed: one prompt takes {needed / 2**30:.3g} GiB of memory, but "
            f"this machine has {room / 2**30:.3g}."
        )
    for point in tqdm(points, desc="checking", unit="point", leave=False, disable=None if progress else True):
        ensemble = config.prepare(point)
        if len(ready.ensembles) < _MOST_READY:
            ready.ensembles[point] = ensemble
    hardest = max(points, key=lambda point: (point.beta * point.time, evaluations(config, point, 1)))
    ensemble = ready.ensembles.get(hardest) or config.prepare(hardest)
    with naming(hardest, "cannot be computed"):
        ready.states[hardest] = first_state(config, ensemble, memory, devices)
    return ready


def first_state(
    config: SweepConfig, ensemble: ProfileEnsemble, memory: float, devices: Sequence[Any]
) -> PointState:
    """A point before its first prompt: its steps are those that the first process finds."""
    found = choose_steps(ensemble, jax.random.key(config.seed), STEP_PROMPTS, config.n_steps, 0, memory, devices)
    n_steps, step_error = on_first(lambda: found)
    return PointState(Moments(0, np.zeros(0), np.zeros(0)), n_steps, step_error)


@contextlib.contextmanager
def naming(point: Point, what: str, note: str = "") -> Iterator[None]:
    """Say at which point a computation failed."""
    try:
        yield
    except (ValueError, RuntimeError, FloatingPointError) as error:
        raise ValueError(f"The point {point} {what}: {one_line(error).rstrip('.')}.{note}") from error


def _memory_of_machine(devices: Sequence[Any]) -> float:
    """Bytes of memory; infinite where accelerators have memory of their own."""
    if any(device.platform != "cpu" for device in devices):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
