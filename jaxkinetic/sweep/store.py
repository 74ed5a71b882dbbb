"""The store of a sweep: an icechunk repository that holds a zarr group, which xarray opens.

Arrays `count`, `mean` and `m2` have the grid's dimensions and `source`. A chunk of prompts is one commit, and a
store is made whole in one step: killed at any instant, it holds every finished chunk and nothing else.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import GOALS, Point, SweepConfig
from jaxkinetic.sweep.creation import BRANCH, clear_leftovers, create_store, is_empty, lay_out
from jaxkinetic.sweep.location import (
    Location,
    StoreError,
    conflict,
    need,
    open_storage,
    parse_location,
    told,
)
from jaxkinetic.sweep.manifest import session, sessions, warn_of_changes, x64
from jaxkinetic.sweep.writer_lock import only_writer

if TYPE_CHECKING:
    import xarray


@dataclasses.dataclass(frozen=True)
class PointState:
    """What a store knows of a point.

    Attributes:
        moments: of the values over the prompts so far.
        n_steps: constant steps to depth t.
        step_error: root-mean-square error that these leave in one prompt's values, at worst over the sources.
    """

    moments: Moments
    n_steps: int
    step_error: float


class SweepStore:
    """A store that this process writes to, as it was at its own last commit.

    Its first commit also records who writes from then on, unless this process made the store.
    """

    def __init__(self, location: Location, repository: Any, made_here: bool = False):
        self.location = location
        self._repository = repository
        with told(location, "read"):
            self._tip = repository.lookup_branch(BRANCH)
            self._group = _group(repository.readonly_session(snapshot_id=self._tip).store)
            self.attrs = dict(self._group.attrs)
            self.config = config_of(self.attrs, location)
        self._event = None if made_here else "resumed"

    def read(self) -> list[PointState | None]:
        """What is known of each point, in their order; None before its first chunk."""
        with told(self.location, "read"):
            return read_states(self._group, self.config)

    def write(self, point: Point, state: PointState) -> None:
        """Commit the state of a point: all of it, or nothing."""
        used = slice(0, state.moments.mean.size)

        def change(group: Any) -> None:
            group["mean"][(*point.index, used)] = state.moments.mean
            group["m2"][(*point.index, *[used] * state.moments.m2.ndim)] = state.moments.m2
            group["n_steps"][point.index] = state.n_steps
            group["step_error"][point.index] = state.step_error
            group["count"][point.index] = state.moments.count

        self._commit(change, f"{state.moments.count} prompts at {point}")

    def set_goals(self, config: SweepConfig) -> None:
        """Commit new numbers of prompts and errors to reach."""
        self._event = "extended"
        self._commit(lambda group: group.attrs.update({"configuration": json.dumps(config.record())}), "new goals")
        self.config = config

    def _commit(self, change: Any, message: str) -> None:
        with told(self.location, "written"):
            writable = self._repository.writable_session(BRANCH)
            if writable.snapshot_id != self._tip:
                raise conflict(self.location)
            group = _group(writable.store, mode="r+")
            change(group)
            if self._event is not None:
                history = [*sessions(self.attrs), session(self._event)]
                group.attrs.update({"sessions": json.dumps(history)})
            self._tip = writable.commit(message)
            self._event = None
            self._group = _group(self._repository.readonly_session(snapshot_id=self._tip).store)
            self.attrs = dict(self._group.attrs)


def read_states(group: Any, config: SweepConfig) -> list[PointState | None]:
    """What arrays of a store say of each point, in their order; None before its first chunk."""
    names = ("count", "n_steps", "step_error", "mean", "m2")
    count, n_steps, step_error, mean, m2 = (np.asarray(group[name][...]) for name in names)
    states: list[PointState | None] = []
    for point in config.points():
        i, used = point.index, slice(0, config.positions(point.n_tokens).size)
        squares = m2[i][used, used] if config.joint else m2[i][used]
        moments = Moments(int(count[i]), mean[i][used], squares)
        states.append(PointState(moments, int(n_steps[i]), float(step_error[i])) if moments.count else None)
    return states


@contextlib.contextmanager
def open_writer(store: str | Path, config: SweepConfig | None = None) -> Iterator[SweepStore]:
    """Open a store to write to it, as its only writer; made if missing and ``config`` is given.

    Raises:
        ValueError: if it holds another configuration, or if there is none and none is given.
        StoreError: if it cannot be read or made, or if another process writes to it.
    """
    location = parse_location(store)
    _need_all()
    if config is None:
        _find(location)
    with contextlib.ExitStack() as stack:
        with told(location, "opened"):
            stack.enter_context(only_writer(location))
            if location.folder is not None:
                clear_leftovers(location.folder)
            made_here = not exists(location)
            if made_here:
                assert config is not None
                create_store(location, config)
            repository = open_repository(location)
            if config is not None and is_empty(repository):
                lay_out(repository, config)
                made_here = True
            found = SweepStore(location, repository, made_here)
        if config is not None:
            check_same(found.config, config, location)
        if (made := found.attrs.get("x64")) != x64():
            raise ValueError(
                f"The store {location} was made with jax_enable_x64 = {made}, but it is {x64()}: go on from "
                f'Python, after `jax.config.update("jax_enable_x64", {made == "true"})`.'
            )
        warn_of_changes(found.attrs, location)
        yield found


def read_store(store: str | Path) -> tuple[SweepConfig, list[PointState | None]] | None:
    """Configuration of a store and what it knows of each point, unlocked; None where there is none."""
    location = parse_location(store)
    _need_all()
    with told(location, "read"):
        if not exists(location) or is_empty(repository := open_repository(location)):
            return None
        group = _group(repository.readonly_session(BRANCH).store)
        config = config_of(dict(group.attrs), location)
        return config, read_states(group, config)


def open_sweep(store: str | Path) -> "xarray.Dataset":
    """Open a sweep's store, finished or not, also while it is being written.

    Args:
        store: a folder, or a URL such as s3://bucket/prefix.

    Returns:
        A Dataset over beta, lam, time, n_tokens, vocab_size, law, estimator and source: the estimates `values` of
        S_N(sigma_0) and their `standard_error`, NaN where no prompt has run; `count`, `mean` and `m2` from which
        they follow; `n_steps` and `step_error`; and the positions `sigma_0` = i / N of the sources. A sweep with
        ``joint`` also has the `covariance` of the estimates, over source and other_source, and `m2` over both.

    Raises:
        ValueError: if there is no store.
        StoreError: if it cannot be read.
    """
    location = parse_location(store)
    xarray = need("xarray")
    _need_all()
    with told(location, "read"):
        session = _find(location).readonly_session(BRANCH)
        _group(session.store)
        with xarray.open_zarr(session.store, consolidated=False, chunks=None) as stored:
            found = stored.load()
    config_of(found.attrs, location)
    for name in ("law", "estimator"):
        found = found.assign_coords({name: (name, np.array(found[name].values.tolist()), found[name].attrs)})
    count, m2, names = found["count"], found["m2"], ["values", "standard_error", "count", "n_steps", "step_error"]
    degrees = (count - 1).where(count > 1)
    squares = m2
    if "other_source" in m2.dims:
        squares = found["mean"].copy(data=np.diagonal(m2.values, axis1=-2, axis2=-1))
        found["covariance"] = (m2 / degrees / count).assign_attrs(long_name="covariance of S_N(sigma_0)", units="1")
        names.append("covariance")
    found["values"] = found["mean"].assign_attrs(long_name="retrieval profile, S_N(sigma_0)", units="1")
    error = np.sqrt(squares / degrees / count)
    found["standard_error"] = error.assign_attrs(long_name="standard error of S_N(sigma_0)", units="1")
    return found[[*names, "mean", "m2"]]


def check_same(stored: SweepConfig, asked: SweepConfig, location: Location) -> None:
    """Refuse to go on with another configuration than the store's; the size of chunks may differ."""
    old, new = stored.record(), asked.record()
    differ = [name for name in new if name != "chunk" and new[name] != old[name]]
    if differ:
        name = differ[0]
        hint = " To change goals use `extend`." if set(differ) <= set(GOALS) else ""
        raise ValueError(
            f"The store {location} holds another configuration: {name} is {old[name]} there, but {new[name]} here"
            f"{f', and {len(differ) - 1} more differ' if differ[1:] else ''}. Nothing was changed.{hint}"
        )


