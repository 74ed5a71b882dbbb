"""Making a store: whole in one step in a folder, and made whole on the next run in an object store."""

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
from jaxkinetic.sweep.location import Location, StoreError, need, open_storage, told
from jaxkinetic.sweep.manifest import new_manifest

BRANCH = "main"
# The name that icechunk gives to the snapshot of every new repository.
_FIRST_SNAPSHOT = "1CECHNKREP0F1RSTCMT0"
_SUFFIX = ".jaxkinetic-new"
_MARKER = "being-made-by-jaxkinetic"


def create_store(location: Location, config: SweepConfig) -> None:
    """Make a store in a folder beside it, which is then renamed, so that half a store is never found.

    An object store cannot rename: there a kill leaves an empty repository, which `first_commit` completes.
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
            first_commit(repository, config)
            return
        with _workshop(location.folder) as inside:
            repository = icechunk.Repository.create(open_storage(Location("file", "", str(inside))))
            first_commit(repository, config)
            # Fails on anything but an empty folder.
            inside.rename(os.path.realpath(location.folder))


def is_empty(repository: Any) -> bool:
    """Whether nothing was ever committed to a repository."""
    return repository.lookup_branch(BRANCH) == _FIRST_SNAPSHOT


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


def first_commit(repository: Any, config: SweepConfig) -> None:
    """Commit coordinates, blank results and the manifest to an empty repository."""
    session = repository.writable_session(BRANCH)
    group = lay_out(session.store, config)
    group.attrs.update(sealed(new_manifest(config), {}))
    session.commit("new sweep")
