"""A parameter of a theory: its name, the range that is searched, and how."""

import math
from typing import Any, Literal

import equinox as eqx
import numpy as np

from jaxkinetic._types import (
    as_numbers,
    check_choice,
    check_finite,
    check_positive,
    check_positive_number,
    check_scalar,
    check_texts,
)

SCALES = ("linear", "log", "asinh")
_EDGE = 0.01
_FINEST = 1e-3


class Parameter(eqx.Module):
    """One parameter of a theory.

    Attributes:
        name: name of the argument in Python.
        low: lower end of the range that is searched.
        high: upper end.
        scale: coordinate in which the search is even: "linear"; "log", for positive parameters; or "asinh", linear
            below ``width`` and logarithmic above, for parameters of either sign.
        width: where an "asinh" scale turns from linear to logarithmic, and the unit of a "linear" one.
        symbol: symbol in TeX, without dollars.
        meaning: what it is, for axes and tables.
    """

    name: str = eqx.field(static=True)
    low: np.ndarray = eqx.field(converter=lambda x: as_numbers("low", x))
    high: np.ndarray = eqx.field(converter=lambda x: as_numbers("high", x))
    scale: Literal["linear", "log", "asinh"] = eqx.field(static=True, default="linear")
    width: float = eqx.field(static=True, default=1.0)
    symbol: str = eqx.field(static=True, default="")
    meaning: str = eqx.field(static=True, default="")

    def __check_init__(self):
        check_texts(name=self.name, symbol=self.symbol, meaning=self.meaning)
        for name in ("low", "high"):
            check_scalar(name, getattr(self, name))
        if not self.name.isidentifier():
            raise ValueError(f"Argument `name` must be a name as Python has them, but is {self.name!r}.")
        check_choice("scale", self.scale, SCALES)
        check_finite(f"{self.name}_range", np.array([self.low, self.high]))
        check_positive_number("width", self.width)
        if self.scale == "log":
            check_positive(f"{self.name}_range", np.array([self.low, self.high]))
        if not self.low < self.high:
            raise ValueError(
                f"Argument `{self.name}_range` must increase, but is ({float(self.low):g}, {float(self.high):g})."
            )

    @property
    def short(self) -> str:
        """Its symbol if it has one, else its name, for a title."""
        return f"${self.symbol}$" if self.symbol else self.name

    @property
    def label(self) -> str:
        """What it is and its symbol, for an axis."""
        return f"{self.meaning}, {self.short}" if self.meaning else self.short

    @property
    def flat(self) -> str:
        """In words, the prior that is flat in its scale over its range."""
        unit = "" if self.width == 1 else f" / {self.width:g}"
        scale = {"log": f"log({self.name})", "asinh": f"arcsinh({self.name}{unit})"}
        return f"flat in {scale.get(self.scale, self.name)}, {float(self.low):g} to {float(self.high):g}"

    def scaled(self, value: Any, width: Any = None) -> Any:
        """Coordinate of a value in which the search is even: log(p), arcsinh(p / width) or p / width; NumPy or JAX.

        Args:
            value: an array of values.
            width: that of the scale; the parameter's own if None.
        """
        xp, width = value.__array_namespace__(), self.width if width is None else width
        if self.scale == "log":
            return xp.log(value)
        return xp.asinh(value / width) if self.scale == "asinh" else value / width

    def unscaled(self, scaled: Any, width: Any = None) -> Any:
        """Value at a coordinate of `scaled`."""
        xp, width = scaled.__array_namespace__(), self.width if width is None else width
        if self.scale == "log":
            return xp.exp(scaled)
        return width * (xp.sinh(scaled) if self.scale == "asinh" else scaled)

    def unit_at(self, value: float) -> float:
        """Change of the value for a unit of its coordinate: an e-fold of a large one."""
        if self.scale == "log":
            return abs(value)
        return math.hypot(self.width, value) if self.scale == "asinh" else self.width

    def value_at(self, share: Any) -> Any:
        """Value at a share of the range in its scale."""
        low, high = self.scaled(self.low), self.scaled(self.high)
        return self.unscaled(low + (high - low) * share)

    def share_of(self, value: Any) -> Any:
        """Share of the range, in its scale, at a value."""
        low, high = self.scaled(self.low), self.scaled(self.high)
        return (self.scaled(value) - low) / (high - low)

    def nodes(self, n: int, best: float) -> np.ndarray:
        """Values that cover the range; on an "asinh" scale they crowd round zero on the scale of the best value."""
        width = max(min(abs(best), self.width), _FINEST * self.width)
        low, high = self.scaled(self.low, width), self.scaled(self.high, width)
        return self.unscaled(low + (high - low) * np.linspace(0, 1, n), width)

    def is_at_edge(self, value: float) -> bool:
        """Whether a value is within one per cent of an end of the range: of its span, or relative to the end."""
        low, high = float(self.low), float(self.high)
        if self.scale == "log":
            return value < (1 + _EDGE) * low or value > high / (1 + _EDGE)
        near = (high - low, high - low) if self.scale == "linear" else (abs(low), abs(high))
        return value < low + _EDGE * near[0] or value > high - _EDGE * near[1]
