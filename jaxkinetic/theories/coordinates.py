"""Coordinates in which a theory's parameters are searched: unbounded ones for steps, grids for starts.

By default every parameter has a coordinate of its own, the logit of its share of the range; `ridge` has others.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxkinetic.theories.parameter import Parameter

EDGE = 1 / (1 + math.exp(12.0))
_WIDENINGS = 8
# Nodes a parameter of the grid that starts a search, by the number of parameters; few are enough for bands.
_NODES = {0: 1, 1: 256, 2: 64, 3: 24, 4: 10, 5: 6}
_FEWEST_NODES = 4
N_SCAN = 127

Values = Float[np.ndarray, "*points parameter"]
Covering = Float[np.ndarray, "covering parameter"]


class Coordinates(abc.ABC):
    """Coordinates v of a theory's parameters. Steps are traced, all else is NumPy."""

    parameters: tuple[Parameter, ...]

    @abc.abstractmethod
    def values_at(self, v: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
        """Values at coordinates v, which are unbounded; traced."""

    @abc.abstractmethod
    def coordinates_of(self, values: Values) -> Values:
        """Coordinates of values; the ends of a range map to where it is as good as reached."""

    @abc.abstractmethod
    def grid(self) -> Values:
        """Values on a grid over the whole range, one axis a parameter."""

    @abc.abstractmethod
    def is_aligned(self, k: int) -> bool:
        """Whether parameter k is constant on each slice of the grid along its axis."""

    @abc.abstractmethod
    def scan(self, values: Values, k: int) -> Float[np.ndarray, "point candidate parameter"]:
        """Values that hold parameter k and cover the ranges of all others."""

    @abc.abstractmethod
    def cover(self, inside: Values, chi2_at: Callable[[Values], np.ndarray], limit: float) -> Covering:
        """Points that cover the region of chi-squared up to a limit, from points that are known to be inside."""


class SeparateCoordinates(Coordinates):
    """v_k is the logit of parameter k's share of its range."""

    def __init__(self, parameters: tuple[Parameter, ...]):
        self.parameters = parameters
        self.n_nodes = _NODES.get(len(parameters), _FEWEST_NODES)

    def values_at(self, v: Any) -> Any:
        """Each parameter at the share whose logit is its coordinate."""
        xp = v.__array_namespace__()
        return xp.stack([p.value_at(1 / (1 + xp.exp(-v[k]))) for k, p in enumerate(self.parameters)])

    def coordinates_of(self, values: Values) -> Values:
        """Logits of the shares; the ends of a range map to +-12."""
        share = self._shares(values).clip(EDGE, 1 - EDGE)
        return np.log(share) - np.log1p(-share)

    def grid(self) -> Values:
        """A product of even grids in the scales of the parameters."""
        return self._values(_product([np.linspace(EDGE, 1 - EDGE, self.n_nodes)] * len(self.parameters)))

    def is_aligned(self, k: int) -> bool:
        """Every axis of the grid is a parameter."""
        del k
        return True

    def scan(self, values: Values, k: int) -> Float[np.ndarray, "point candidate parameter"]:
        """A coarse product of even grids of all others."""
        n_others = len(self.parameters) - 1
        n = max(int(N_SCAN ** (1 / n_others)), 2) if n_others else 1
        others = _product([np.linspace(EDGE, 1 - EDGE, n)] * n_others).reshape(n**n_others, n_others)
        candidates = self._values(np.insert(others, k, 0.5, axis=1))
        found = np.broadcast_to(candidates, (len(values), *candidates.shape)).copy()
        found[:, :, k] = values[:, None, k]
        return found

    def cover(self, inside: Values, chi2_at: Callable[[Values], np.ndarray], limit: float) -> Covering:
        """A grid in a box along the principal axes of what is inside, widened where the region leaves it."""
        # Parameters that trade off leave a thin slanting region: a box along its own axes fits it.
        shares = self._shares(inside)
        center = shares.mean(axis=0)
        axes = np.linalg.svd(shares - center, full_matrices=True)[2]
        along = (shares - center) @ axes.T
        low, high = along.min(axis=0), along.max(axis=0)
        for left in reversed(range(_WIDENINGS + 1)):
            nodes = _product([np.linspace(a, b, self.n_nodes) for a, b in zip(low, high, strict=True)])
            at = center + nodes @ axes
            within = np.all((at >= 0) & (at <= 1), axis=-1)
            chi2 = np.where(within, chi2_at(self._values(at.clip(0, 1))), np.inf)
            span, last = high - low, self.n_nodes - 1
            below, above = (
                np.array([np.any(chi2.take(i, axis=k) <= limit) for k in range(low.size)]) for i in (0, last)
            )
            if not left or not (below.any() or above.any()):
                return self._values(at[within & (chi2 <= limit)])
            low, high = low - 0.5 * span * below, high + 0.5 * span * above
        raise AssertionError

    def _shares(self, values):
        return np.stack([p.share_of(values[..., k]) for k, p in enumerate(self.parameters)], axis=-1)

    def _values(self, shares):
        columns = [p.value_at(shares[..., k]) for k, p in enumerate(self.parameters)]
        return np.stack(columns, axis=-1) if columns else shares


def _product(axes: list[np.ndarray]) -> np.ndarray:
    """Every combination of the nodes of several axes, stacked last."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) if axes else np.zeros((1, 0))
