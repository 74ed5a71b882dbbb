"""`jaxkinetic sweep`, and several processes."""

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxkinetic as jk
from tests.test_cli import no_cache_of_the_user, run

__all__ = ["no_cache_of_the_user"]

TINY = """
time = [0.5, 1]
n_tokens = 8
vocab_size = 4
sources = [0.3, 0.7]
estimator = "naive"
control_variate = false
n_prompts = 96
chunk = 32
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["CONFIG", "--store", "--dry-run", "--memory", "--distributed", "--json", "[laws.mine]"]),
        ("extend", ["--dry-run", "jaxkinetic-sweep", "--n-prompts", "--standard-error", "--process-id"]),
        ("status", ["--store", "--json"]),
        ("plot", ["--store", "--select", "--out", "--json"]),
    ],
)  # fmt: skip
def test_help_is_complete_and_does_not_wait_for_jax(command: str, options: list[str]) -> None:
    code = (
        "import sys; from jaxkinetic.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(bool({'jax', 'matplotlib', 'xarray', 'zarr', 'icechunk'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for option in options:
        assert option in done.stdout


def test_run_extend_status_and_plot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, config: Path
) -> None:
    store, out = str(tmp_path / "s"), tmp_path / "out"
    assert run(monkeypatch, "sweep", "run", str(config), "--store", store, "--json", "-") == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    found = jk.open_sweep(store)
    assert [p["values"] for p in record["points"]] == found["values"].squeeze().values.tolist()
    assert [p["n_prompts"] for p in record["points"]] == [96, 96]
    assert record["manifest"]["versions"]["jax"] == jax.__version__
    assert record["configuration"] == jk.read_config(config).record()
    assert "points      2 of 2 done, 192 prompts in all" in captured.err
    # No progress bar without a terminal.
    assert "%|" not in captured.err
    assert record["manifest"]["model"]["kernel"] == {"name": "ExpCosine", "parameters": {"beta": [1.0]}}

    assert run(monkeypatch, "sweep", "extend", "--store", store, "--n-prompts", "160", "--dry-run") == 0
    assert "prompts     128" in capsys.readouterr().out
    assert run(monkeypatch, "sweep", "extend", "--store", f"file://{store}", "--n-prompts", "160") == 0
    said = capsys.readouterr().out
    assert "points      2 of 2 done, 320 prompts in all" in said
    assert "continued   1 times, last extended" in said
    assert run(monkeypatch, "sweep", "run", str(config), "--store", store) == 2
    assert "n_prompts is 160 there, but 96 here. Nothing was changed" in capsys.readouterr().err

    assert run(monkeypatch, "sweep", "status", "--store", store, "--json", str(tmp_path / "s.json")) == 0
    assert "160 prompts at each point" in capsys.readouterr().out
    status = json.loads((tmp_path / "s.json").read_text())
    assert all(p["done"] for p in status["points"])

    assert run(monkeypatch, "sweep", "plot", "--store", store, "--select", "time=0.5", "--out", str(out)) == 0
    assert (out / "sweep.png").stat().st_size > 10_000
    # Given together or apart, selections add up.
    for several in (["--select", "time=0.5", "n_tokens=8"], ["--select", "time=0.5", "--select", "n_tokens=8"]):
        name = str(tmp_path / "few.json")
        arguments = ["sweep", "plot", "--store", store, *several, "--out", str(out), "--overwrite", "--json", name]
        assert run(monkeypatch, *arguments) == 0
        assert [p["time"] for p in json.loads(Path(name).read_text())["points"]] == [0.5]


def test_dry_run_says_what_it_takes_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, config: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = ["sweep", "run", str(config), "--store", str(tmp_path / "deep" / "s"), "--dry-run", "--json", "-"]
    assert run(monkeypatch, *arguments) == 0
    captured = capsys.readouterr()
    plan = json.loads(captured.out)
    assert (plan["n_points"], plan["n_prompts"]) == (2, 192)
    assert plan["seconds"] > 0
    for line in ("points      2, of which 2 are left", "work", "MiB on each device", "time"):
        assert line in captured.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_token = 8\n", "Key `n_token` of"),
        ('law = "codewords"\nestimator = "adjoint"\n', "`estimator` must not be 'adjoint' for CodewordPrompts"),
        ("n_tokens = 4\nsources = [0.1, 0.2]\n", "0.1 and 0.2 both name token 1 of N = 4"),
    ],
)
def test_bad_file_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, text: str, message: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(text)
    assert run(monkeypatch, "sweep", "run", str(bad), "--store", str(tmp_path / "s")) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("jaxkinetic: error: ")
    assert message in error
    assert "\n" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["bad.toml"]


def test_interrupted_it_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, config: Path
) -> None:
    """Ctrl-C before the third of six chunks, then before the third while it is extended."""
    from jaxkinetic.sweep.run import _Writer

    store, write, written = str(tmp_path / "s"), _Writer.write, []

    def interrupted(self: _Writer, *given) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(self, *given))

    for arguments, n_prompts in ((["run", str(config)], 64), (["extend", "--n-prompts", "160"], 256)):
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(_Writer, "write", interrupted)
            assert run(patch, "sweep", *arguments, "--store", store) == 130
        captured = capsys.readouterr()
        assert captured.err.startswith("jaxkinetic: interrupted")
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert int(jk.open_sweep(store)["count"].sum()) == n_prompts
        assert run(monkeypatch, "sweep", *arguments, "--store", store) == 0
        assert "points      2 of 2 done" in capsys.readouterr().out


def test_a_damaged_store_is_one_line_and_a_run_says_what_it_repaired(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, config: Path
) -> None:
    store = tmp_path / "s"
    jk.run_sweep(jk.read_config(config), store)
    last = max((store / "snapshots").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    last.write_bytes(last.read_bytes()[:100])
    for arguments in (["status"], ["plot", "--out", str(tmp_path / "out")], ["extend", "--n-prompts", "160"]):
        assert run(monkeypatch, "sweep", *arguments, "--store", str(store)) == 2
        error = capsys.readouterr().err.strip()
        assert "cannot be read: its last commit is damaged. To repair it run `jaxkinetic sweep run`" in error
        assert "\n" not in error
    assert not (tmp_path / "out").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(monkeypatch, "sweep", "run", str(config), "--store", str(store)) == 0
    printed = capsys.readouterr()
    assert "was damaged. It goes on from its newest commit that can be read" in printed.err
    assert "last repaired" in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.toml", "--store", "s"], "No such file"),
        (["run", "CONFIG", "--store", "ftp://host/s"], "must be a folder or s3://bucket/prefix"),
        (["run", "CONFIG", "--store", "s", "--memory", "0"], "`memory` must be positive and finite, but is 0"),
        (["run", "CONFIG", "--store", "s", "--memory", "-1"], "`memory` must be positive and finite, but is -1"),
        (["run", "CONFIG", "--store", "s", "--memory", "nan"], "`memory` must be positive and finite, but is nan"),
        (["extend", "--memory", "nan"], "`memory` must be positive and finite, but is nan"),
        (["status"], "must be a sweep's store, but there is none at jaxkinetic-sweep"),
        (["run", "CONFIG", "--store", "s", "--json", "no/such/file.json"], "`json` must be a file that can be"),
        (["run", "CONFIG", "--store", "s", "--coordinator", "host:1"], "must be given together"),
        (
            ["run", "CONFIG", "--store", "s", "--coordinator", "host", "--num-processes", "2", "--process-id", "0"],
            "`coordinator` must be HOST:PORT, but is host",
        ),
        (
            ["run", "CONFIG", "--store", "s", "--coordinator", "h:1", "--num-processes", "2", "--process-id", "2"],
            "`process_id` must lie in [0, 2), but is 2",
        ),
        (["extend", "--store", "s", "--n-prompts", "64"], "must be a sweep's store, but there is none at s"),
        (["status", "--store", "s"], "must be a sweep's store, but there is none at s"),
        (["plot", "--store", "s"], "must be a sweep's store, but there is none at s"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    config: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "sweep", *(str(config) if a == "CONFIG" else a for a in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("time", "`select` must be made of NAME=VALUE, but holds time"),
        ("tme=1", "Key `tme` of `select` is unknown; the nearest is `time`"),
        ("time=2", "`select` must name a value of the sweep, 0.5, 1.0, but is time=2"),
        ("time=soon", "`select` must give a number for time, but gives soon"),
        ("estimator=adjoint", "`select` must name a value of the sweep, naive, but is estimator=adjoint"),
        ("time=1", "The sweep has no prompts yet"),
    ],
)
def test_selections_that_select_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    choice: str,
    message: str,
    config,
) -> None:
    from jaxkinetic.sweep.store import open_writer

    with open_writer(tmp_path / "s", jk.read_config(config)):
        pass
    out = tmp_path / "out"
    arguments = ["sweep", "plot", "--store", str(tmp_path / "s"), "--select", choice, "--out", str(out)]
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, config: Path
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert run(monkeypatch, "sweep", "run", str(config), "--store", str(tmp_path / "s")) == 2
    assert 'error: Sweeps need zarr: pip install "jaxkinetic[sweep]"' in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def on_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code of a command, and what its standard error showed on a terminal."""
    try:
        outer, inner = os.openpty()
    except OSError as error:
        pytest.skip(f"this machine has no terminals: {error}")
    # A new terminal has no columns, and so no room for a bar.
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxkinetic.cli", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=inner,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    os.close(inner)
    shown = b""
    # Reading from a terminal that its last user has left is an error on Linux.
    with contextlib.suppress(OSError):
        while part := os.read(outer, 4096):
            shown += part
    os.close(outer)
    return process.wait(120), shown.decode()