def config_of(attrs: dict[str, Any], location: Location) -> SweepConfig:
    """The configuration in a store's attributes."""
    try:
        return SweepConfig(**json.loads(attrs["configuration"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"The store {location} cannot be read: it is no sweep of this version.") from error


def exists(location: Location) -> bool:
    """Whether there is a store; a folder that holds something else is refused."""
    if location.folder is None:
        with told(location, "reached"):
            return need("icechunk").Repository.exists(open_storage(location))
    folder = location.folder
    if not folder.exists() and not folder.is_symlink():
        return False
    if folder.is_dir():
        if not any(folder.iterdir()):
            return False
        if (folder / "refs").is_dir() and (folder / "snapshots").is_dir():
            return True
    raise ValueError(f"Argument `store` must be a sweep's store or a new folder, but {location} is something else.")


def open_repository(location: Location) -> Any:
    """The repository of a store that exists."""
    return need("icechunk").Repository.open(open_storage(location))


def _find(location: Location) -> Any:
    """The repository of a sweep, or an error if there is none; one that holds nothing is none."""
    with told(location, "read"):
        if exists(location) and not is_empty(repository := open_repository(location)):
            return repository
    raise ValueError(f"Argument `store` must be a sweep's store, but there is none at {location}.")


def _group(store: Any, mode: str = "r") -> Any:
    return need("zarr").open_group(store, mode=mode)


def _need_all() -> None:
    for module in ("icechunk", "zarr", "xarray"):
        need(module)
