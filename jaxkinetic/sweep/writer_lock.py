"""One writer at a time: a locked file beside the folder of a store.

The file bears this package's mark. A file of that name without the mark is somebody else's and stays as it is.
"""

import contextlib
import errno
import importlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jaxkinetic.sweep.location import Location, StoreError

_MARK = "jaxkinetic sweep, written by process "


@contextlib.contextmanager
def only_writer(location: Location) -> Iterator[None]:
    """Be the only process that writes to a folder, until the end or the process's death; others are refused.

    Writers of object stores are told apart when they commit.

    Raises:
        StoreError: if another process writes to it, if its file system has no locks, or if a file that is no lock
            of ours has the lock's name.
    """
    if location.folder is None:
        yield
        return
    path = lock_path(location.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path, location)
    try:
        if os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{_MARK}{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if _is_at(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_path(folder: Path) -> Path:
    """The lock of a store: hidden beside the folder that links lead to, so that all its names share one."""
    real = Path(os.path.realpath(folder))
    return real.with_name(f".{real.name}.jaxkinetic-lock")


def _lock(path: Path, location: Location) -> int:
    """Descriptor of the locked file; the kernel takes the lock back when the process dies."""
    fcntl = importlib.import_module("fcntl")
    while True:
        descriptor = _open(path, location)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.pread(descriptor, 64, 0).decode(errors="replace").removeprefix(_MARK).strip()
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise StoreError(f"The store {location} cannot be locked: {error}.") from error
            raise StoreError(
                f"The store {location} is being written by another process{who and f' ({who})'}: one at a time."
            ) from error
        # Whoever held the lock may have removed the file on leaving.
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _open(path: Path, location: Location) -> int:
    """Descriptor of the lock, made if missing and refused if it is somebody else's file."""
    foreign = StoreError(
        f"The store {location} cannot be locked: {path} is no lock of a sweep. It was left as it is; move it away "
        "or choose another store."
    )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise foreign from error
        raise
    # A process killed before it wrote the mark leaves an empty file.
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not is_file or os.pread(descriptor, len(_MARK), 0) not in (b"", _MARK.encode()):
        os.close(descriptor)
        raise foreign
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
