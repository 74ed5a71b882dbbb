"""A clean exit of an interpreter in which icechunk has run.

icechunk hands results over from threads of its own, which release the interpreter and take it again a moment later.
If the interpreter has begun to shut down by then, the process is aborted, whatever its exit code was to be:
https://github.com/PyO3/pyo3-async-runtimes/issues/40
"""

import atexit
import functools
import sys
import threading
import time

_LONGEST = 2.0


@functools.cache
def wait_at_exit() -> None:
    """Make the interpreter wait for such threads before it shuts down; further calls do nothing."""
    atexit.register(_wait, _foreign())


def _foreign() -> set[int]:
    """Threads that run Python code but were not started by `threading`."""
    return sys._current_frames().keys() - {thread.ident for thread in threading.enumerate()}


def _wait(others: set[int]) -> None:
    """Wait, for two seconds at most, until no foreign threads but ``others`` run Python code."""
    end = time.monotonic() + _LONGEST
    while _foreign() - others and time.monotonic() < end:
        time.sleep(1e-3)
