"""How results leave a command: files first, each whole or not at all, then text for the terminal."""

import dataclasses
import io
import json as json_module
import math
import os
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def emit(text: str, record: Mapping[str, Any], json: str | None, files: Mapping[Path, Any] | None = None) -> None:
    """Write files and JSON, then print the text and the names of the files.

    In this order, so that a reader who closes the pipe early (`| head -1`) loses no file.
    """
    files = dict(files or {}) | ({} if json in (None, "-") else {Path(json): record})
    # Everything is drawn before anything is written: what fails leaves no file.
    contents = {path: _encode(path, content) for path, content in files.items()}
    for path, data in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    # Standard output belongs to the JSON where that was asked for.
    stream = sys.stderr if json == "-" else sys.stdout
    show("\n".join([*([text] if text else []), *(f"wrote {path}" for path in files)]), stream)
    if json == "-":
        show(dump(record), sys.stdout)


def _encode(path: Path, content: Any) -> bytes:
    if isinstance(content, str):
        return f"{printable(content)}\n".encode()
    if isinstance(content, Mapping):
        return f"{dump(content)}\n".encode()
    file = io.BytesIO()
    if path.suffix == ".png":
        import matplotlib.pyplot as plt

        figure = content()
        figure.savefig(file, dpi=160, format="png")
        plt.close(figure)
    else:
        content(file)
    return file.getvalue()


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: under another name beside it, then renamed.

    Raises:
        OSError: if that fails, as on a full disk; the message names the file, and what was there before stays.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            # A pipe or a device has to stay what it is.
            target.write_bytes(data)
            return
        part = target.with_name(f".jaxkinetic-{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"{path} could not be written: {error.strerror or error}.") from error


def show(text: str, stream: Any) -> None:
    """Print lines for people, now; a reader who has closed the pipe has seen enough.

    Raises:
        OSError: if they cannot be written for another reason, as on a full disk.
    """
    try:
        print(printable(text), file=stream, end="\n" if text else "", flush=True)
    except OSError as error:
        # Python flushes once more at its end: that must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(f"Standard output could not be written: {error.strerror}.") from error


def reader_has_left(stream: Any) -> bool:
    """Whether nobody reads a pipe any more."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(0))


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing: names come from files."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def dump(record: Any) -> str:
    """JSON of a record; what is not finite becomes null."""
    return json_module.dumps(plain(record), indent=2)


def plain(x: Any) -> Any:
    """Dictionaries, lists, numbers and strings from dataclasses, arrays and paths."""
    if dataclasses.is_dataclass(x):
        x = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    x = x.tolist() if hasattr(x, "tolist") else x
    if isinstance(x, Mapping):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    if isinstance(x, Path):
        return str(x)
    return None if isinstance(x, float) and not math.isfinite(x) else x
