"""The store of a sweep: an icechunk repository that holds a zarr group, read as an xarray Dataset.

A chunk of prompts is one commit, which replaces the results of one point and their digest; a store is made in one
step. Killed at any instant, it holds every finished chunk and nothing else.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.contents import Contents, DamageError, check_same, read_contents, sealed
from jaxkinetic.sweep.creation import BRANCH, clear_leftovers, create_store, first_commit, is_empty
from jaxkinetic.sweep.layout import blank_dataset
from jaxkinetic.sweep.location import Location, conflict, one_line_errors, open_storage, parse_location, require
from jaxkinetic.sweep.manifest import configuration, warn_of_changes, with_session, x64
from jaxkinetic.sweep.repair import repair_store
from jaxkinetic.sweep.results import PointState, digest_of_rows, to_rows
from jaxkinetic.sweep.writer_lock import only_writer

if TYPE_CHECKING:
    import xarray


class SweepStore:
    """A store that this process writes to, as it was at its own last commit.

    Attributes:
        location: where it is.
        config: its configuration.
        attrs: its manifest.
        states: state of each point when the store was opened; None before a point's first prompt.
    """

    def __init__(self, location: Location, repository: Any, event: str | None):
        self.location = location
        self._repository = repository
        self._tip = repository.lookup_branch(BRANCH)
        contents = read_contents(repository, self._tip, location).check(location)
        self.config, self.attrs, self.states = contents.config, contents.attrs, contents.states
        self._digests = contents.digests
        self._numbers = {point: str(number) for number, point in enumerate(self.config.points())}
        # The first commit also records this run.
        self._event = event

    def write(self, point: Point, state: PointState) -> None:
        """Commit the state of a point, atomically."""
        rows = to_rows(state, self.config)
        self._digests[self._numbers[point]] = digest_of_rows(rows)

        def change(group: Any) -> None:
            for name, values in rows.items():
                group[name][point.index] = values

        self._commit(change, f"{state.moments.count} prompts at {point}")

    def set_goals(self, config: SweepConfig) -> None:
        """Commit new goals."""
        self._event = "extended"
        self.attrs = self.attrs | {"configuration": configuration(config)}
        self.config = config
        self._commit(lambda _: None, "new goals")

    def _commit(self, change: Any, message: str) -> None:
        with one_line_errors(self.location, "written"):
            writable = self._repository.writable_session(BRANCH)
            if writable.snapshot_id != self._tip:
                raise conflict(self.location)
            if self._event is not None:
                self.attrs, self._event = with_session(self.attrs, self._event), None
            group = require("zarr").open_group(writable.store, mode="r+")
            change(group)
            group.attrs.update(sealed(self.attrs, self._digests))
            self._tip = writable.commit(message)


@contextlib.contextmanager
def open_writer(store: str | Path, config: SweepConfig | None = None, repair: bool = True) -> Iterator[SweepStore]:
    """Open a store as its only writer.

    Args:
        store: a folder or a URL.
        config: the configuration of the store, which is made if missing; None for an existing store.
        repair: whether to repair a damaged store.

    Raises:
        ValueError: if it holds another configuration, or if there is no store and ``config`` is None.
        StoreError: if it cannot be read or made, or if another process writes to it.
    """
    location = parse_location(store)
    _need_all()
    if config is None:
        _find(location)
    with contextlib.ExitStack() as stack:
        with one_line_errors(location, "opened"):
            stack.enter_context(only_writer(location))
            if location.folder is not None:
                clear_leftovers(location.folder)
            event = "resumed"
            if not exists(location):
                assert config is not None
                create_store(location, config)
                event = None
            repository = open_repository(location)
            if config is not None and is_empty(repository):
                first_commit(repository, config)
                event = None
            try:
                found = SweepStore(location, repository, event)
            except DamageError:
                if not repair:
                    raise
                repair_store(repository, config, location)
                found = SweepStore(location, repository, None)
        if config is not None:
            check_same(found.config, config, location)
        if (made := found.attrs.get("x64")) != x64():
            raise ValueError(
                f"The store {location} was made with jax_enable_x64 = {made}, but it is {x64()}: go on from "
                f'Python, after `jax.config.update("jax_enable_x64", {made == "true"})`.'
            )
        warn_of_changes(found.attrs, location)
        yield found


def holds_sweep(store: str | Path) -> bool:
    """Whether there is a store that is not empty; it may be damaged."""
    location = parse_location(store)
    _need_all()
    with one_line_errors(location, "read"):
        return exists(location) and not is_empty(open_repository(location))


def read_store(store: str | Path) -> Contents | None:
    """The contents of a store, without its lock; None if there is no store.

    Raises:
        StoreError: as `open_sweep`.
    """
    if not holds_sweep(store):
        return None
    location = parse_location(store)
    with one_line_errors(location, "read"):
        return _read_last(open_repository(location), location)


def open_sweep(store: str | Path) -> "xarray.Dataset":
    """Read the results of a sweep, finished or not, even while it runs.

    Args:
        store: a folder, or a URL such as s3://bucket/prefix.

    Returns:
        A Dataset over beta, lam, time, n_tokens, vocab_size, law, estimator and source: the estimates `values` of
        S_N(sigma_0) and their `standard_error`, NaN where no prompt has run; `count`, `mean` and `m2` from which
        they follow; `n_steps` and `step_error`; and the positions `sigma_0` = i / N of the sources. A sweep with
        ``joint`` also has the `covariance` of the estimates, over source and other_source, and `m2` over both.

    Raises:
        ValueError: if there is no store.
        StoreError: if it cannot be read, or if it is damaged: all bits are checked against digests.
    """
    location = parse_location(store)
    _need_all()
    with one_line_errors(location, "read"):
        contents = _read_last(_find(location), location)
    found = blank_dataset(contents.config)
    found.attrs = contents.attrs
    for name, values in contents.arrays.items():
        found[name].values = values
    count, m2, names = found["count"], found["m2"], ["values", "standard_error", "count", "n_steps", "step_error"]
    degrees = (count - 1).where(count > 1)
    squares = m2
    if "other_source" in m2.dims:
        squares = found["mean"].copy(data=np.diagonal(m2.values, axis1=-2, axis2=-1))
        found["covariance"] = (m2 / degrees / count).assign_attrs(long_name="covariance of S_N(sigma_0)", units="1")
        names.append("covariance")
    found["values"] = found["mean"].assign_attrs(long_name="retrieval profile, S_N(sigma_0)", units="1")
    error: Any = np.sqrt(squares / degrees / count)
    found["standard_error"] = error.assign_attrs(long_name="standard error of S_N(sigma_0)", units="1")
    return found[[*names, "mean", "m2"]]


def exists(location: Location) -> bool:
    """Whether there is a store.

    Raises:
        ValueError: if a file or a folder with other contents is in its place.
    """
    if location.folder is None:
        with one_line_errors(location, "reached"):
            return require("icechunk").Repository.exists(open_storage(location))
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
    return require("icechunk").Repository.open(open_storage(location))


def _find(location: Location) -> Any:
    """The repository of a sweep.

    Raises:
        ValueError: if there is none, or one without a commit.
    """
    with one_line_errors(location, "read"):
        if exists(location) and not is_empty(repository := open_repository(location)):
            return repository
    raise ValueError(f"Argument `store` must be a sweep's store, but there is none at {location}.")


def _read_last(repository: Any, location: Location) -> Contents:
    return read_contents(repository, repository.lookup_branch(BRANCH), location).check(location)


def _need_all() -> None:
    for module in ("icechunk", "zarr", "xarray"):
        require(module)
