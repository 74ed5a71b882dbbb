"""How results print: numbers by value, arrays by type and shape, so that no result fills the screen."""

import dataclasses
import textwrap
from typing import Any

import equinox as eqx
import numpy as np

from jaxkinetic._types import is_concrete


class Shown:
    """A dataclass that prints one field a line; write ``repr=False`` beside the decorator."""

    def __repr__(self) -> str:
        fields: Any = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        lines = [f"{field.name}={_shown(getattr(self, field.name))},\n" for field in fields if field.repr]
        return f"{type(self).__name__}(\n{textwrap.indent(''.join(lines), '  ')})"


def _shown(value: Any) -> str:
    if np.ndim(value) == 0 and hasattr(value, "dtype") and is_concrete(value):
        return f"{value.item():.6g}" if np.issubdtype(value.dtype, np.inexact) else str(value.item())
    return eqx.tree_pformat(value)
