"""Results as JSON and back: numbers, arrays, and the package's own dataclasses. Data alone is stored, no code.

An object of class C is {"class": "module:C", "fields": {...}}; an array {"array": [...]} with its dtype and shape,
the numbers in one row; a tuple {"tuple": [...]}; a dictionary {"dict": {...}}. Numbers keep all their digits;
those that JSON lacks are {"float": "nan"}.
"""

import dataclasses
import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic._types import check_path

_PACKAGE = __name__.split(".")[0]


def to_json(value: Any, path: str | Path) -> None:
    """Write a result to a file, whole or not at all; `load` reads it back.

    Raises:
        ValueError: if it holds what is no data.
    """
    path = Path(path)
    text = json.dumps(encode(value), allow_nan=False)
    aside = path.with_name(path.name + ".part")
    aside.write_text(text + "\n", encoding="utf-8")
    os.replace(aside, path)


def load(path: str | Path) -> Any:
    """Read a result that was written by its ``to_json``.

    Functions of a user, such as that of `theories.of_function`, are not stored: what a result tells is there, but
    what would call them raises.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no result.
    """
    check_path("path", path)
    text = Path(path).read_bytes()
    try:
        return decode(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise ValueError(f"File {path} must hold a result written by `to_json`, but: {error}.") from error


def encode(value: Any) -> Any:
    """What `json` can write, for data of any kind that `decode` knows."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float) and not isinstance(value, np.generic):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _encode_array(value)
    fields = _fields_of(value)
    if fields is not None:
        kind = type(value)
        return {
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "fields": {k: encode(v) for k, v in fields.items()},
        }
    if isinstance(value, tuple):
        return {"tuple": [encode(v) for v in value]}
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: encode(v) for k, v in value.items()}}
    if callable(value):
        return {"function": getattr(value, "__qualname__", type(value).__name__)}
    raise ValueError(f"A result holds a {type(value).__name__}, which cannot be written as JSON.")


def decode(stored: Any) -> Any:
    """The data that `encode` was given."""
    if isinstance(stored, list):
        return [decode(v) for v in stored]
    if not isinstance(stored, dict):
        return stored
    if "class" in stored:
        return _build(stored["class"], {k: decode(v) for k, v in stored["fields"].items()})
    if "array" in stored:
        return _decode_array(stored)
    if "tuple" in stored:
        return tuple(decode(v) for v in stored["tuple"])
    if "float" in stored:
        return float(stored["float"])
    if "function" in stored:
        return _NotStored(stored["function"])
    return {k: decode(v) for k, v in stored["dict"].items()}


@dataclasses.dataclass(frozen=True)
class _NotStored:
    """Stands for a function, which is not data."""

    name: str

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"The function `{self.name}` is not stored with a result: build the result anew.")


def _fields_of(value: Any) -> dict[str, Any] | None:
    """Fields of a dataclass or of a named tuple of this package."""
    if type(value).__module__.split(".")[0] != _PACKAGE:
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value._asdict() if hasattr(value, "_asdict") else None


def _build(name: str, fields: dict[str, Any]) -> Any:
    module, _, qualname = name.partition(":")
    kind = None
    if module.split(".")[0] == _PACKAGE:
        kind = getattr(importlib.import_module(module), qualname, None)
    if not isinstance(kind, type):
        raise ValueError(f"{name} is no result of {_PACKAGE}")
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return kind(**fields)
    if not dataclasses.is_dataclass(kind) or {field.name for field in dataclasses.fields(kind)} != set(fields):
        raise ValueError(f"{name} has other fields in this version of {_PACKAGE}")
    # As it was: not through __init__, which would convert and check anew.
    built = object.__new__(kind)
    for field, value in fields.items():
        object.__setattr__(built, field, value)
    return built


def _encode_array(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"A result holds an array of {array.dtype}, which cannot be written as JSON.")
    row = array.ravel()
    numbers = row.view(np.finfo(row.dtype).dtype) if array.dtype.kind == "c" else row
    shown = numbers.tolist()
    if array.dtype.kind in "fc":
        shown = [x if math.isfinite(x) else str(x) for x in shown]
    kind = "jax" if isinstance(value, jax.Array) else "numpy"
    return {"array": shown, "dtype": str(array.dtype), "shape": list(array.shape), "kind": kind}


def _decode_array(stored: dict[str, Any]) -> Any:
    dtype = np.dtype(stored["dtype"])
    numbers = [float(x) if isinstance(x, str) else x for x in stored["array"]]
    row = np.array(numbers, dtype=np.finfo(dtype).dtype if dtype.kind == "c" else dtype)
    array = row.view(dtype).reshape(stored["shape"])
    return jnp.asarray(array) if stored["kind"] == "jax" else array
