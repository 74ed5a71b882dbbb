"""A process that has used a store ends with its own exit code."""

import _thread
import os
import subprocess
import sys
import time

import pytest

from jaxkinetic.sweep import at_exit

LINUX = hasattr(os, "sched_setaffinity")


def test_waits_for_threads_that_python_did_not_start():
    others, done = at_exit._foreign(), []
    _thread.start_new_thread(lambda: (time.sleep(0.1), done.append(True)), ())
    time.sleep(0.01)
    at_exit._wait(others)
    assert done


def test_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(at_exit, "_LONGEST", 0.05)
    others, held = at_exit._foreign(), _thread.allocate_lock()
    held.acquire()
    _thread.start_new_thread(lambda: held.acquire(), ())
    time.sleep(0.01)
    start = time.monotonic()
    at_exit._wait(others)
    assert 0.05 <= time.monotonic() - start < 1
    held.release()


def test_does_not_wait_without_reason():
    """As for threads of somebody else, which were there before: test runners have some."""
    held = _thread.allocate_lock()
    held.acquire()
    _thread.start_new_thread(lambda: held.acquire(), ())
    time.sleep(0.01)
    others = at_exit._foreign()
    assert others
    start = time.monotonic()
    at_exit._wait(others)
    assert time.monotonic() - start < 0.05
    held.release()


@pytest.mark.slow
def test_exit_code_is_that_of_the_command(tmp_path):
    """Every second one of these was aborted on one core, which is what `_wait` is for."""
    config, store = tmp_path / "sweep.toml", tmp_path / "store"
    text = "n_tokens = 16\nvocab_size = 4\nsources = [0.3]\nn_prompts = 32\nbeta = {}\n"

    def run(beta):
        config.write_text(text.format(beta))
        pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " if LINUX else ""
        program = pinned + "from jaxkinetic.cli import main; main()"
        command = [sys.executable, "-c", program, "sweep", "run", str(config), "--store", str(store)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    assert [run(1.0)] + [run(2.0) for _ in range(8)] == [0] + [2] * 8
