"""What one commit of a store holds, checked against the digests that were committed with it."""

import dataclasses
import functools
import json
from typing import Any

from jaxkinetic.sweep.config import GOALS, Point, SweepConfig
from jaxkinetic.sweep.layout import RESULTS, blank_dataset
from jaxkinetic.sweep.location import Location, StoreError, require
from jaxkinetic.sweep.results import PointState, Rows, digest_of_attributes, digest_of_rows, to_rows, to_state

_REMEDY = "run `jaxkinetic sweep run` with its configuration, or `jaxkinetic sweep extend` without goals"


class DamageError(StoreError):
    """A store whose bits are not those that were committed."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """One commit of a store.

    Attributes:
        config: configuration of the sweep.
        attrs: attributes, without the digests.
        digests: digest of each point that has begun, by the point's number as text.
        arrays: results over the grid; what cannot be read is as before the first prompt.
    """

    config: SweepConfig
    attrs: dict[str, Any]
    digests: dict[str, str]
    arrays: Rows

    @functools.cached_property
    def states(self) -> dict[Point, PointState | None]:
        """The state of each intact point; None before its first prompt."""
        states, blank = {}, digest_of_rows(to_rows(None, self.config))
        for number, point in enumerate(self.config.points()):
            rows = {name: values[point.index] for name, values in self.arrays.items()}
            if digest_of_rows(rows) == self.digests.get(str(number), blank):
                states[point] = to_state(rows, point, self.config)
        return states

    @property
    def damaged(self) -> list[Point]:
        """The points whose results are not those that were committed."""
        return [point for point in self.config.points() if point not in self.states]

    def check(self, location: Location) -> "Contents":
        """Return these contents.

        Raises:
            DamageError: if a point is damaged; it names the first one.
        """
        if bad := self.damaged:
            more = f" and {len(bad) - 1} more points" if bad[1:] else ""
            raise DamageError(
                f"The store {location} is damaged: the results at {bad[0]}{more} are not those that were "
                f"committed. To repair it {_REMEDY}."
            )
        return self


def read_contents(repository: Any, snapshot: str, location: Location) -> Contents:
    """Read a commit; whether its points are intact is for `Contents.check` to say.

    Raises:
        DamageError: if the attributes, which hold the digests, are not those that were committed.
        StoreError: if there is no sweep of this version.
    """
    try:
        group = require("zarr").open_group(repository.readonly_session(snapshot_id=snapshot).store, mode="r")
        attrs = dict(group.attrs)
        is_sweep = not attrs.keys().isdisjoint({"digest", "digests"})
        is_intact = attrs.pop("digest", None) == digest_of_attributes(attrs)
    except Exception as error:  # Bits that nobody wrote may fail in any way.
        raise_if_unreachable(error, location)
        raise DamageError(
            f"The store {location} cannot be read: its last commit is damaged. To repair it {_REMEDY}."
        ) from error
    if not is_sweep:
        raise StoreError(f"The store {location} cannot be read: it is no sweep of this version.")
    if not is_intact:
        raise DamageError(f"The store {location} cannot be read: its manifest is damaged. To repair it {_REMEDY}.")
    try:
        config = SweepConfig(**json.loads(attrs["configuration"]))
    except (TypeError, ValueError) as error:
        raise StoreError(f"The store {location} cannot be read: it is no sweep of this version.") from error
    digests = json.loads(attrs.pop("digests"))
    return Contents(config, attrs, digests, _read_results(group, config, location))


def _read_results(group: Any, config: SweepConfig, location: Location) -> Rows:
    """The results over the grid; what cannot be read stays blank, and its digest will not match."""
    blank = blank_dataset(config)
    arrays = {name: blank[name].values for name in RESULTS}
    for name, values in arrays.items():
        if not _read_into(values, (), group, name, location):
            for point in config.points():
                _read_into(values, point.index, group, name, location)
    return arrays


def _read_into(values: Any, index: tuple[int, ...], group: Any, name: str, location: Location) -> bool:
    """Read an array, or a point's part of it; False if it cannot be decoded."""
    try:
        values[index or ...] = group[name][index or ...]
    except Exception as error:  # As in `read_contents`.
        raise_if_unreachable(error, location)
        return False
    return True


def raise_if_unreachable(error: Exception, location: Location) -> None:
    """Raise an error of an object store, which may be out of reach and keeps checksums of its own."""
    if location.folder is None and isinstance(error, (require("icechunk").IcechunkError, OSError, RuntimeError)):
        raise error


def sealed(attrs: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    """Attributes as they are committed: with the digests of all points, and with their own."""
    attrs = attrs | {"digests": json.dumps(digests)}
    return attrs | {"digest": digest_of_attributes(attrs)}


def check_same(stored: SweepConfig, asked: SweepConfig, location: Location) -> None:
    """Raise ValueError unless two configurations are the same, but for the size of chunks."""
    old, new = stored.record(), asked.record()
    differ = [name for name in new if name != "chunk" and new[name] != old[name]]
    if differ:
        name = differ[0]
        hint = " To change goals use `extend`." if set(differ) <= set(GOALS) else ""
        raise ValueError(
            f"The store {location} holds another configuration: {name} is {old[name]} there, but {new[name]} here"
            f"{f', and {len(differ) - 1} more differ' if differ[1:] else ''}. Nothing was changed.{hint}"
        )
