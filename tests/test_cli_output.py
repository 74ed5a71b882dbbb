"""What every command does with its results: files, text, JSON, and what may go wrong with them."""

import contextlib
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.cli.command import Output, Results, command
from jaxkinetic.cli.output import emit, write
from tests.test_cli import CURVE, no_cache_of_the_user, run

__all__ = ["no_cache_of_the_user"]

ESCAPE = "\x1b[31mred"


@command("toy.txt")
def toy(size: int = 3, npz: Path | None = None) -> Results:
    """Write a table and an array."""
    files: dict[Any, Any] = {"toy.txt": f"size {size}"}
    if npz is not None:
        files[npz.absolute()] = lambda file: np.savez(file, size=size)
    return Results("found", {"size": size, "bad": np.array([1.0, np.nan]), "curve": jnp.arange(2)}, files)


@contextlib.contextmanager
def files_may_not_grow() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def in_a_process(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, stderr=subprocess.PIPE, text=True, **options
    )


# Files ------------------------------------------------------------------------------------------------


def test_every_file_is_named_and_json_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, extra = tmp_path / "out", tmp_path / "numbers.json"
    toy(npz=out / "toy.npz", output=Output(out, str(extra)))
    said = capsys.readouterr().out
    written = [*out.iterdir(), extra]
    assert {p.name for p in written} == {"toy.txt", "toy.npz", "toy-run.json", "numbers.json"}
    assert sorted(said.splitlines()) == sorted(["found", *(f"wrote {path}" for path in written)])
    assert json.loads(extra.read_text(), parse_constant=pytest.fail) == {
        "size": 3, "bad": [1.0, None], "curve": [0, 1],
    }  # fmt: skip
    assert json.loads((out / "toy-run.json").read_text()) == {
        "command": "toy", "version": jk.__version__, "settings": {"size": 3},
    }  # fmt: skip


