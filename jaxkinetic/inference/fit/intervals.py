"""Profile likelihood of one parameter: the smallest chi-squared at each of its values, and where it crosses."""

import dataclasses
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from jaxkinetic._show import Shown
from jaxkinetic.inference.fit import search
from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.fit.search import FIXED_BETA, FIXED_LAM, LANES, Polished, Range, Surface

PARAMETERS = ("beta", "lam")
_ROUNDS = 12
_CLOSER = 8.0
_NARROW = 1e-6


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


@dataclasses.dataclass(frozen=True, repr=False)
class Profile(Shown):
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

    def lowest(self) -> tuple[float, float, float]:
        """(beta, lam, chi2) where chi-squared is smallest."""
        i = np.argmin(self.chi2)
        return float(self.beta[i]), float(self.lam[i]), float(self.chi2[i])


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
    profiles = {"beta": _beta_profile(whole, data, bounds), "lam": _lam_profile(best, data, bounds)}
    # Following the profiles may find a lower point than the first search did.
    lowest = [_insert(p, best, name).lowest() for name, p in profiles.items()]
    best = search.settle(Polished(*map(np.array, zip(*lowest, strict=True))), data, bounds)
    profiles = {name: _insert(p, best, name) for name, p in profiles.items()}
    limit = best[2] + threshold(level)
    ends = [_End.of(name, profiles[name], limit, side) for name in PARAMETERS for side in (-1, 1)]
    _narrow(ends, limit, best, data, bounds)
    intervals = {}
    for name, low, high in zip(PARAMETERS, ends[::2], ends[1::2], strict=True):
        other = PARAMETERS[name == PARAMETERS[0]]
        # Where the other parameter is pushed to its edge, it is the range that closes the interval.
        low_open, high_open = (end.is_open or _at_edge(other, end.inside, bounds) for end in (low, high))
        column = PARAMETERS.index(name)
        values = float(low.inside[column]), float(high.inside[column])
        intervals[name] = Interval(values[0], values[1], low_open, high_open, level)
        for end in (low, high):
            if not end.is_open:
                profiles[name] = _insert(profiles[name], tuple(end.inside), name)
    return intervals, profiles


def threshold(level: float) -> float:
    """Quantile of chi-squared with one degree of freedom: the rise that marks the ends of an interval."""
    return NormalDist().inv_cdf((1 + level) / 2) ** 2