def test_progress_shows_time_left_on_a_terminal(tmp_path: Path) -> None:
    """Also between commits: here the only one is at the end of each point."""
    (tmp_path / "one.toml").write_text(TINY.replace("chunk = 32", "chunk = 65536").replace("= 96", "= 65536"))
    code, shown = on_terminal(tmp_path, "sweep", "run", "one.toml")
    assert code == 0, shown
    assert (tmp_path / "jaxkinetic-sweep").is_dir()
    assert "point 2/2" in shown
    bars = re.findall(r"(\d+)%\|.*?\[\d\d:\d\d<(\d\d:\d\d|\?)\]", shown)
    inner = {int(percent) for percent, left in bars if left != "?"}
    assert len(inner - {0, 50, 100}) >= 3


def free_port(lowest: int = 0) -> int:
    """A port that nobody listens on; the first from ``lowest`` on."""
    for port in range(lowest, 65536):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]
    raise OSError("no port is free")


def by_flags() -> list[tuple[list[str], dict[str, str]]]:
    """Flags and environment of two processes that are told of one another."""
    address = f"127.0.0.1:{free_port()}"
    return [(["--coordinator", address, "--num-processes", "2", "--process-id", str(i)], {}) for i in (0, 1)]


def by_slurm() -> list[tuple[list[str], dict[str, str]]]:
    """Flags and environment that `srun` gives to two tasks; JAX derives the port from the job's number."""
    job = {"SLURM_JOB_ID": str(free_port(61440) - 61440), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    return [(["--distributed"], {**job, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}) for i in (0, 1)]


def two_processes(*arguments: str, started: list[tuple[list[str], dict[str, str]]], folder: Path) -> list[str]:
    """What each of two processes of one command printed."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "jaxkinetic.cli", *arguments, "--json", str(folder / f"{i}.json"), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | variables,
        )
        for i, (flags, variables) in enumerate(started)
    ]  # fmt: skip
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    return [out for out, _ in printed]


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_only_the_first_writes(tmp_path: Path, config: Path) -> None:
    arguments = ["--n-tokens", "8", "--n-prompts", "96", "--vocab-size", "4", "--sources", "0.3", "0.7"]
    kind = ["--estimator", "naive", "--no-control-variate"]
    arguments += [*kind, "--out", str(tmp_path / "out")]
    printed = two_processes("estimate", *arguments, started=by_flags(), folder=tmp_path)
    assert "S_N" in printed[0]
    assert printed[1] == ""
    assert not (tmp_path / "1.json").exists()
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    alone = jk.estimate_profile(
        model,
        1.0,
        4,
        8,
        n_prompts=96,
        key=jax.random.key(0),
        sources=[0.3, 0.7],
        estimator="naive",
        control_variate=False,
    )
    record = json.loads((tmp_path / "0.json").read_text())
    assert record["values"] == alone.values.tolist()
    assert record["standard_error"] == alone.standard_error.tolist()

    # Reading laws by name computes, which must not come before the processes have joined.
    config.write_text('law = ["uniform", "codewords"]\n' + config.read_text())
    arguments = ["sweep", "run", str(config), "--store", str(tmp_path / "both")]
    printed = two_processes(*arguments, started=by_slurm(), folder=tmp_path)
    assert "points      4 of 4 done" in printed[0]
    assert printed[1] == ""
    jk.run_sweep(jk.read_config(config), tmp_path / "one")
    both, one = jk.open_sweep(tmp_path / "both"), jk.open_sweep(tmp_path / "one")
    assert (both.attrs["processes"], one.attrs["processes"]) == (2, 1)
    for name in one.data_vars:
        np.testing.assert_array_equal(both[name].values, one[name].values)
