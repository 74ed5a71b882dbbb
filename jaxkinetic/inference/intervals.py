"""Profile likelihood of one parameter: the smallest chi-squared at each of its values, and where it crosses."""

import dataclasses

import jax
import numpy as np

from jaxkinetic.inference import search
from jaxkinetic.inference.projection import CurveData
from jaxkinetic.inference.search import FIXED_BETA, FIXED_LAM, LANES, Range, Surface

PARAMETERS = ("beta", "lam")
_ROUNDS = 6


@dataclasses.dataclass(frozen=True)
class Interval:
    """Profile-likelihood interval of one parameter.

    Attributes:
        low: lower end; where open, the smallest value that was searched.
        high: upper end; where open, the largest value that was searched.
        low_open: the data set no lower end: the search range did, its own or the other parameter's.
        high_open: the data set no upper end: the search range did.
        level: nominal coverage.
    """

    low: float
    high: float
    low_open: bool
    high_open: bool
    level: float

    @property
    def closed(self) -> bool:
        """Whether the data bound the parameter on both sides."""
        return not (self.low_open or self.high_open)

    def __str__(self) -> str:
        """Ends to three digits, with < and > where the interval goes on beyond what was searched."""
        low = f"<{self.low:.3g}" if self.low_open else f"{self.low:.3g}"
        high = f">{self.high:.3g}" if self.high_open else f"{self.high:.3g}"
        return f"[{low}, {high}]"


@dataclasses.dataclass(frozen=True)
class Profile:
    """Smallest chi-squared along one parameter, and where in (beta, lam) it lies.

    Attributes:
        beta: sharpness at each node, (V,).
        lam: positional bias at each node, (V,).
        chi2: chi-squared there, (V,).
    """

    beta: np.ndarray
    lam: np.ndarray
    chi2: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """Values of the profiled parameter, "beta" or "lam"."""
        return self.beta if name == "beta" else self.lam


def profile_intervals(
    best: tuple[float, float, float], whole: Surface, data: CurveData, bounds: Range, level: float
) -> tuple[dict[str, Interval], dict[str, Profile]]:
    """Profile beta and lam and find where chi-squared exceeds its minimum by the quantile of the level.

    Args:
        best: (beta, lam, chi2) of the best point known.
        whole: chi-squared over the search range, for the starts.
        data: the curves.
        bounds: the search range.
        level: coverage of the intervals.
    """
    profiles = {
        name: _insert(profile, best, name)
        for name, profile in (
            ("beta", _beta_profile(whole, data, bounds)),
            ("lam", _lam_profile(best, data, bounds)),
        )
    }
    limit = min(float(p.chi2.min()) for p in profiles.values()) + threshold(level)
    ends = [_End.of(name, profiles[name], limit, side) for name in PARAMETERS for side in (-1, 1)]
    _narrow(ends, limit, data, bounds)
    intervals = {}
    for name, low, high in zip(PARAMETERS, ends[::2], ends[1::2], strict=True):
        other = PARAMETERS[name == PARAMETERS[0]]
        # Where the other parameter is pushed to its edge, it is the range that closes the interval.
        low_open, high_open = (end.is_open or _at_edge(other, end.inside, bounds) for end in (low, high))
        column = PARAMETERS.index(name)
        values = float(low.inside[column]), float(high.inside[column])
        intervals[name] = Interval(values[0], values[1], low_open, high_open, level)
    return intervals, profiles


def threshold(level: float) -> float:
    """Quantile of chi-squared with one degree of freedom: the rise that marks the ends of an interval."""
    return float(2 * jax.scipy.special.erfinv(level) ** 2)


@dataclasses.dataclass
class _End:
    """One end of an interval, between the outermost allowed point (beta, lam) and the next one."""

    mode: int
    inside: np.ndarray
    outside: np.ndarray
    is_open: bool

    @classmethod
    def of(cls, name: str, profile: Profile, limit: float, side: int) -> "_End":
        points = np.stack([profile.beta, profile.lam], axis=1)
        allowed = np.flatnonzero(profile.chi2 <= limit)
        outermost = allowed[0] if side < 0 else allowed[-1]
        is_open = not 0 <= outermost + side < len(points)
        mode = FIXED_BETA if name == "beta" else FIXED_LAM
        return cls(mode, points[outermost], points[outermost if is_open else outermost + side], is_open)


def _narrow(ends: list[_End], limit: float, data: CurveData, bounds: Range) -> None:
    """Narrow all ends at once, each by many subdivisions a round."""
    share = np.linspace(0, 1, LANES // len(ends) + 1)[1:, None]
    for _ in range(_ROUNDS):
        points = np.concatenate([end.inside + share * (end.outside - end.inside) for end in ends])
        modes = np.repeat([end.mode for end in ends], len(share))
        found = search.polish(points[:, 0], points[:, 1], modes, data, bounds)
        chi2 = found.chi2.reshape(len(ends), -1)
        places = np.stack([found.beta, found.lam], axis=1).reshape(len(ends), -1, 2)
        for end, values, place in zip(ends, chi2, places, strict=True):
            over = np.flatnonzero(values > limit)
            first = over[0] if over.size else len(values) - 1
            end.inside, end.outside = (place[first - 1] if first else end.inside), place[first]


def _beta_profile(whole: Surface, data: CurveData, bounds: Range) -> Profile:
    lowest = np.argmin(whole.chi2, axis=1)
    row = np.arange(len(lowest))
    return Profile(*search.polish(whole.beta[row, lowest], whole.lam[row, lowest], FIXED_BETA, data, bounds))


def _lam_profile(best: tuple[float, float, float], data: CurveData, bounds: Range) -> Profile:
    # Values crowd round zero on the scale of the best fit, where the ridge enters.
    scale = max(min(abs(best[1]), 1.0), 1e-3)
    low, high = np.arcsinh(np.array(bounds.lam) / scale)
    n_lam, n_beta = search.GRID
    lam = scale * np.sinh(np.linspace(low, high, n_lam))[:, None] * np.ones(n_beta)
    beta = np.geomspace(bounds.beta[0], bounds.beta[1], n_beta) * np.ones((n_lam, 1))
    lowest = np.argmin(search.chi2_at(beta, lam, data), axis=1)
    row = np.arange(n_lam)
    return Profile(*search.polish(beta[row, lowest], lam[row, lowest], FIXED_LAM, data, bounds))


def _insert(profile: Profile, best: tuple[float, float, float], name: str) -> Profile:
    merged = [np.append(x, b) for x, b in zip((profile.beta, profile.lam, profile.chi2), best, strict=True)]
    order = np.argsort(merged[PARAMETERS.index(name)])
    return Profile(*(m[order] for m in merged))


def _at_edge(name: str, point: np.ndarray, bounds: Range) -> bool:
    value, (low, high) = float(point[PARAMETERS.index(name)]), getattr(bounds, name)
    if name == "beta":
        return value < 1.01 * low or value > high / 1.01
    return value < 0.99 * low or value > 0.99 * high
