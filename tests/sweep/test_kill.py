"""A sweep that is killed and resumed holds what an undisturbed one holds, to the last bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxkinetic.sweep import open_sweep
from tests.sweep.sweeps import KILLED

ROOT = Path(__file__).parents[2]
N_KILLS = 25
SECONDS = 0.25


class Runs:
    """Runs of the sweep, one after the other, each in a process of its own."""

    def __init__(self, *arguments: str):
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.fork_program", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def start(self, store: Path) -> int:
        """Number of a new process."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{store}\n")
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


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_as_if_undisturbed(tmp_path: Path):
    """Five times from its start, while it makes the store and compiles, then some commits after its first one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    draw, done = np.random.default_rng(7), []
    with Runs() as runs:
        runs.start(whole)
        assert runs.end() == 0
        for kill in range(N_KILLS):
            process, before = runs.start(killed), tip(killed)
            begin = time.monotonic()
            while kill >= 5 and tip(killed) in ("", before) and time.monotonic() < begin + 60:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, SECONDS))
            os.kill(process, signal.SIGKILL)
            assert runs.end() == -signal.SIGKILL
            done.append(prompts(killed))
        assert np.all(np.diff(done) >= 0)
        assert len(set(done)) > 15
        assert done[-1] < 2 * KILLED.n_prompts  # pyright: ignore[reportOperatorIssue]
        runs.start(killed)
        assert runs.end() == 0
    found, exact = open_sweep(killed), open_sweep(whole)
    assert np.all(exact["count"] == KILLED.n_prompts)
    for name in exact.data_vars:
        np.testing.assert_array_equal(found[name].values, exact[name].values)
    attrs = [{k: v for k, v in data.attrs.items() if k != "created"} for data in (found, exact)]
    assert attrs[0] == attrs[1]
    # Neither lock nor half a store is left beside.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "whole"]
