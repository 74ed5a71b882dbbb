"""What every command shares: where its results go, and what is checked before anything is computed."""

import dataclasses
import functools
import inspect
import json as json_module
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

import jaxkinetic
from jaxkinetic._bounds import check_sensible
from jaxkinetic.cli.common import configure, option
from jaxkinetic.cli.output import emit, plain

OutFolder = Annotated[Path, tyro.conf.arg(metavar="DIR", help="Folder for results; made if missing.")]
JsonFile = Annotated[str | None, option("FILE", "Also write the numbers as JSON; - for standard output.")]
# Options that leave the numbers as they are: a run with others is the same run.
_NOT_SETTINGS = ("hosts", "npz", "progress")


@dataclasses.dataclass(frozen=True)
class Output:
    """Where results go; COMMAND-run.json there records the settings."""

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
        signature, name = inspect.signature(function), function.__name__
        hidden = inspect.Parameter(
            "output", inspect.Parameter.KEYWORD_ONLY, default=Output(),
            annotation=Annotated[Output, tyro.conf.OmitArgPrefixes],
        )  # fmt: skip

        @functools.wraps(function)
        def run(*given: Any, output: Output, **options: Any) -> None:
            bound = signature.bind(*given, **options)
            bound.apply_defaults()
            settings = _flat(bound.arguments)
            check_sensible(**settings)
            check_folder(output.out)
            check_json(output.json, output.out)
            if bound.arguments.get("npz") is not None:
                check_file("npz", bound.arguments["npz"], output.out)
            if not output.overwrite:
                _check_same_run(output.out, name, names, plain(settings))
            configure()
            results = function(**bound.arguments)
            # Of several processes only the first has results to write.
            if results is not None:
                run_record = {"command": name, "version": jaxkinetic.__version__, "settings": settings}
                files = {f"{name}-run.json": run_record} | dict(results.files)
                emit(results.text, results.record, output.json, {output.out / k: v for k, v in files.items()})

        # Where this is left, tyro reads the options of the inner function.
        del run.__wrapped__
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), hidden])  # pyright: ignore
        run.__annotations__ = function.__annotations__ | {"output": hidden.annotation}
        return run

    return decorate


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, those of groups among them, without the ones that leave the numbers as they are."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _NOT_SETTINGS:
            flat |= vars(value) if dataclasses.is_dataclass(value) else {name: value}
    return flat


def _check_same_run(out: Path, name: str, names: tuple[str, ...], settings: Any) -> None:
    """Raise if the folder holds files that this command would write, but from a run with other settings."""
    found = next((out / each for each in names if (out / each).exists()), None)
    if found is None:
        return
    try:
        earlier = json_module.loads((out / f"{name}-run.json").read_text(encoding="utf-8"))["settings"]
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
