"""Repairing a damaged store from its own history: each commit holds all that was known when it was made."""

import contextlib
import warnings
from collections.abc import Iterable
from typing import Any

from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.contents import Contents, check_same, read_contents, sealed
from jaxkinetic.sweep.creation import BRANCH
from jaxkinetic.sweep.layout import lay_out
from jaxkinetic.sweep.location import Location, StoreError, require
from jaxkinetic.sweep.manifest import with_session
from jaxkinetic.sweep.results import PointState, digest_of_rows, to_rows


def repair_store(repository: Any, config: SweepConfig | None, location: Location) -> None:
    """Commit what is intact: the newest intact manifest, and the newest intact results of each point.

    A run that goes on from these ends with the bits that were lost. Nothing is deleted: the damaged commits stay in
    the repository.

    Raises:
        ValueError: if the store holds another configuration than ``config``.
        StoreError: if no commit is intact.

    Warns:
        UserWarning: what was damaged, and what became of it.
    """
    last, base = None, ""
    states: dict[Point, PointState | None] = {}
    for snapshot in _commits(repository, location):
        try:
            found = read_contents(repository, snapshot, location)
        except StoreError:
            continue
        if last is None:
            last, base = found, snapshot
        states = found.states | states
        if states.keys() >= set(last.config.points()):
            break
    if last is None:
        raise StoreError(
            f"The store {location} cannot be read: it is no sweep of this version, or damaged beyond repair. "
            "Nothing was changed; move it away to begin anew."
        )
    if config is not None:
        check_same(last.config, config, location)
    is_last = base == repository.lookup_branch(BRANCH)
    if not is_last:
        repository.reset_branch(BRANCH, base)
    _commit(repository, last, states)
    warnings.warn(f"The store {location} was damaged. {_what_was_done(last, states, is_last)}", stacklevel=2)


def _commit(repository: Any, last: Contents, states: dict[Point, PointState | None]) -> None:
    writable = repository.writable_session(BRANCH)
    # All arrays are made anew: a commit that builds on damaged files would fail or carry the damage on.
    group, digests = lay_out(writable.store, last.config), {}
    for number, point in enumerate(last.config.points()):
        rows = to_rows(states.get(point), last.config)
        for name, values in last.arrays.items():
            values[point.index] = rows[name]
        if rows["count"]:
            digests[str(number)] = digest_of_rows(rows)
    for name, values in last.arrays.items():
        group[name][...] = values
    group.attrs.update(sealed(with_session(last.attrs, "repaired"), digests))
    writable.commit("repaired")


def _what_was_done(last: Contents, states: dict[Point, PointState | None], is_last: bool) -> str:
    """One line on the points that were restored and on those that are to be computed."""
    restored, lost = [], []
    for number, point in enumerate(last.config.points()):
        if point in last.damaged:
            rows = to_rows(states.get(point), last.config)
            same = digest_of_rows(rows) == last.digests.get(str(number))
            (restored if same else lost).append(point)
    said = [] if is_last else ["It goes on from its newest commit that can be read."]
    if restored:
        said.append(f"Restored from earlier commits: the results at {_named(restored)}.")
    if lost:
        said.append(f"Computed anew since their last intact commit: the results at {_named(lost)}.")
    return " ".join(said)


def _named(points: list[Point]) -> str:
    return f"{points[0]}{f' and {len(points) - 1} more points' if points[1:] else ''}"


def _commits(repository: Any, location: Location) -> Iterable[str]:
    """Names of the commits, newest first; in a folder also those that a damaged one hides."""
    if location.folder is None:
        return (info.id for info in repository.ancestry(branch=BRANCH))
    found = []
    for path in (location.folder / "snapshots").iterdir():
        with contextlib.suppress(require("icechunk").IcechunkError):
            found.append(repository.lookup_snapshot(path.name))
    return [info.id for info in sorted(found, key=lambda info: info.written_at, reverse=True)]
