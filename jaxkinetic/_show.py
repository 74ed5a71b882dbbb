"""How results and models print: numbers by value, arrays by type and shape, so that none fills the screen."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
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


class ShownModule(eqx.Module):
    """A module that prints its parameters by value."""

    def __repr__(self) -> str:
        return _shown(self)


def _shown(value: Any) -> str:
    return eqx.tree_pformat(jax.tree.map(_by_value, value))


def _by_value(leaf: Any) -> Any:
    if not (hasattr(leaf, "dtype") and np.ndim(leaf) == 0 and is_concrete(leaf)):
        return leaf
    number = leaf.item()
    return float(f"{number:.6g}") if isinstance(number, float) else number
