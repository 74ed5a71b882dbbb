"""Profile likelihood of one parameter: the smallest chi-squared at each of its values, and where it crosses."""

import dataclasses
from statistics import NormalDist

import numpy as np

from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.fit.search import N_STARTS, Scan, chi2_at, polish, polish_until_still

_NODES = 64
_ROUNDS = 12
_FEWEST_TRIALS = 8
_CLOSER = 8.0
_NARROW = 1e-6


@dataclasses.dataclass(frozen=True)
class Interval:
    """Profile-likelihood interval of one parameter.

    Attributes:
        low: lower end; where open, the smallest value that was searched.
        high: upper end; where open, the largest value that was searched.
        low_open: the data set no lower end: the search range did, its own or another parameter's.
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


def profile_intervals(
    best: Scan, whole: Scan, data: CurveData, level: float
) -> tuple[Scan, list[Interval], list[Scan]]:
    """Profile every parameter and find where chi-squared exceeds its minimum by the quantile of the level.

    Args:
        best: the best point known.
        whole: chi-squared over the search range, for the starts.
        data: the curves and their theory.
        level: coverage of the intervals.

    Returns:
        The best point, which the profiles may have improved, and the interval and the profile of every parameter.
    """
    parameters = data.theory.parameters
    if not parameters:
        return best, [], []
    profiles = [_profile(k, best, whole, data) for k in range(len(parameters))]
    # Following the profiles may find a lower point than the first search did.
    lowest = [_insert(profile, best, k).lowest() for k, profile in enumerate(profiles)]
    best = polish_until_still(Scan(*(np.stack(column) for column in zip(*lowest, strict=True))), data)
    profiles = [_insert(profile, best, k) for k, profile in enumerate(profiles)]
    limit = float(best.chi2) + threshold(level)
    ends = [_End.of(k, profile, limit, side) for k, profile in enumerate(profiles) for side in (-1, 1)]
    _narrow(ends, limit, best, data)
    intervals = []
    for k, (low, high) in enumerate(zip(ends[::2], ends[1::2], strict=True)):
        # Where another parameter is pushed to its edge, it is the range that closes the interval.
        low_open, high_open = (
            end.is_open or any(p.is_at_edge(float(x)) for i, (p, x) in enumerate(_with(parameters, end)) if i != k)
            for end in (low, high)
        )
        intervals.append(Interval(float(low.inside[k]), float(high.inside[k]), low_open, high_open, level))
        for end in (low, high):
            if not end.is_open:
                profiles[k] = _insert(profiles[k], Scan(end.inside[:-1], end.inside[-1]), k)
    return best, intervals, profiles


def threshold(level: float) -> float:
    """Quantile of chi-squared with one degree of freedom: the rise that marks the ends of an interval."""
    return NormalDist().inv_cdf((1 + level) / 2) ** 2


def _with(parameters, end):
    return zip(parameters, end.inside[:-1], strict=True)


@dataclasses.dataclass
class _End:
    """One end of the interval of parameter k, between the outermost allowed point and the next one.

    Points are the values of all parameters and chi-squared, (P + 1,).
    """

    k: int
    inside: np.ndarray
    outside: np.ndarray
    is_open: bool

    @classmethod
    def of(cls, k: int, profile: Scan, limit: float, side: int) -> "_End":
        points = np.concatenate([profile.values, profile.chi2[:, None]], axis=1)
        allowed = np.flatnonzero(profile.chi2 <= limit)
        outermost = allowed[0] if side < 0 else allowed[-1]
        is_open = not 0 <= outermost + side < len(points)
        return cls(k, points[outermost], points[outermost if is_open else outermost + side], is_open)

    def shares(self, limit: float, lowest: float, count: int) -> np.ndarray:
        """Where to try between the inner and the outer point: partly evenly, partly ever closer to the likely end.

        There the root of the rise, which is straight where the profile is a parabola, reaches that of the limit.
        """
        rise = np.sqrt([max(x - lowest, 0) for x in (self.inside[-1], limit, self.outside[-1])])
        aim = (rise[1] - rise[0]) / max(rise[2] - rise[0], np.finfo(float).tiny)
        even, close = np.linspace(0, 1, count // 4 + 1)[1:], _CLOSER ** -np.arange(1, 1 + (count - count // 4) // 2)
        return np.sort(np.clip(np.concatenate([even, aim + close, aim - close]), 0, 1))

    def is_narrow(self, best: np.ndarray) -> bool:
        # An end far nearer to zero than to the best point is wanted to its own digits.
        size = min(self.distance(best), abs(self.inside[self.k]))
        return self.is_open or bool(self.distance(self.outside) <= _NARROW * size)

    def distance(self, point: np.ndarray) -> float:
        return abs(self.inside[self.k] - point[self.k])


def _narrow(ends: list[_End], limit: float, best: Scan, data: CurveData) -> None:
    """Narrow all ends at once to a millionth of themselves and of their distance from the best, by many trials."""
    held = np.eye(best.values.size, dtype=bool)[[end.k for end in ends]]
    for i in range(_ROUNDS):
        # The valleys of the other parameters are looked for once; later trials start from either side of the end.
        count = max(N_STARTS // (len(ends) * (1 if i == 0 else 2)), _FEWEST_TRIALS)
        share = [end.shares(limit, float(best.chi2), count)[:, None] for end in ends]
        guess = np.stack([e.inside + x * (e.outside - e.inside) for e, x in zip(ends, share, strict=True)])
        guess = guess[..., :-1]
        found = _lowest(guess, ends, data) if i == 0 else _lower_of(guess, ends, held, data)
        places = np.concatenate([found.values, found.chi2[..., None]], axis=-1)
        for end, place in zip(ends, places, strict=True):
            over = np.flatnonzero(place[:, -1] > limit)
            first = over[0] if over.size else len(place) - 1
            end.inside, end.outside = (place[first - 1] if first else end.inside), place[first]
        if all(end.is_narrow(best.values) for end in ends):
            break


def _lower_of(guess: np.ndarray, ends: list[_End], held: np.ndarray, data: CurveData) -> Scan:
    """Smallest chi-squared at each trial, from the other parameters inside and outside of its end."""
    starts = np.stack([guess, guess])
    for i, end in enumerate(ends):
        for start, point in zip(starts, (end.inside, end.outside), strict=True):
            start[i, :, ~held[i]] = point[:-1][~held[i]][:, None]
    hold = np.broadcast_to(held[:, None], starts.shape)
    n = starts.shape[-1]
    found = polish(starts.reshape(-1, n), hold.reshape(-1, n), data)
    values, chi2 = found.values.reshape(starts.shape), found.chi2.reshape(starts.shape[:-1])
    lower = np.argmin(chi2, axis=0)[None]
    return Scan(np.take_along_axis(values, lower[..., None], axis=0)[0], np.take_along_axis(chi2, lower, axis=0)[0])


def _lowest(guess: np.ndarray, ends: list[_End], data: CurveData) -> Scan:
    found = [_lowest_along(end.k, values, data) for end, values in zip(ends, guess, strict=True)]
    return Scan(*(np.stack(column) for column in zip(*found, strict=True)))


def _lowest_along(k: int, values: np.ndarray, data: CurveData) -> Scan:
    """Smallest chi-squared at each value of parameter k; the values of the others are a first guess.

    The others are scanned over their whole ranges before they are polished: along an interval the best point may
    jump from one valley of the likelihood to another.
    """
    candidates = np.append(data.theory.coordinates.scan(values, k), values[:, None], axis=1)
    start = np.argmin(chi2_at(candidates, data), axis=1)
    return polish(candidates[np.arange(len(values)), start], _holding(k, values), data)


def _profile(k: int, best: Scan, whole: Scan, data: CurveData) -> Scan:
    """Smallest chi-squared at values of parameter k that cover its range: those of the grid where it has them."""
    if data.theory.coordinates.is_aligned(k):
        rows = np.moveaxis(whole.values, k, 0).reshape(whole.chi2.shape[k], -1, best.values.size)
        start = np.argmin(np.moveaxis(whole.chi2, k, 0).reshape(len(rows), -1), axis=1)
        starts = rows[np.arange(len(rows)), start]
        return polish(starts, _holding(k, starts), data)
    values = np.tile(best.values, (_NODES, 1))
    values[:, k] = data.theory.parameters[k].nodes(_NODES, float(best.values[k]))
    return _lowest_along(k, values, data)


def _holding(k: int, values: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(values.shape[-1]) == k, values.shape)


def _insert(profile: Scan, best: Scan, k: int) -> Scan:
    merged = profile.and_also(Scan(best.values[None], np.asarray(best.chi2)[None]))
    order = np.argsort(merged.values[:, k])
    return Scan(merged.values[order], merged.chi2[order])