def test_a_full_disk_is_an_error_with_the_file_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    write(path, b"before")
    with files_may_not_grow(), pytest.raises(OSError, match=r"fit.json could not be written: File too large\."):
        write(path, bytes(1000))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_device_is_an_error_and_stays_a_device(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^/dev/full could not be written: No space left"):
        toy(output=Output(tmp_path, "/dev/full"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    with open("/dev/full", "w") as full:
        done = in_a_process("from jaxkinetic.cli import main; main()", "--version", stdout=full)
    assert done.returncode == 2
    assert done.stderr == "jaxkinetic: error: Standard output could not be written: No space left on device.\n"


def test_what_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        emit("", {}, str(tmp_path / "a.json"), {tmp_path / "a.txt": "text", tmp_path / "a.png": fails})
    assert list(tmp_path.iterdir()) == []


def test_links_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", b"text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"text"
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"through")
    reader.join()
    assert read == [b"through"]
    assert pipe.is_fifo()


# Folders of other runs --------------------------------------------------------------------------------


def test_the_same_run_replaces_its_files_and_another_is_refused(tmp_path: Path) -> None:
    toy(output=Output(tmp_path))
    toy(output=Output(tmp_path))
    with pytest.raises(
        ValueError, match=r"toy.txt is of one with size = 3: choose another `--out`, or pass `--over"
    ):
        toy(size=4, output=Output(tmp_path))
    assert (tmp_path / "toy.txt").read_text() == "size 3\n"
    toy(size=4, output=Output(tmp_path, overwrite=True))
    assert (tmp_path / "toy.txt").read_text() == "size 4\n"
    toy(size=4, output=Output(tmp_path))


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"settings": 1}', '{"settings": {"other": 1}}'])
def test_files_of_nobody_are_refused(tmp_path: Path, record: str | None) -> None:
    (tmp_path / "toy.txt").write_text("mine")
    if record is not None:
        (tmp_path / "toy-run.json").write_text(record)
    with pytest.raises(ValueError, match="is of one with no record of its settings"):
        toy(output=Output(tmp_path))
    assert (tmp_path / "toy.txt").read_text() == "mine"


# Standard output --------------------------------------------------------------------------------------


def test_a_reader_who_leaves_gets_every_file_and_no_error(tmp_path: Path) -> None:
    """As `jaxkinetic profile | head -1`: here the reader has left before anything is printed."""
    code = (
        "import sys; from pathlib import Path\n"
        "from jaxkinetic.cli.command import Output, Results, command\n"
        "@command('toy.txt')\n"
        "def toy() -> Results: return Results('found', {'size': 3}, {'toy.txt': 'size 3'})\n"
        "toy(output=Output(Path(sys.argv[1]), sys.argv[2]))"
    )
    for json_file, files in ((tmp_path / "a.json", 3), ("-", 2)):
        reading, writing = os.pipe()
        os.close(reading)
        out = tmp_path / str(files)
        done = in_a_process(code, str(out), str(json_file), stdout=writing)
        os.close(writing)
        assert done.returncode == 0
        # Text for people goes to standard error where standard output is for the JSON.
        assert done.stderr == ("" if files == 3 else f"found\nwrote {out}/toy-run.json\nwrote {out}/toy.txt\n")
        assert len([*out.iterdir(), *tmp_path.glob("a.json")]) == 3
    assert json.loads((tmp_path / "a.json").read_text()) == {"size": 3}


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_a_reader_who_leaves_help_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    # Output that no buffer holds back fails at once, other output at the end.
    for flags in ({}, {"PYTHONUNBUFFERED": "1"}):
        done = in_a_process(
            "from jaxkinetic.cli import main; main()", *arguments, stdout=writing, env=os.environ | flags
        )
        assert (done.returncode, done.stderr) == (0, "")
    os.close(writing)


def test_ascii_terminals_show_what_they_can(tmp_path: Path) -> None:
    """Files are UTF-8 whatever the terminal takes."""
    code = (
        "import sys; from pathlib import Path\n"
        "from jaxkinetic.cli import main; from jaxkinetic.cli.output import emit\n"
        "try: main()\nexcept SystemExit: pass\n"
        "emit('Mod\\u00e8le \\u03b2', {}, None, {Path(sys.argv[-1]): '\\u03b2'})"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = tmp_path / "a.txt"
    done = in_a_process(
        code, "fit", "--help", str(path), stdout=subprocess.PIPE, env=os.environ | ascii_only
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "--beta-range" in done.stdout
    assert done.stdout.endswith(f"Mod\\xe8le \\u03b2\nwrote {path}\n")
    assert path.read_text(encoding="utf-8") == "\u03b2\n"


@pytest.mark.parametrize(
    ("name", "text", "arguments"),
    [
        (f"{ESCAPE}.csv", "", ["fit", "--csv"]),
        ("a.csv", CURVE.replace("62", ESCAPE), ["fit", "--csv"]),
        ("a.csv", CURVE.replace("accuracy", ESCAPE), ["posterior", "--csv"]),
        ("a.csv", f"sigma,accuracy,model\n0.2,0.5,{ESCAPE}\n", ["fit", "--csv"]),
        ("a.csv", f"position,value\n0.1,{ESCAPE}\n", ["design", "--target"]),
        ("a.toml", f'"{ESCAPE!a}" = 1'.replace("'", "").replace("\\x", "\\u00"), ["limit", "--config"]),
        ("a.toml", f'law = "{ESCAPE!a}"'.replace("'", "").replace("\\x", "\\u00"), ["estimate", "--config"]),
        (ESCAPE, None, ["fit", "--model"]),
        (f"{ESCAPE}\nline", None, ["profile", "--json", "a/b", "--out"]),
    ],
)
def test_escape_characters_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    name: str,
    text: str | None,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text)
    assert run(monkeypatch, *arguments, name) == 2
    said = capsys.readouterr()
    assert said.err.startswith("jaxkinetic: error: ")
    assert said.err.count("\n") == 1
    assert "\x1b" not in said.out + said.err


def test_names_in_tables_and_files_show_what_a_terminal_would_obey(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    emit(f"{ESCAPE}, caf\u00e9, \u202e, \x9b31m\nline", {}, None, {tmp_path / "a.txt": ESCAPE})
    assert capsys.readouterr().out.splitlines()[:2] == ["\\x1b[31mred, caf\u00e9, \\u202e, \\x9b31m", "line"]
    assert (tmp_path / "a.txt").read_text() == "\\x1b[31mred\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("Finished chunks are safe."), 130, "interrupted. Finished chunks are safe."),
        (MemoryError("Unable to allocate 7 TiB"), 2, "error: There is not enough memory: Unable to allocate 7 TiB"),
        (OSError("a\nb"), 2, "error: a b"),
    ],
)
def test_what_ends_a_command_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: BaseException, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys.modules["jaxkinetic.cli.command"], "configure", fail)
    assert run(monkeypatch, "profile") == code
    assert capsys.readouterr().err == f"jaxkinetic: {line}\n"


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def warn() -> None:
        warnings.simplefilter("always")
        warnings.warn(f"{ESCAPE}\nline", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["jaxkinetic.cli.command"], "configure", warn)
    assert run(monkeypatch, "profile") == 130
    assert capsys.readouterr().err.splitlines()[0] == "jaxkinetic: warning: \\x1b[31mred line"
