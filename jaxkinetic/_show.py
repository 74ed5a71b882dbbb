"""How results print: numbers by value, arrays by type and shape, so that no result fills the screen."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from jaxkinetic._json import to_json
from jaxkinetic._types import is_concrete


class Shown:
    """A dataclass that prints one field a line and can be saved; write ``repr=False`` beside the decorator."""

    def to_json(self, path: str | Path) -> None:
        """Write the result to a file, from which `load` reads it back."""
        to_json(self, path)

    def __repr__(self) -> str:
        fields: Any = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        lines = [f"{field.name}={_shown(getattr(self, field.name))},\n" for field in fields if field.repr]
        return f"{type(self).__name__}(\n{textwrap.indent(''.join(lines), '  ')})"


def _shown(value: Any) -> str:
    if hasattr(value, "dtype") and np.ndim(value) == 0 and is_concrete(value):
        return f"{value.item():.6g}" if np.issubdtype(value.dtype, np.inexact) else str(value.item())
    return eqx.tree_pformat(value)
