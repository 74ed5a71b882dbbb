"""Creating a store: atomically in a folder; in an object store, the next run completes what a kill left."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxkinetic.sweep.config import SweepConfig
from jaxkinetic.sweep.contents import sealed
from jaxkinetic.sweep.layout import lay_out
from jaxkinetic.sweep.location import Location, StoreError, one_line_errors, open_storage, require
from jaxkinetic.sweep.manifest import new_manifest

BRANCH = "main"
# The name that icechunk gives to the snapshot of every new repository.
_FIRST_SNAPSHOT = "1CECHNKREP0F1RSTCMT0"
_SUFFIX = ".jaxkinetic-new"
_MARKER = "being-made-by-jaxkinetic"


def create_store(location: Location, config: SweepConfig) -> None:
    """Create a store under a temporary name and rename it, so that no half-made store is ever found.

    An object store cannot rename. There a kill leaves an empty repository, which `first_commit` completes.
    """
    with one_line_errors(location, "made"):
        icechunk = require("icechunk")
        if location.folder is None:
            try:
                repository = icechunk.Repository.create(open_storage(location))
            except icechunk.IcechunkError as error:
                if "clean prefix" not in str(error):
                    raise
                raise StoreError(
                    f"The store {location} cannot be made: something else lies there, or the remains of a sweep "
                    "that was killed while it made its store. Nothing was changed; choose another prefix, or "
                    "remove what lies there yourself."
                ) from error
            first_commit(repository, config)
            return
        with _workshop(location.folder) as inside:
            repository = icechunk.Repository.create(open_storage(Location("file", "", str(inside))))
            first_commit(repository, config)
            # Fails unless there is nothing or an empty folder.
            inside.rename(os.path.realpath(location.folder))


def is_empty(repository: Any) -> bool:
    """Whether nothing was ever committed to a repository."""
    return repository.lookup_branch(BRANCH) == _FIRST_SNAPSHOT


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary folders of runs that were killed while they made this store, and nothing else."""
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
    """Path inside a new temporary folder beside a store's, in which to make the store."""
    real = Path(os.path.realpath(folder))
    made = Path(tempfile.mkdtemp(_SUFFIX, f".{real.name}.", real.parent))
    try:
        (made / _MARKER).touch()
        yield made / "store"
    finally:
        _remove(made)


def _remove(made: Path) -> None:
    """Remove a temporary folder; if it holds files of others, these and the folder stay."""
    if (made / _MARKER).is_file():
        shutil.rmtree(made / "store", ignore_errors=True)
        (made / _MARKER).unlink()
    with contextlib.suppress(OSError):
        made.rmdir()


def first_commit(repository: Any, config: SweepConfig) -> None:
    """Commit coordinates, blank results and the manifest to an empty repository."""
    session = repository.writable_session(BRANCH)
    group = lay_out(session.store, config)
    group.attrs.update(sealed(new_manifest(config), {}))
    session.commit("new sweep")
