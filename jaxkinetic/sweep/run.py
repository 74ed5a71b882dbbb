"""Running a sweep: point after point, chunk after chunk, each one commit."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxkinetic.particles.ensemble import Moments, local_devices
from jaxkinetic.retrieval.estimate import ProfileEnsemble, choose_steps
from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.processes import on_first
from jaxkinetic.sweep.store import PointState, SweepStore, open_writer

STEP_PROMPTS = 2**16


def run_sweep(
    config: SweepConfig,
    store: str | Path,
    *,
    memory: float = 2.0**30,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> None:
    """Compute what a store lacks of a sweep; open the result with `open_sweep`.

    Interrupted at any instant it is called again in the same way, and ends with the same bits. With several
    processes (`jax.distributed`) all call it, and the first writes.

    Args:
        config: what to compute.
        store: a folder, made if missing, or a URL such as s3://bucket/prefix.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.
        progress: whether to show the work done, its rate and the time left, on a terminal.

    Raises:
        ValueError: if the store holds another configuration, or no devices are given.
        StoreError: if the store cannot be read or written, or if another process writes to it; no finished chunk
            is lost.
    """
    here = local_devices(devices)
    with contextlib.ExitStack() as stack:
        writer = _Writer(stack, store)
        _, states = on_first(lambda: writer.begin(config, {}))
        _advance(config, states, writer, memory, here, progress)


def extend_sweep(
    store: str | Path,
    *,
    n_prompts: int | None = None,
    standard_error: float | None = None,
    max_prompts: int | None = None,
    chunk: int | None = None,
    memory: float = 2.0**30,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> None:
    """Add prompts to a sweep, or lower the error that it must reach; without either go on with it.

    The result is that of one longer run, to the last bit, wherever a number of prompts was asked for.

    Args:
        store: the sweep's store.
        n_prompts: prompts at each point, no fewer than before.
        standard_error: target error, no larger than before.
        max_prompts: most prompts to spend on the target, no fewer than before.
        chunk: prompts from one commit to the next; as before if None.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.
        progress: whether to show the work done, its rate and the time left, on a terminal.

    Raises:
        ValueError: on goals that are below those of the store, which is then left as it was.
        StoreError: as `run_sweep`.
    """
    here = local_devices(devices)
    goals = {"n_prompts": n_prompts, "standard_error": standard_error, "max_prompts": max_prompts, "chunk": chunk}
    given = {name: value for name, value in goals.items() if value is not None}
    with contextlib.ExitStack() as stack:
        writer = _Writer(stack, store)
        record, states = on_first(lambda: writer.begin(None, given))
        _advance(SweepConfig(**record), states, writer, memory, here, progress)


def extended(config: SweepConfig, goals: dict[str, Any]) -> SweepConfig:
    """A configuration with further goals; nearer ones are refused."""
    wanted = config.replace(**goals)
    for name in ("n_prompts", "max_prompts", "standard_error"):
        old, new = getattr(config, name), getattr(wanted, name)
        if old is None or new is None or name not in goals:
            continue
        if new > old if name == "standard_error" else new < old:
            side = "most" if name == "standard_error" else "least"
            raise ValueError(f"Argument `{name}` must be at {side} {old}, as the store has it, but is {new}.")
    return wanted


@dataclasses.dataclass
class _Writer:
    """The store, held open by the first process alone until the stack unwinds."""

    stack: contextlib.ExitStack
    location: str | Path
    store: SweepStore | None = None

    def begin(
        self, config: SweepConfig | None, goals: dict[str, Any]
    ) -> tuple[dict[str, Any], list[PointState | None]]:
        """What to compute and what is known of each point; goals are set once all of that could be read."""
        self.store = self.stack.enter_context(open_writer(self.location, config))
        wanted = extended(self.store.config, goals) if config is None else config
        states = self.store.read()
        if config is None and wanted != self.store.config:
            self.store.set_goals(wanted)
        return wanted.record(), states

    def write(self, point: Point, state: PointState) -> None:
        assert self.store is not None
        self.store.write(point, state)


def _advance(
    config: SweepConfig,
    states: list[PointState | None],
    writer: _Writer,
    memory: float,
    devices: Sequence[Any],
    progress: bool,
) -> None:
    key, points = jax.random.key(config.seed), list(config.points())
    with _Meter(config, points, states, progress) as meter:
        for i, (point, state) in enumerate(zip(points, states, strict=True)):
            if state is not None and config.is_done(state.moments):
                continue
            ensemble = config.prepare(point)
            if state is None:
                n_steps, step_error = _steps(config, ensemble, key, memory, devices)
            else:
                n_steps, step_error = state.n_steps, state.step_error
            moments = None if state is None else state.moments
            while not config.is_done(moments):
                count = 0 if moments is None else moments.count
                moments = ensemble.run(n_steps, key, config.next_chunk(count), count, memory, devices, onto=moments)
                state = PointState(moments, n_steps, step_error)
                on_first(lambda point=point, state=state: writer.write(point, state))
                meter.update(i, moments)


def _steps(
    config: SweepConfig, ensemble: ProfileEnsemble, key: Any, memory: float, devices: Sequence[Any]
) -> tuple[int, float]:
    """Steps of a point, chosen once for all its prompts, now and later; as the first process finds them."""
    found = choose_steps(ensemble, key, STEP_PROMPTS, config.n_steps, 0, memory, devices)
    return on_first(lambda: found)


class _Meter:
    """Tokens of prompts done and to be done, on a terminal."""

    def __init__(self, config: SweepConfig, points: list[Point], states: list[PointState | None], progress: bool):
        self._config, self._points = config, points
        moments = [None if state is None else state.moments for state in states]
        self._done = [0 if m is None else m.count for m in moments]
        self._expected = [expected_prompts(config, m) for m in moments]
        self._meter = tqdm(
            total=self._tokens(self._expected), initial=self._tokens(self._done), unit=" tokens", unit_scale=True,
            disable=None if progress else True,
        )  # fmt: skip

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.close()

    def _tokens(self, counts: list[int]) -> int:
        return sum(count * point.n_tokens for count, point in zip(counts, self._points, strict=True))

    def update(self, i: int, moments: Moments) -> None:
        added = moments.count - self._done[i]
        self._done[i], self._expected[i] = moments.count, expected_prompts(self._config, moments)
        self._meter.total = self._tokens(self._expected)
        self._meter.set_description(f"point {i + 1}/{len(self._points)}", refresh=False)
        self._meter.update(added * self._points[i].n_tokens)


def expected_prompts(config: SweepConfig, moments: Moments | None) -> int:
    """Prompts that a point will take in all, as far as its variance tells."""
    fewest = config.n_prompts or 0
    if moments is None or config.standard_error is None:
        return fewest if moments is None else max(fewest, moments.count)
    if config.is_done(moments):
        return moments.count
    ratio = float(np.max(moments.standard_error)) / config.standard_error
    return int(np.clip(moments.count * ratio**2, max(fewest, moments.count), config.max_prompts))
