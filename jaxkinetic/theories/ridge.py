"""Coordinates of (beta, lam) along the ridge of shallow curves.

As beta and lam go to 0 together, the shape of S_t tends to r sigma_0 - log(sigma_0) with r = 2 lam / (a_1 t): the
likelihood has a ridge lam ~ beta. The coordinates (b, q) straighten it,

    log beta = low + (high - low) sigmoid(b),      lam = clip(q beta / (1 + beta)),

with a smooth clip that keeps lam inside its range.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxkinetic.theories.coordinates import EDGE, N_SCAN, Coordinates, Covering, Values
from jaxkinetic.theories.parameter import Parameter

GRID = (64, 128)
_WIDENINGS = 8


class RidgeCoordinates(Coordinates):
    """The coordinates (b, q) of (beta, lam); the range of lam includes 0."""

    def __init__(self, beta: Parameter, lam: Parameter):
        self.parameters = beta, lam
        self._beta, self._lam = beta, lam

    # These run on NumPy arrays as on traced ones: outside a compiled function each JAX operation would be compiled
    # by itself, which for a first fit adds up to a second.
    def beta_of(self, b: Any) -> Any:
        """Sharpness at coordinate b."""
        xp = b.__array_namespace__()
        return self._beta.value_at(1 / (1 + xp.exp(-b)))

    def lam_of(self, q: Any, beta: Any) -> Any:
        """Positional bias at coordinate q for a given sharpness."""
        x = q * beta / (1 + beta)
        xp = x.__array_namespace__()
        edge = xp.where(x > 0, self._lam.high, -self._lam.low)
        return edge * xp.tanh(x / edge)

    def q_of(self, lam: Any, beta: Any) -> Any:
        """Coordinate q of a positional bias for a given sharpness."""
        xp = lam.__array_namespace__()
        edge = xp.where(lam > 0, self._lam.high, -self._lam.low)
        return edge * xp.atanh(xp.clip(lam / edge, -1 + 1e-9, 1 - 1e-9)) * (1 + beta) / beta

    def values_at(self, v: Any) -> Any:
        """(beta, lam) at (b, q)."""
        beta = self.beta_of(v[0])
        return v.__array_namespace__().stack([beta, self.lam_of(v[1], beta)])

    def coordinates_of(self, values: Values) -> Values:
        """(b, q) at (beta, lam)."""
        beta, lam = values[..., 0], values[..., 1]
        return np.stack([self._b_of(beta), self.q_of(lam, beta)], axis=-1)

    def grid(self) -> Values:
        """Rows of equal beta; in each lam is dense on the scale of beta."""
        beta = self.beta_of(_even_logits(-12.0, 12.0, GRID[0]))
        return _pairs(beta[:, None], self._lam_grid(beta, GRID[1]))

    def is_aligned(self, k: int) -> bool:
        """Rows are those of beta; lam differs from row to row."""
        return k == 0

    def scan(self, values: Values, k: int) -> Float[np.ndarray, "point candidate parameter"]:
        """The other parameter over its whole range."""
        beta, lam = values[:, 0], values[:, 1]
        if k == 0:
            return _pairs(beta[:, None], self._lam_grid(beta, N_SCAN))
        return _pairs(np.geomspace(float(self._beta.low), float(self._beta.high), N_SCAN), lam[:, None])

    def cover(self, inside: Values, chi2_at: Callable[[Values], np.ndarray], limit: float) -> Covering:
        """A grid on a rectangle of (b, q), widened where the region leaves it."""
        v, (low_lam, high_lam) = self.coordinates_of(inside), (self._lam.low, self._lam.high)
        # The ends of the interval of beta bound b; in q the region may go on beyond the points known.
        (low_b, low), (high_b, high) = v.min(axis=0), v.max(axis=0)
        beta = self.beta_of(_even_logits(low_b, high_b, GRID[0]))[:, None]
        for left in reversed(range(_WIDENINGS + 1)):
            q = np.sinh(np.linspace(np.arcsinh(low), np.arcsinh(high), GRID[1]))
            lam = self.lam_of(q[None, :], beta)
            values = _pairs(beta, lam)
            chi2 = chi2_at(values)
            # A side whose lam has reached the end of the range goes no further, whatever q.
            below = bool(np.any((chi2[:, 0] <= limit) & (lam[:, 0] > 0.999 * low_lam)))
            above = bool(np.any((chi2[:, -1] <= limit) & (lam[:, -1] < 0.999 * high_lam)))
            if not left or not (below or above):
                # The edges of the band are smooth in (b, q): every other node draws them as well as all.
                return values[::2, ::2][chi2[::2, ::2] <= limit]
            span = high - low
            low, high = low - 0.5 * span * below, high + 0.5 * span * above
        raise AssertionError

    def _b_of(self, beta):
        # The edges of the range map to +-12, where it is as good as reached.
        share = self._beta.share_of(beta).clip(EDGE, 1 - EDGE)
        return np.log(share) - np.log1p(-share)

    def _lam_grid(self, beta, n):
        """Values of lam that cover its range at each beta: dense on the scale of beta, where the ridge is."""
        scale = (beta / (1 + beta))[:, None]
        low, high = (np.arcsinh(3 * edge / scale) for edge in (self._lam.low, self._lam.high))
        q = np.sinh(low + np.linspace(0, 1, n) * (high - low))
        return self.lam_of(q, beta[:, None])


def _even_logits(low: float, high: float, n: int) -> np.ndarray:
    """Coordinates b, even in sigmoid(b)."""
    first, last = 1 / (1 + np.exp(-np.array([low, high])))
    share = np.linspace(first, last, n)
    return np.log(share) - np.log1p(-share)


def _pairs(beta: np.ndarray, lam: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(beta, lam), axis=-1)