@dataclasses.dataclass
class _End:
    """One end of an interval, between the outermost allowed point (beta, lam, chi2) and the next one."""

    mode: int
    inside: np.ndarray
    outside: np.ndarray
    is_open: bool

    @classmethod
    def of(cls, name: str, profile: Profile, limit: float, side: int) -> "_End":
        points = np.stack([profile.beta, profile.lam, profile.chi2], axis=1)
        allowed = np.flatnonzero(profile.chi2 <= limit)
        outermost = allowed[0] if side < 0 else allowed[-1]
        is_open = not 0 <= outermost + side < len(points)
        mode = FIXED_BETA if name == "beta" else FIXED_LAM
        return cls(mode, points[outermost], points[outermost if is_open else outermost + side], is_open)

    def shares(self, limit: float, lowest: float, count: int) -> np.ndarray:
        """Where to try between the inner and the outer point: partly evenly, partly ever closer to the likely end.

        There the root of the rise, which is straight where the profile is a parabola, reaches that of the limit.
        """
        rise = np.sqrt([max(x - lowest, 0) for x in (self.inside[2], limit, self.outside[2])])
        aim = (rise[1] - rise[0]) / max(rise[2] - rise[0], np.finfo(float).tiny)
        even, close = np.linspace(0, 1, count // 4 + 1)[1:], _CLOSER ** -np.arange(1, 1 + (count - count // 4) // 2)
        return np.sort(np.clip(np.concatenate([even, aim + close, aim - close]), 0, 1))

    def is_narrow(self, best: Sequence[float]) -> bool:
        # An end far nearer to zero than to the best point is wanted to its own digits.
        size = min(self.distance(best), abs(self.inside[self.mode - FIXED_BETA]))
        return self.is_open or bool(self.distance(self.outside) <= _NARROW * size)

    def distance(self, point: Sequence[float] | np.ndarray) -> float:
        column = self.mode - FIXED_BETA
        return abs(self.inside[column] - point[column])


def _narrow(ends: list[_End], limit: float, best: Sequence[float], data: CurveData, bounds: Range) -> None:
    """Narrow all ends at once to a millionth of themselves and of their distance from the best, by many trials."""
    modes = [end.mode for end in ends]
    for k in range(_ROUNDS):
        # The valleys of the other parameter are looked for once; later trials start from either side of the end.
        count = LANES // len(ends) if k == 0 else LANES // (2 * len(ends))
        share = [end.shares(limit, best[2], count)[:, None] for end in ends]
        guess = np.stack([end.inside + x * (end.outside - end.inside) for end, x in zip(ends, share, strict=True)])
        if k == 0:
            beta, lam, _ = guess.reshape(-1, 3).T
            found = _lowest(beta, lam, np.repeat(modes, count), data, bounds)
        else:
            found = _lower_of(guess, ends, data, bounds)
        places = np.stack([found.beta, found.lam, found.chi2], axis=1).reshape(len(ends), -1, 3)
        for end, place in zip(ends, places, strict=True):
            over = np.flatnonzero(place[:, 2] > limit)
            first = over[0] if over.size else len(place) - 1
            end.inside, end.outside = (place[first - 1] if first else end.inside), place[first]
        if all(end.is_narrow(best) for end in ends):
            break


def _lower_of(guess: np.ndarray, ends: list[_End], data: CurveData, bounds: Range) -> Profile:
    """Smallest chi-squared at each trial, from the other parameter inside and outside of its end."""
    starts = np.stack([guess, guess])
    for i, end in enumerate(ends):
        other = 1 - (end.mode - FIXED_BETA)
        starts[:, i, :, other] = np.array([end.inside[other], end.outside[other]])[:, None]
    modes = np.broadcast_to(np.array([end.mode for end in ends])[:, None], starts.shape[:3])
    beta, lam, _ = starts.reshape(-1, 3).T
    beta, lam, chi2 = (x.reshape(2, -1) for x in search.polish(beta, lam, modes.ravel(), data, bounds))
    lower = np.argmin(chi2, axis=0), np.arange(chi2.shape[1])
    return Profile(beta[lower], lam[lower], chi2[lower])


def _lowest(beta: np.ndarray, lam: np.ndarray, modes: np.ndarray, data: CurveData, bounds: Range) -> Profile:
    """Smallest chi-squared at each value of the parameter held; the other one's value is a first guess.

    The other parameter is scanned over its whole range before it is polished: along an interval the best
    point may jump from one valley of the likelihood to another.
    """
    free_lam, n_scan = modes == FIXED_BETA, search.GRID[1] - 1
    lams = np.where(free_lam[:, None], search.lam_grid(beta, n_scan, bounds), lam[:, None])
    betas = np.where(free_lam[:, None], beta[:, None], np.geomspace(*bounds.beta, n_scan))
    lams, betas = np.append(lams, lam[:, None], axis=1), np.append(betas, beta[:, None], axis=1)
    row = np.arange(len(beta))
    start = np.argmin(search.chi2_at(betas, lams, data), axis=1)
    return Profile(*search.polish(betas[row, start], lams[row, start], modes, data, bounds))


def _beta_profile(whole: Surface, data: CurveData, bounds: Range) -> Profile:
    lowest = np.argmin(whole.chi2, axis=1)
    row = np.arange(len(lowest))
    return Profile(*search.polish(whole.beta[row, lowest], whole.lam[row, lowest], FIXED_BETA, data, bounds))


def _lam_profile(best: tuple[float, float, float], data: CurveData, bounds: Range) -> Profile:
    # Values crowd round zero on the scale of the best fit, where the ridge enters.
    scale = max(min(abs(best[1]), 1.0), 1e-3)
    low, high = np.arcsinh(np.array(bounds.lam) / scale)
    lam = scale * np.sinh(np.linspace(low, high, search.GRID[0]))
    return _lowest(np.full_like(lam, best[0]), lam, np.full(lam.shape, FIXED_LAM), data, bounds)


def _insert(profile: Profile, best: tuple[float, float, float], name: str) -> Profile:
    merged = [np.append(x, b) for x, b in zip((profile.beta, profile.lam, profile.chi2), best, strict=True)]
    order = np.argsort(merged[PARAMETERS.index(name)])
    return Profile(*(m[order] for m in merged))


def _at_edge(name: str, point: np.ndarray, bounds: Range) -> bool:
    value, (low, high) = float(point[PARAMETERS.index(name)]), getattr(bounds, name)
    if name == "beta":
        return value < 1.01 * low or value > high / 1.01
    return value < 0.99 * low or value > 0.99 * high
