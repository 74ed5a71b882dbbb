"""One writer at a time, by a locked file beside the folder of a store.

The file begins with a mark of this package. A file of that name without the mark belongs to somebody else and is
left alone.
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
    """Hold the lock of a folder; the kernel releases it if the process dies.

    Object stores have no lock: a second writer fails when it commits.

    Raises:
        StoreError: if another process holds the lock, if the file system has no locks, or if somebody else's file
            has the lock's name.
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
    """Path of the lock: hidden, beside the folder that links resolve to, so that all names of a store share it."""
    real = Path(os.path.realpath(folder))
    return real.with_name(f".{real.name}.jaxkinetic-lock")


def _lock(path: Path, location: Location) -> int:
    """Descriptor of the locked file."""
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
                f"The store {location} is being written by another process{who and f' ({who})'}."
            ) from error
        # The last holder may have removed the file after it was opened here.
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _open(path: Path, location: Location) -> int:
    """Descriptor of the lock, which is created if missing.

    Raises:
        StoreError: if it is somebody else's file.
    """
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
    # A process that is killed before it writes the mark leaves an empty file.
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not is_file or os.pread(descriptor, len(_MARK), 0) not in (b"", _MARK.encode()):
        os.close(descriptor)
        raise foreign
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
