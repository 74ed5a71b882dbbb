"""A sweep that is killed and resumed holds what an undisturbed one holds, to the last bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxkinetic.sweep import open_sweep
from jaxkinetic.sweep.manifest import sessions
from tests.sweep.sweeps import KILLED

ROOT = Path(__file__).parents[2]
LONGER = 2560
COMMAND = """
time = [0.5, 1]
n_tokens = 8
vocab_size = 4
sources = [0.3, 0.7]
estimator = "naive"
control_variate = false
n_prompts = 1920
chunk = 32
"""


class Runs:
    """Runs of the sweep, one after the other, each in a process of its own."""

    def __init__(self, cache: Path):
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.fork_program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=ROOT, env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def start(self, store: Path, n_prompts: int | None = None) -> int:
        """Number of a new process, which runs the sweep or extends it."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{store}\t{n_prompts or ''}\n")
        self._server.stdin.flush()
        return int(self._read())

    def end(self) -> int:
        """Exit code of that process, once it has ended."""
        return int(self._read())

    def _read(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


def tip(store: Path) -> str:
    reference = store / "refs" / "branch.main" / "ref.json"
    return reference.read_text() if reference.exists() else ""


def prompts(store: Path) -> int:
    return int(open_sweep(store)["count"].sum()) if store.exists() else 0


def wait_for_commits(store: Path, n_commits: int, alive: Callable[[], bool] = lambda: True) -> None:
    """Until a store has so many more commits than now."""
    seen, begin = tip(store), time.monotonic()
    while n_commits and alive() and time.monotonic() < begin + 120:
        now = tip(store)
        n_commits -= now != seen
        seen = now
        time.sleep(0.0005)


def assert_same(killed: Path, whole: Path) -> None:
    """All numbers, and all of the manifest but when and by how many runs it was made."""
    found, exact = open_sweep(killed), open_sweep(whole)
    for name in exact.data_vars:
        np.testing.assert_array_equal(found[name].values, exact[name].values)
    changing = ("created", "sessions")
    attrs = [{k: v for k, v in data.attrs.items() if k not in changing} for data in (found, exact)]
    assert attrs[0] == attrs[1]


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_as_if_undisturbed(tmp_path: Path):
    """25 times: while the store is made, while programs compile, and from commit to commit; then while extended."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    draw, done = np.random.default_rng(7), []
    with Runs(tmp_path / "cache") as runs:
        runs.start(whole)
        assert runs.end() == 0

        def kill(goal: int | None, n_commits: int, seconds: float) -> None:
            process = runs.start(killed, goal)
            wait_for_commits(killed, n_commits)
            time.sleep(draw.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
            assert runs.end() == -signal.SIGKILL
            done.append(prompts(killed))

        for i in range(16):
            kill(None, 0 if i < 5 else int(draw.integers(1, 7)), 0.5 if i < 5 else 0.03)
        assert done[-1] < 2 * KILLED.n_prompts  # pyright: ignore[reportOperatorIssue]
        runs.start(killed)
        assert runs.end() == 0
        assert_same(killed, whole)
        for i in range(9):
            kill(LONGER, 0 if i < 2 else int(draw.integers(1, 5)), 0.5 if i < 2 else 0.03)
        assert done[-1] < 2 * LONGER
        assert np.all(np.diff(done) >= 0)
        assert len(set(done)) > 15
        runs.start(killed, LONGER)
        assert runs.end() == 0
        runs.start(whole, LONGER)
        assert runs.end() == 0
    assert len(done) == 25
    assert_same(killed, whole)
    history = sessions(open_sweep(killed).attrs)
    assert history[0]["event"] == "made"
    assert {"resumed", "extended"} <= {run["event"] for run in history}
    # A run that was killed before its first commit has left no trace, and nothing is left beside.
    assert len(history) <= len(done) + 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "killed", "whole"]


@pytest.mark.slow
def test_the_killed_command_goes_on_when_given_again(tmp_path: Path):
    (tmp_path / "sweep.toml").write_text(COMMAND)
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}

    def command(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxkinetic.cli", "sweep", *arguments], cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    store = tmp_path / "jaxkinetic-sweep"
    for goal in ([], ["--n-prompts", str(LONGER)]):
        arguments = ["extend", *goal] if goal else ["run", "sweep.toml"]
        victim = command(*arguments)
        wait_for_commits(store, 4, lambda victim=victim: victim.poll() is None)
        victim.kill()
        _, error = victim.communicate()
        assert victim.returncode == -signal.SIGKILL, error
        n_done = prompts(store)
        again = command(*arguments)
        _, error = again.communicate(timeout=300)
        assert again.returncode == 0, error
        assert n_done < prompts(store) == 2 * (LONGER if goal else 1920)
    events = [run["event"] for run in sessions(open_sweep(store).attrs)]
    assert events == ["made", "resumed", "extended", "resumed"]
