"""Actions of the first of several processes, whose results all of them receive."""

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def on_first(action: Callable[[], T]) -> T:
    """Run an action on the first process; its result is returned, or its error raised, on all."""
    if jax.process_count() == 1:
        return action()
    result: Any = None
    error: Exception | None = None
    if is_first():
        try:
            result = action()
        except Exception as failure:
            error = failure
    message = None if error is None else (isinstance(error, ValueError), str(error))
    result, failed = _broadcast((result, message))
    if error is not None:
        raise error
    if failed is not None:
        is_value_error, text = failed
        raise (ValueError if is_value_error else OSError)(text)
    return result


def _broadcast(item: Any) -> Any:
    """Send an item of the first process to all."""
    data = np.frombuffer(pickle.dumps(item), np.uint8) if is_first() else np.zeros(0, np.uint8)
    size = int(multihost_utils.process_allgather(np.asarray(data.size, np.int32))[0])
    padded = np.zeros(size, np.uint8)
    padded[: data.size] = data
    return pickle.loads(np.asarray(multihost_utils.process_allgather(padded))[0].tobytes())
