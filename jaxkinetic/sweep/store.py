"""The store of a sweep: an icechunk repository that holds a zarr group, which xarray opens.

Arrays `count`, `mean` and `m2` have the grid's dimensions and `source`. A chunk of prompts is one commit, and a
store is made whole in one step: killed at any instant, it holds every finished chunk and nothing else.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import DIMS, GOALS, Point, SweepConfig
from jaxkinetic.sweep.location import (
    Location,
    StoreError,
    conflict,
    need,
    only_writer,
    open_storage,
    parse_location,
    told,
)

if TYPE_CHECKING:
    import xarray

_BRANCH = "main"
_LABELS = {
    "beta": "sharpness of attention, beta",
    "lam": "positional bias, lambda",
    "time": "depth of the last layer, t",
    "n_tokens": "number of tokens, N",
    "vocab_size": "vocabulary size of the decoder, M",
    "law": "law of the prompts",
    "estimator": "estimator asked for",
}
_PACKAGES = ("jaxkinetic", "jax", "numpy", "icechunk", "zarr", "xarray")


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
    """A store that this process writes to, as it was at its own last commit."""

    def __init__(self, location: Location, repository: Any):
        self.location = location
        self._repository = repository
        with told(location, "read"):
            self._tip = repository.lookup_branch(_BRANCH)
            self._group = _group(repository.readonly_session(snapshot_id=self._tip).store)
            self.attrs = dict(self._group.attrs)
            self.config = config_of(self.attrs, location)

    def read(self) -> list[PointState | None]:
        """What is known of each point, in their order; None before its first chunk."""
        with told(self.location, "read"):
            count, n_steps, step_error, mean, m2 = (
                np.asarray(self._group[name][...]) for name in ("count", "n_steps", "step_error", "mean", "m2")
            )
        states: list[PointState | None] = []
        for point in self.config.points():
            i, n = point.index, self.config.positions(point.n_tokens).size
            moments = Moments(int(count[i]), mean[i][:n], m2[i][:n])
            states.append(PointState(moments, int(n_steps[i]), float(step_error[i])) if moments.count else None)
        return states

    def write(self, point: Point, state: PointState) -> None:
        """Commit the state of a point: all of it, or nothing."""
        n = state.moments.mean.size

        def change(group: Any) -> None:
            group["mean"][(*point.index, slice(0, n))] = state.moments.mean
            group["m2"][(*point.index, slice(0, n))] = state.moments.m2
            group["n_steps"][point.index] = state.n_steps
            group["step_error"][point.index] = state.step_error
            group["count"][point.index] = state.moments.count

        self._commit(change, f"{state.moments.count} prompts at {point}")

    def set_goals(self, config: SweepConfig) -> None:
        """Commit new numbers of prompts and errors to reach."""
        self._commit(lambda group: group.attrs.update({"configuration": json.dumps(config.record())}), "new goals")
        self.config = config

    def _commit(self, change: Any, message: str) -> None:
        with told(self.location, "written"):
            session = self._repository.writable_session(_BRANCH)
            if session.snapshot_id != self._tip:
                raise conflict(self.location)
            change(_group(session.store, mode="r+"))
            self._tip = session.commit(message)
            self._group = _group(self._repository.readonly_session(snapshot_id=self._tip).store)


@contextlib.contextmanager
def open_writer(store: str | Path, config: SweepConfig | None = None) -> Iterator[SweepStore]:
    """Open a store to write to it, as its only writer; made if missing and ``config`` is given.

    Raises:
        ValueError: if it holds another configuration, or if there is none and none is given.
        StoreError: if it cannot be read or made, or if another process writes to it.
    """
    location = parse_location(store)
    _need_all()
    if config is None and not _exists(location):
        raise ValueError(f"Argument `store` must be a sweep's store, but there is none at {location}.")
    with contextlib.ExitStack() as stack:
        with told(location, "opened"):
            stack.enter_context(only_writer(location))
            if not _exists(location):
                assert config is not None
                _create(location, config)
            found = SweepStore(location, _open(location))
        if config is not None:
            check_same(found.config, config, location)
        if found.attrs.get("x64") != _x64():
            raise ValueError(
                f"The store {location} was made with jax_enable_x64 = {found.attrs.get('x64')}, but it is {_x64()}."
            )
        yield found


def read_store(store: str | Path) -> tuple[SweepConfig, dict[str, Any]] | None:
    """Configuration and attributes of a store, unlocked; None where there is none."""
    location = parse_location(store)
    _need_all()
    with told(location, "read"):
        if not _exists(location):
            return None
        attrs = dict(_group(_open(location).readonly_session(_BRANCH).store).attrs)
        return config_of(attrs, location), attrs


def open_sweep(store: str | Path) -> "xarray.Dataset":
    """Open a sweep's store, finished or not, also while it is being written.

    Args:
        store: a folder, or a URL such as s3://bucket/prefix.

    Returns:
        A Dataset over beta, lam, time, n_tokens, vocab_size, law, estimator and source: the estimates `values` of
        S_N(sigma_0) and their `standard_error`, NaN where no prompt has run; `count`, `mean` and `m2` from which
        they follow; `n_steps` and `step_error`; and the positions `sigma_0` = i / N of the sources.

    Raises:
        ValueError: if there is no store.
        StoreError: if it cannot be read.
    """
    location = parse_location(store)
    xarray = need("xarray")
    _need_all()
    with told(location, "read"):
        if not _exists(location):
            raise ValueError(f"Argument `store` must be a sweep's store, but there is none at {location}.")
        session = _open(location).readonly_session(_BRANCH)
        _group(session.store)
        with xarray.open_zarr(session.store, consolidated=False, chunks=None) as stored:
            found = stored.load()
    config_of(found.attrs, location)
    for name in ("law", "estimator"):
        found = found.assign_coords({name: (name, np.array(found[name].values.tolist()), found[name].attrs)})
    count = found["count"]
    error = np.sqrt(found["m2"] / (count - 1).where(count > 1) / count)
    names = {"long_name": "retrieval profile, S_N(sigma_0)", "units": "1"}
    found["values"] = found["mean"].assign_attrs(names)
    found["standard_error"] = error.assign_attrs(long_name="standard error of S_N(sigma_0)", units="1")
    return found[["values", "standard_error", "count", "n_steps", "step_error", "mean", "m2"]]


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


def _exists(location: Location) -> bool:
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


def _open(location: Location) -> Any:
    return need("icechunk").Repository.open(open_storage(location))


def _create(location: Location, config: SweepConfig) -> None:
    """Make a store: a folder under another name first, so that half a store is never found."""
    with told(location, "made"):
        icechunk, made = need("icechunk"), location
        if location.folder is not None:
            made = Location("file", "", str(location.folder.with_name(location.folder.name + ".new")))
            shutil.rmtree(made.prefix, ignore_errors=True)
        repository = icechunk.Repository.create(open_storage(made))
        session = repository.writable_session(_BRANCH)
        _lay_out(need("zarr").group(session.store), config)
        session.commit("new sweep")
        if location.folder is not None:
            Path(made.prefix).rename(location.folder)


def _lay_out(group: Any, config: SweepConfig) -> None:
    """Coordinates, empty arrays, and the manifest in the group's attributes."""
    sizes, n = config.shape, config.n_sources
    every = config.sources == "all"
    for name in DIMS:
        values = np.asarray(getattr(config, name))
        text = values.dtype.kind == "U"
        array = group.create_array(
            name, shape=values.shape, dtype=str if text else values.dtype, dimension_names=[name]
        )
        array[:] = values.astype(object) if text else values
        array.attrs.update({"long_name": _LABELS[name], **({} if text else {"units": "1"})})
    source = np.arange(1, n + 1) if every else np.asarray(config.sources)
    asked = "token i of the source" if every else "position sigma_0 asked for"
    sigma = np.full((len(config.n_tokens), n), np.nan)
    for row, n_tokens in zip(sigma, config.n_tokens, strict=True):
        here = config.positions(n_tokens)
        row[: here.size] = here
    coordinates = {
        "source": (source, ["source"], asked),
        "sigma_0": (sigma, ["n_tokens", "source"], "position of the source, i / N"),
    }
    for name, (values, dims, label) in coordinates.items():
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=dims)
        array[:] = values
        array.attrs.update({"long_name": label, "units": "1"})
    arrays = {
        "count": ("int64", 0, "number of prompts"),
        "n_steps": ("int64", 0, "constant steps to depth t"),
        "step_error": ("float64", np.nan, "root-mean-square error of the steps in one prompt's values"),
        "mean": ("float64", np.nan, "mean over prompts"),
        "m2": ("float64", np.nan, "sum of squared deviations from the mean over prompts"),
    }
    for name, (dtype, fill, label) in arrays.items():
        by_source = name in ("mean", "m2")
        array = group.create_array(
            name, shape=(*sizes, n) if by_source else sizes, chunks=(*[1] * len(sizes), n) if by_source else sizes,
            dtype=dtype, fill_value=fill, dimension_names=[*DIMS, *(["source"] if by_source else [])],
        )  # fmt: skip
        array.attrs.update(
            {"long_name": label, "units": "1", "coordinates": "sigma_0"}
            if by_source
            else {"long_name": label, "units": "1"}
        )
    group.attrs.update(_manifest(config))


def _manifest(config: SweepConfig) -> dict[str, Any]:
    """What a reader needs to compute the same again; nested parts as JSON, which every file format holds."""
    device = jax.devices()[0]
    chosen = {law: {e: config.chosen_estimator(law, e) for e in config.estimator} for law in config.law}
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "title": "Retrieval profiles S_N(sigma_0) from particles",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "configuration": json.dumps(config.record()),
        "estimators": json.dumps(chosen),
        "versions": json.dumps(versions | {"python": platform.python_version()}),
        "seed": config.seed,
        "x64": _x64(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "processes": jax.process_count(),
    }


def _x64() -> str:
    return str(jax.config.jax_enable_x64).lower()  # pyright: ignore[reportAttributeAccessIssue]


def _group(store: Any, mode: str = "r") -> Any:
    return need("zarr").open_group(store, mode=mode)


def _need_all() -> None:
    for module in ("icechunk", "zarr", "xarray"):
        need(module)
