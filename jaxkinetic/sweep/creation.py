"""Making a store: whole in one step in a folder, and made whole on the next run in an object store."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxkinetic.sweep.config import DIMS, SweepConfig
from jaxkinetic.sweep.location import Location, StoreError, need, open_storage, told
from jaxkinetic.sweep.manifest import new_manifest

BRANCH = "main"
_LABELS = {
    "beta": "sharpness of attention, beta",
    "lam": "positional bias, lambda",
    "time": "depth of the last layer, t",
    "n_tokens": "number of tokens, N",
    "vocab_size": "vocabulary size of the decoder, M",
    "law": "law of the prompts",
    "estimator": "estimator asked for",
}
_SUFFIX = ".jaxkinetic-new"
_MARKER = "being-made-by-jaxkinetic"


def create_store(location: Location, config: SweepConfig) -> None:
    """Make a store: a folder beside it first, which is then renamed, so that half a store is never found.

    An object store has no renaming; what a kill leaves there is an empty repository, which `lay_out` completes.
    """
    with told(location, "made"):
        icechunk = need("icechunk")
        if location.folder is None:
            try:
                repository = icechunk.Repository.create(open_storage(location))
            except icechunk.IcechunkError as error:
                if "clean prefix" not in str(error):
                    raise
                raise StoreError(
                    f"The store {location} cannot be made: something that is no sweep lies there, or what is left "
                    "of one that was killed while it was made. Nothing was changed; choose another prefix, or "
                    "remove what lies there yourself."
                ) from error
            lay_out(repository, config)
            return
        with _workshop(location.folder) as inside:
            repository = icechunk.Repository.create(open_storage(Location("file", "", str(inside))))
            lay_out(repository, config)
            # Fails on anything but an empty folder.
            inside.rename(os.path.realpath(location.folder))


def is_empty(repository: Any) -> bool:
    """Whether a repository has been made and nothing was ever committed to it."""
    return repository.lookup_snapshot(repository.lookup_branch(BRANCH)).parent_id is None


def clear_leftovers(folder: Path) -> None:
    """Remove what runs that were killed while they made this store have left beside it, and nothing else."""
    real = Path(os.path.realpath(folder))
    for entry in os.scandir(real.parent):
        if (
            entry.name.startswith(f".{real.name}.")
            and entry.name.endswith(_SUFFIX)
            and entry.is_dir(follow_symlinks=False)
        ):
            _remove(Path(entry.path))


@contextlib.contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Path within a new folder of ours beside a store's, to make the store in."""
    real = Path(os.path.realpath(folder))
    made = Path(tempfile.mkdtemp(_SUFFIX, f".{real.name}.", real.parent))
    try:
        (made / _MARKER).touch()
        yield made / "store"
    finally:
        _remove(made)


def _remove(made: Path) -> None:
    """Remove a workshop; what is not ours stays, and so does the folder that holds it."""
    if (made / _MARKER).is_file():
        shutil.rmtree(made / "store", ignore_errors=True)
        (made / _MARKER).unlink()
    with contextlib.suppress(OSError):
        made.rmdir()


def lay_out(repository: Any, config: SweepConfig) -> None:
    """Commit coordinates, empty arrays, and the manifest to an empty repository."""
    session = repository.writable_session(BRANCH)
    group = need("zarr").group(session.store)
    for name in DIMS:
        values = np.asarray(getattr(config, name))
        text = values.dtype.kind == "U"
        array = group.create_array(
            name, shape=values.shape, dtype=str if text else values.dtype, dimension_names=[name]
        )
        array[:] = values.astype(object) if text else values
        array.attrs.update({"long_name": _LABELS[name], **({} if text else {"units": "1"})})
    _add_sources(group, config)
    _add_results(group, config)
    group.attrs.update(new_manifest(config))
    session.commit("new sweep")


def _add_sources(group: Any, config: SweepConfig) -> None:
    n, every = config.n_sources, config.sources == "all"
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
    if config.joint:
        coordinates["other_source"] = (source, ["other_source"], asked)
    for name, (values, dims, label) in coordinates.items():
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=dims)
        array[:] = values
        array.attrs.update({"long_name": label, "units": "1"})


def _add_results(group: Any, config: SweepConfig) -> None:
    sources = {"mean": ["source"], "m2": ["source", "other_source"] if config.joint else ["source"]}
    pairs = "products of deviations of two sources" if config.joint else "squared deviations"
    arrays = {
        "count": ("int64", 0, "number of prompts"),
        "n_steps": ("int64", 0, "constant steps to depth t"),
        "step_error": ("float64", np.nan, "root-mean-square error of the steps in one prompt's values"),
        "mean": ("float64", np.nan, "mean over prompts"),
        "m2": ("float64", np.nan, f"sum of {pairs} from the mean over prompts"),
    }
    for name, (dtype, fill, label) in arrays.items():
        over = sources.get(name, [])
        each = [config.n_sources] * len(over)
        array = group.create_array(
            name, shape=(*config.shape, *each), chunks=(*[1] * len(DIMS), *each) if over else config.shape,
            dtype=dtype, fill_value=fill, dimension_names=[*DIMS, *over],
        )  # fmt: skip
        array.attrs.update({"long_name": label, "units": "1", **({"coordinates": "sigma_0"} if over else {})})
