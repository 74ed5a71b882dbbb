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
    atexit.register(_wait)


def _wait() -> None:
    """Wait until no thread that Python did not start is within Python, for two seconds at most."""
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end:
        started = {thread.ident for thread in threading.enumerate()}
        if sys._current_frames().keys() <= started:
            return
        time.sleep(1e-3)
