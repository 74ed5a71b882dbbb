"""Leaving an interpreter in which icechunk has run.

Its runtime hands results over from threads of its own, which let go of the interpreter on the way and come back a
moment later. Where that is after the interpreter began to end the whole process is aborted, whatever its exit code
was to be: https://github.com/PyO3/pyo3-async-runtimes/issues/40
"""

import atexit
import functools
import sys
import threading
import time

_LONGEST = 2.0


@functools.cache
def wait_at_exit() -> None:
    """Have the interpreter wait for such threads before it ends; called again, do nothing."""
    atexit.register(_wait, _foreign())


def _foreign() -> set[int]:
    """Threads within Python that its module `threading` does not know."""
    return sys._current_frames().keys() - {thread.ident for thread in threading.enumerate()}


def _wait(others: set[int]) -> None:
    """Wait until no foreign thread but ``others`` is within Python, for two seconds at most."""
    end = time.monotonic() + _LONGEST
    while _foreign() - others and time.monotonic() < end:
        time.sleep(1e-3)
