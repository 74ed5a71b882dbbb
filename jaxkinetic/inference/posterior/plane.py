"""The two parameters of a theory as the grid of a posterior has them: where priors are flat, where ridges are even.

Priors are flat in the scales u and v of the two parameters, for the paper's theory u = log(beta) and
v = arcsinh(lam). Cells of a row are even in a coordinate q of the second parameter that the theory may stretch:
q = arcsinh(lam / s) with s = min(1, beta / 4), in which the ridge lam ~ beta of shallow curves is as wide for every
beta.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxkinetic.theories import Theory


class Plane:
    """Coordinates of both parameters of a theory."""

    def __init__(self, theory: Theory):
        self._theory = theory
        self.first, self.second = theory.parameters

    @property
    def ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The prior's range in u and in v."""
        return tuple((float(p.scaled(p.low)), float(p.scaled(p.high))) for p in (self.first, self.second))  # pyright: ignore[reportReturnType]

    @property
    def ends(self) -> tuple[float, float]:
        """Range of the second parameter."""
        return float(self.second.low), float(self.second.high)

    def first_at(self, u: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """First parameter of rows."""
        return self.first.unscaled(u)

    def ends_of_rows(self, u: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 2"]:
        """The prior's range in the coordinate q of each row."""
        ends = np.broadcast_to(self.ends, (u.size, 2))
        return self.second.scaled(ends, self._width(u))

    def second_at(
        self, q: Float[np.ndarray, "row column"], u: Float[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row column"]:
        """Second parameter at coordinate q of each row."""
        return self.second.unscaled(q, self._width(u))

    def v_of(self, second: Any) -> Any:
        """Coordinate v of the second parameter."""
        return self.second.scaled(second)

    def _width(self, u):
        return self._theory.row_width(self.first_at(u))[:, None]
