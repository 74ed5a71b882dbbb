"""What every command does with its results: files first, each whole or not at all, then text for the terminal."""

import dataclasses
import functools
import inspect
import io
import json as json_module
import math
import os
import select
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

import jaxkinetic
from jaxkinetic._bounds import check_sensible
from jaxkinetic.cli.common import configure, option

OutFolder = Annotated[Path, tyro.conf.arg(metavar="DIR", help="Folder for results; made if missing.")]
JsonFile = Annotated[str | None, option("FILE", "Also write the numbers as JSON; - for standard output.")]
# Choices that do not change the numbers: a run with others is the same run.
_NOT_SETTINGS = ("hosts", "npz", "progress")


@dataclasses.dataclass(frozen=True)
class Output:
    """Where results go."""

    out: OutFolder = Path("jaxkinetic-results")
    json: JsonFile = None
    overwrite: Annotated[
        bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Replace the results of another run in that folder.")
    ] = False


@dataclasses.dataclass(frozen=True)
class Results:
    """What a command found.

    Attributes:
        text: for people, on standard output.
        record: for machines, in the JSON; NumPy and JAX arrays and dataclasses are converted.
        files: what to write under each path; relative paths lie in the results folder. Strings are text, a mapping
            becomes JSON, a function draws a figure (.png) or writes into a binary file.
    """

    text: str
    record: Mapping[str, Any]
    files: Mapping[Any, Any]


def command(*names: str) -> Callable[[Callable[..., Results | None]], Callable[..., None]]:
    """Turn a function that returns `Results` into a command, with the options of `Output`.

    Whether the files can be written is checked before anything is computed.

    Args:
        names: files that the command writes into its folder; those of another run are not replaced unasked.
    """

    def decorate(function: Callable[..., Results | None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        hidden = inspect.Parameter(
            "output", inspect.Parameter.KEYWORD_ONLY, default=Output(),
            annotation=Annotated[Output, tyro.conf.OmitArgPrefixes],
        )  # fmt: skip

        @functools.wraps(function)
        def run(*given: Any, output: Output, **options: Any) -> None:
            bound = signature.bind(*given, **options)
            bound.apply_defaults()
            settings = bound.arguments
            _check_sensible(settings)
            record = plain({k: v for k, v in settings.items() if k not in _NOT_SETTINGS})
            check_folder(output.out)
            check_json(output.json, output.out)
            if settings.get("npz") is not None:
                check_file("npz", settings["npz"], output.out)
            if not output.overwrite:
                _check_same_run(output.out, function.__name__, names, record)
            configure()
            results = function(**settings)
            # Of several processes only the first has results to write.
            if results is not None:
                run_record = {"command": function.__name__, "version": jaxkinetic.__version__, "settings": record}
                files = {_run_file(function.__name__): run_record} | dict(results.files)
                emit(results.text, results.record, output.json, {output.out / k: v for k, v in files.items()})

        # Where this is left, tyro reads the options of the inner function.
        del run.__wrapped__
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), hidden])  # pyright: ignore
        run.__annotations__ = function.__annotations__ | {"output": hidden.annotation}
        return run

    return decorate


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


def _check_sensible(settings: Mapping[str, Any]) -> None:
    """Check every option, also those within groups, before JAX is imported."""
    for name, value in settings.items():
        if dataclasses.is_dataclass(value):
            _check_sensible(vars(value))
        else:
            check_sensible(**{name: value})


def _run_file(name: str) -> str:
    return f"{name}-run.json"


def _check_same_run(out: Path, name: str, names: tuple[str, ...], settings: Any) -> None:
    """Raise if the folder holds files that this command would write, but from a run with other settings."""
    found = next((out / each for each in names if (out / each).exists()), None)
    if found is None:
        return
    try:
        earlier = json_module.loads((out / _run_file(name)).read_text(encoding="utf-8"))["settings"]
        other = ", ".join(f"{k} = {json_module.dumps(v)}" for k, v in earlier.items() if v != settings[k])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        other = "no record of its settings"
    if other:
        raise ValueError(
            f"Argument `out` must be a folder without results of another run, but {found} is of one with {other}: "
            "choose another `--out`, or pass `--overwrite`."
        )


def check_folder(path: Path) -> None:
    """Raise unless a folder exists or can be made, and can be written; nothing is made yet."""
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not writable" if nearest.is_dir() else "is not a folder"
        raise ValueError(f"Argument `out` must be a folder that can be written, but is {path}: {nearest} {why}.")


def check_file(name: str, path: Path, out: Path = Path()) -> None:
    """Raise unless a file can be written; the folder ``out`` will have been made by then."""
    folder = path.parent
    writable = folder.is_dir() and os.access(path if path.exists() else folder, os.W_OK)
    writable = writable or folder.absolute() == out.absolute()
    if path.is_dir() or not writable:
        raise ValueError(f"Argument `{name}` must be a file that can be written, but is {path}.")


def check_json(json: str | None, out: Path = Path()) -> None:
    """Raise unless the JSON file can be written."""
    if json not in (None, "-"):
        check_file("json", Path(json), out)


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
