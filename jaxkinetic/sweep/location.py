"""Where a store is, and one-line messages of its failures."""

import contextlib
import dataclasses
import importlib
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxkinetic._types import check_path
from jaxkinetic.sweep.at_exit import wait_at_exit

_SCHEMES = ("s3", "gs")


class StoreError(OSError):
    """A store cannot be read or written, or another process writes to it."""


@dataclasses.dataclass(frozen=True)
class Location:
    """A local folder, or a prefix in a bucket of an object store.

    Attributes:
        scheme: "file", "s3" or "gs".
        bucket: the bucket; empty for a folder.
        prefix: path in the bucket, or the folder.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return self.prefix if self.scheme == "file" else f"{self.scheme}://{self.bucket}/{self.prefix}"

    @property
    def folder(self) -> Path | None:
        """The folder; None for an object store."""
        return Path(self.prefix) if self.scheme == "file" else None


def parse_location(store: str | Path) -> Location:
    """Parse a folder, or a URL such as file:///folder, s3://bucket/prefix or gs://bucket/prefix.

    Raises:
        ValueError: on other schemes, URLs without bucket or prefix, and folders of other hosts.
    """
    check_path("store", store)
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/*(.*?)/*", str(store), re.S)
    if match is None:
        if not Path(store).absolute().name:
            raise ValueError(f"Argument `store` must be a folder within another, but is {store}.")
        return Location("file", "", str(store))
    scheme, bucket, prefix = match.groups()
    if scheme == "file":
        if bucket not in ("", "localhost") or not prefix:
            raise ValueError(f"Argument `store` must be a folder of this host, as file:///folder, but is {store}.")
        return Location("file", "", "/" + urllib.parse.unquote(prefix))
    if scheme not in _SCHEMES:
        known = " or ".join(f"{s}://bucket/prefix" for s in _SCHEMES)
        raise ValueError(f"Argument `store` must be a folder or {known}, but is {store}.")
    if not bucket or not prefix:
        raise ValueError(f"Argument `store` must name a bucket and a prefix, but is {store}.")
    return Location(scheme, bucket, prefix)


def open_storage(location: Location) -> Any:
    """The storage for icechunk; keys, region and endpoint of an object store come from the environment."""
    icechunk = require("icechunk")
    wait_at_exit()
    # It logs to standard output: what it raises anyway, and that folders do not exclude other writers, as locks do.
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("off")
    if location.scheme == "gs":
        return icechunk.gcs_storage(bucket=location.bucket, prefix=location.prefix, from_env=True)
    if location.scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=location.bucket,
            prefix=location.prefix,
            from_env=True,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            force_path_style=endpoint is not None,
        )
    return icechunk.local_filesystem_storage(location.prefix)


@contextlib.contextmanager
def one_line_errors(location: Location, what: str) -> Iterator[None]:
    """Turn failures of a store into `StoreError` with one line, "cannot be ``what``"."""
    icechunk = require("icechunk")
    zarr_error = importlib.import_module("zarr.errors").BaseZarrError
    failures = (icechunk.IcechunkError, zarr_error, OSError, RuntimeError)
    try:
        yield
    except StoreError:
        raise
    except icechunk.ConflictError as error:
        raise conflict(location) from error
    except failures as error:
        # Unknown if the store cannot be read; untrue if there is none.
        missing = location.folder is not None and not location.folder.exists()
        safe = "" if what in ("read", "made") or missing else " Its finished chunks are safe."
        raise StoreError(f"The store {location} cannot be {what}: {_cause(error)}.{safe}") from error


def conflict(location: Location) -> StoreError:
    """The error of a writer whose store has a commit of another one."""
    return StoreError(
        f"The store {location} has been written by another process since this one opened it. Its finished chunks "
        "are safe; run again when the other process has ended."
    )


def _cause(error: BaseException) -> str:
    """The innermost cause in a report of icechunk, as one line."""
    lines = [re.sub(r"^[\s|x`>-]*", "", line) for line in str(error).splitlines()]
    lines = [
        line for line in lines if line and not line.startswith(("context:", "at ", "with ")) and "::" not in line
    ]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


def require(module: str) -> ModuleType:
    """Import a module of the extra `sweep`.

    Raises:
        ImportError: if it is not installed; it gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'Sweeps need {module}: pip install "jaxkinetic[sweep]"') from error
