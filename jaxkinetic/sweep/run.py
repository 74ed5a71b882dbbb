"""Running a sweep, point by point and chunk by chunk; every chunk is one commit."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxkinetic._types import check_flags, check_positive_number, check_type
from jaxkinetic.particles.ensemble import BLOCK, MEMORY, local_devices
from jaxkinetic.sweep.config import Point, SweepConfig, check_goals
from jaxkinetic.sweep.cost import evaluations
from jaxkinetic.sweep.first_process import on_first
from jaxkinetic.sweep.preparation import Prepared, first_state, naming, prepare_points
from jaxkinetic.sweep.progress import Meter
from jaxkinetic.sweep.results import PointState
from jaxkinetic.sweep.store import SweepStore, holds_sweep, open_writer

# Token-drift evaluations per device between updates of the progress bar: tenths of a second on a processor core.
_PIECE = 10**7


def run_sweep(
    config: SweepConfig,
    store: str | Path,
    *,
    memory: float = MEMORY,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> None:
    """Compute a sweep, or what its store lacks; open the result with `open_sweep`.

    After an interruption at any instant, the same call continues and ends with the same bits. Damaged results are
    restored from the store's history or computed anew. With several processes (`jax.distributed`) all call it, and
    the first one writes.

    Args:
        config: what to compute.
        store: a folder, made if missing, or a URL such as s3://bucket/prefix.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.
        progress: whether to show progress and time left on a terminal.

    Raises:
        ValueError: if a point cannot be computed (found as far as possible before a store is made), if the store
            holds another configuration, or if no devices are given.
        StoreError: if the store cannot be read or written, or if another process writes to it; finished chunks
            are safe.

    Warns:
        UserWarning: if a damaged store was repaired, or if versions or device have changed.
    """
    here = local_devices(devices)
    check_type("config", config, SweepConfig)
    check_flags(progress=progress)
    check_positive_number("memory", memory)
    ready = Prepared() if on_first(lambda: holds_sweep(store)) else prepare_points(config, memory, here, progress)
    with contextlib.ExitStack() as stack:
        writer = _Writer(stack, store)
        _, states = on_first(lambda: writer.begin(config, {}))
        _advance(config, states, writer, ready, memory, here, progress)


def extend_sweep(
    store: str | Path,
    *,
    n_prompts: int | None = None,
    standard_error: float | None = None,
    max_prompts: int | None = None,
    chunk: int | None = None,
    memory: float = MEMORY,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> None:
    """Add prompts to a sweep or lower its target error; without either, continue it.

    For goals in numbers of prompts, the result has the bits of one longer run.

    Args:
        store: the sweep's store.
        n_prompts: prompts at each point, no fewer than before.
        standard_error: target error, no larger than before.
        max_prompts: most prompts to spend on the target, no fewer than before.
        chunk: prompts per commit; as before if None.
        memory: memory budget in bytes on each device.
        devices: local devices to share prompts among; all if None.
        progress: whether to show progress and time left on a terminal.

    Raises:
        ValueError: on goals below those of the store, which is then left as it was.
        StoreError: as `run_sweep`; with goals, also if the store is damaged.
    """
    here = local_devices(devices)
    check_flags(progress=progress)
    check_positive_number("memory", memory)
    check_goals(n_prompts=n_prompts, standard_error=standard_error, max_prompts=max_prompts, chunk=chunk)
    goals = {"n_prompts": n_prompts, "standard_error": standard_error, "max_prompts": max_prompts, "chunk": chunk}
    given = {name: value for name, value in goals.items() if value is not None}
    with contextlib.ExitStack() as stack:
        writer = _Writer(stack, store)
        record, states = on_first(lambda: writer.begin(None, given))
        _advance(SweepConfig(**record), states, writer, Prepared(), memory, here, progress)


def extended(config: SweepConfig, goals: dict[str, Any]) -> SweepConfig:
    """A configuration with other goals.

    Raises:
        ValueError: if a goal is below that of the configuration.
    """
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
    """The store, open on the first process only, until the stack unwinds."""

    stack: contextlib.ExitStack
    location: str | Path
    store: SweepStore | None = None

    def begin(
        self, config: SweepConfig | None, goals: dict[str, Any]
    ) -> tuple[dict[str, Any], list[PointState | None]]:
        """Open the store and set its goals; return the configuration and the state of each point."""
        self.store = self.stack.enter_context(open_writer(self.location, config, repair=not goals))
        wanted = extended(self.store.config, goals) if config is None else config
        states = list(self.store.states.values())
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
    ready: Prepared,
    memory: float,
    devices: Sequence[Any],
    progress: bool,
) -> None:
    key, points = jax.random.key(config.seed), list(config.points())
    moments = [None if state is None else state.moments for state in states]
    workers = len(devices) * jax.process_count()
    with Meter(config, moments, progress) as meter:
        for i, (point, state) in enumerate(zip(points, states, strict=True)):
            if state is not None and config.is_done(state.moments):
                continue
            ensemble = ready.ensembles.pop(point, None) or config.prepare(point)
            with naming(point, "failed", " Finished chunks are safe."):
                state = state or ready.states.get(point) or first_state(config, ensemble, memory, devices)
            piece = _piece(config, point, state.n_steps, workers)
            while not config.is_done(state.moments):
                end = state.moments.count + config.next_chunk(state.moments.count)
                while (count := state.moments.count) < end:
                    onto = state.moments if count else None
                    with naming(point, "failed", " Finished chunks are safe."):
                        found = ensemble.run(
                            state.n_steps, key, min(piece, end - count), count, memory, devices,
                            joint=config.joint, onto=onto,
                        )  # fmt: skip
                    state = dataclasses.replace(state, moments=found)
                    meter.update(i, found)
                on_first(lambda point=point, state=state: writer.write(point, state))


def _piece(config: SweepConfig, point: Point, n_steps: int, workers: int) -> int:
    """Prompts between updates of the progress bar, the same in every process; they change no bit of the result."""
    round_of_all = BLOCK * workers
    return round_of_all * -(-_PIECE // (BLOCK * evaluations(config, point, n_steps)))
