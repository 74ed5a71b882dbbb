"""Least-squares fit of beta and lam to measured retrieval curves, with honest intervals."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    as_positions,
    check_at_least,
    check_choice,
    check_level,
    check_positive,
    require_double,
)
from jaxkinetic.inference import search
from jaxkinetic.inference.curves import RetrievalCurve, as_curves
from jaxkinetic.inference.intervals import Interval, Profile, profile_intervals, threshold
from jaxkinetic.inference.projection import CurveData, lines, shapes, stack_curves
from jaxkinetic.inference.search import FREE, Range, Surface
from jaxkinetic.model import ExpCosine, required_modes

_WIDENINGS = 8


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A description of the same curves that is not the model, and how well it fits.

    Attributes:
        name: what it is.
        chi2: its chi-squared.
        dof: points less parameters.
        p_value: probability of a larger chi-squared if it were true; NaN where errors are not known.
        aic: Akaike's criterion, chi2 + 2 parameters; lower is better.
    """

    name: str
    chi2: float
    dof: int
    p_value: float
    aic: float


@dataclasses.dataclass(frozen=True, repr=False)
class CurveFit(Shown):
    """Result of `fit_curves`.

    Attributes:
        beta: best sharpness within the search range; see ``identifiable`` before quoting it.
        lam: best positional bias within the search range; likewise.
        ridge: r = 2 lam / (a_1 t), the combination to which shallow curves are sensitive.
        intervals: profile-likelihood intervals of "beta" and "lam".
        identifiable: whether the interval of "beta" and of "lam" is closed.
        chi2: smallest chi-squared.
        dof: points less parameters: beta, lam, and two per curve.
        p_value: probability of a larger chi-squared if the model were true; NaN where errors are not known.
        aic: Akaike's criterion, chi2 + 2 parameters.
        alternatives: a constant and a quadratic in sigma_0 for each curve.
        surface: chi-squared over the whole search range.
        profiles: for "beta" and "lam", the smallest chi-squared at each of its values.
        curves: the curves that were fitted.
        time: depth t, fixed.
        vocab_size: vocabulary size M, fixed.
        errors_known: whether n_questions were given; if not, the scatter round the best fit sets the errors.
        level: coverage of the intervals and of `band`.
    """

    beta: float
    lam: float
    ridge: float
    intervals: dict[str, Interval]
    identifiable: dict[str, bool]
    chi2: float
    dof: int
    p_value: float
    aic: float
    alternatives: list[Alternative]
    surface: Surface
    profiles: dict[str, Profile]
    curves: list[RetrievalCurve]
    time: float
    vocab_size: int
    errors_known: bool
    level: float
    _data: CurveData = dataclasses.field(repr=False)
    _bounds: Range = dataclasses.field(repr=False)

    def describe(self, name: str) -> str:
        """Interval of "beta" or "lam" in words, with "unidentified" where the data leave it open."""
        check_choice("name", name, self.intervals)
        interval = self.intervals[name]
        if interval.closed:
            return f"in {interval} ({100 * self.level:g} %)"
        return f"unidentified, {interval}"

    def predict(self, curve: RetrievalCurve, sources: Any = None) -> np.ndarray:
        """Fitted accuracy of one of the fitted curves, at its own positions or at others in (0, 1]."""
        fitted, _ = self._extremes(curve, sources, np.array([self.beta]), np.array([self.lam]), np.zeros(1))
        return fitted[0]

    def band(self, curve: RetrievalCurve, sources: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest accuracy that the data allow at each position: a profile-likelihood band.

        Over every (beta, lam, c0, c1) with c1 >= 0 whose chi-squared exceeds the smallest by no more than the
        threshold of ``level`` for one quantity.
        """
        # What (beta, lam) leaves of the threshold is free for the line.
        left = threshold(self.level) - (self._region.chi2 - self.chi2).clip(0)
        inside = left >= 0
        low, high = self._extremes(
            curve, sources, self._region.beta[inside], self._region.lam[inside], left[inside]
        )
        return low.min(axis=0), high.max(axis=0)

    @functools.cached_property
    def _region(self) -> Surface:
        # Bands alone need it.
        limit = self.chi2 + threshold(self.level)
        return _region(limit, self.surface, self.profiles, self._data, self._bounds)

    def _extremes(self, curve, sources, beta, lam, left):
        index = next((i for i, c in enumerate(self.curves) if c is curve), None)
        if index is None:
            raise ValueError("Argument `curve` must be one of the fitted curves; see `.curves`.")
        wanted = curve.sources if sources is None else as_positions("sources", sources)
        # Padded to few shapes, so that a notebook's many calls compile once.
        b, v, r = (jnp.asarray(np.pad(x, (0, -x.size % 64), mode="edge")) for x in (beta, lam, left))
        everywhere = np.pad(wanted, (0, -wanted.size % 64), mode="edge")
        chunks = [
            _extreme_lines(b[i : i + 64], v[i : i + 64], r[i : i + 64], jnp.asarray(everywhere), self._data)
            for i in range(0, b.size, 64)
        ]
        low, high = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return low[: beta.size, index, : wanted.size], high[: beta.size, index, : wanted.size]


def fit_curves(
    curves: Sequence[RetrievalCurve] | RetrievalCurve,
    time: float = 1.0,
    vocab_size: int = 8,
    level: float = 0.95,
    beta_range: tuple[float, float] = (0.01, 10.0),
    lam_range: tuple[float, float] = (-20.0, 100.0),
) -> CurveFit:
    """Fit shared beta and lam to one or several curves: accuracy = c0 + c1 S_t(sigma_0; beta, lam).

    c0 and c1 >= 0 belong to each curve and are eliminated exactly; points are weighted by their binomial
    errors. Depth t and vocabulary size M are fixed: only a_n t enters the profile, so that t cannot be told
    from beta. The minimum is sought on a grid and by Levenberg-Marquardt from many starts; intervals are
    those of the profile likelihood.

    Args:
        curves: measured curves, for example the lengths of one model.
        time: depth t.
        vocab_size: vocabulary size M of the decoder.
        level: coverage of intervals and bands.
        beta_range: sharpness that is searched.
        lam_range: positional bias that is searched; it has to include 0.

    Returns:
        The fit. An interval that reaches the end of the range is open there, and its parameter "unidentified".

    Raises:
        ValueError: if there are no curves, fewer positions than parameters, curves some of which have
            n_questions and some not, constant curves only, or ranges that cannot be searched.
    """
    curves = as_curves(curves)
    check_problem(curves, time, vocab_size)
    check_level(level)
    bounds = check_ranges(beta_range, lam_range)
    n_points = sum(c.sources.size for c in curves)
    n_parameters = 2 + 2 * len(curves)
    n_modes = required_modes(bounds.beta[1], np.float64)
    data, errors_known = stack_curves(curves, time, vocab_size, n_modes)

    whole = search.surface(data, bounds)
    best = _minimum(whole, data, bounds)
    if not errors_known:
        # The scatter round the best fit stands for the errors: chi-squared becomes its degrees of freedom.
        scale = max(n_points - n_parameters, 1) / max(best[2], np.finfo(float).tiny ** 0.5)
        data = eqx.tree_at(lambda d: d.weight, data, data.weight * scale)
        whole = whole._replace(chi2=whole.chi2 * scale)
        best = (best[0], best[1], best[2] * scale)

    intervals, profiles = profile_intervals(best, whole, data, bounds, level)
    beta, lam, chi2 = profiles["beta"].lowest()
    dof = n_points - n_parameters
    rate = float(ExpCosine(beta).growth_rates()[0])
    return CurveFit(
        beta=beta,
        lam=lam,
        ridge=2 * lam / (rate * time),
        intervals=intervals,
        identifiable={name: interval.closed for name, interval in intervals.items()},
        chi2=chi2,
        dof=dof,
        p_value=goodness(chi2, dof) if errors_known else math.nan,
        aic=chi2 + 2 * n_parameters,
        alternatives=[
            _polynomial(name, degree, data, errors_known) for name, degree in (("constant", 0), ("quadratic", 2))
        ],
        surface=whole,
        profiles=profiles,
        curves=curves,
        time=float(time),
        vocab_size=vocab_size,
        errors_known=errors_known,
        level=level,
        _data=data,
        _bounds=bounds,
    )


def check_problem(curves: Sequence[RetrievalCurve], time: float, vocab_size: int) -> None:
    """Refuse single precision, curves that cannot be fitted, and a depth or a vocabulary out of range."""
    require_double("Fits")
    _check_curves(curves)
    check_positive("time", time)
    check_at_least("vocab_size", vocab_size, 2)
    check_sensible(time=time, vocab_size=vocab_size)


def check_ranges(beta_range: tuple[float, float], lam_range: tuple[float, float]) -> Range:
    """Refuse ranges that cannot be searched."""
    check_positive("beta_range", np.asarray(beta_range))
    check_sensible(beta_range=beta_range, lam_range=lam_range)
    if not beta_range[0] < beta_range[1]:
        raise ValueError(f"Argument `beta_range` must increase, but is {beta_range}.")
    if not (-math.inf < lam_range[0] < 0 < lam_range[1] < math.inf):
        raise ValueError(f"Argument `lam_range` must be finite and include 0, but is {lam_range}.")
    return Range((float(beta_range[0]), float(beta_range[1])), (float(lam_range[0]), float(lam_range[1])))


def _check_curves(curves) -> None:
    if len({c.n_questions is None for c in curves}) > 1:
        raise ValueError("Argument `curves` must have n_questions in every curve or in none.")
    n_points, n_parameters = sum(c.sources.size for c in curves), 2 + 2 * len(curves)
    if n_points < n_parameters:
        raise ValueError(
            f"Argument `curves` must have at least as many positions as parameters, but has {n_points} "
            f"positions for {n_parameters} parameters (beta, lam, and two per curve)."
        )


def _minimum(whole: Surface, data: CurveData, bounds: Range) -> tuple[float, float, float]:
    """Polish the local minima of the grid and return the lowest (beta, lam, chi2)."""
    local = np.where(search.is_local_minimum(whole.chi2), whole.chi2, np.inf)
    starts = np.argsort(local, axis=None)[: search.LANES]
    polished = search.polish(whole.beta.ravel()[starts], whole.lam.ravel()[starts], FREE, data, bounds)
    return search.settle(polished, data, bounds)


def _region(limit: float, whole: Surface, profiles: dict[str, Profile], data: CurveData, bounds: Range) -> Surface:
    """Points that cover the allowed region: both profiles, and a grid on the rectangle of (b, q) round it."""
    known = [Surface(p.beta, p.lam, p.chi2) for p in profiles.values()] + [
        Surface(whole.beta.ravel(), whole.lam.ravel(), whole.chi2.ravel())
    ]
    inside = np.concatenate([k.chi2 for k in known]) <= limit
    beta, lam, chi2 = (np.concatenate(column)[inside] for column in zip(*known, strict=True))
    b, q = search.b_of(beta, bounds), search.q_of(lam, beta, bounds)
    # The ends of the interval of beta bound b; in q the region may go on beyond the points known.
    low, high = float(q.min()), float(q.max())
    b_range = float(b.min()), float(b.max())
    fine = search.surface(data, bounds, b_range, (low, high))
    for _ in range(_WIDENINGS):
        # A side whose lam has reached the end of the range goes no further, whatever q.
        below = bool(np.any((fine.chi2[:, 0] <= limit) & (fine.lam[:, 0] > 0.999 * bounds.lam[0])))
        above = bool(np.any((fine.chi2[:, -1] <= limit) & (fine.lam[:, -1] < 0.999 * bounds.lam[1])))
        if not (below or above):
            break
        span = high - low
        low, high = low - 0.5 * span * below, high + 0.5 * span * above
        fine = search.surface(data, bounds, b_range, (low, high))
    # The edges of the band are smooth in (b, q): every other node draws them as well as all.
    merged = [np.concatenate([k, f[::2, ::2].ravel()]) for k, f in zip((beta, lam, chi2), fine, strict=True)]
    return Surface(merged[0], merged[1], merged[2])


def _polynomial(name: str, degree: int, data: CurveData, errors_known: bool) -> Alternative:
    """Weighted polynomial in sigma_0 of each curve."""
    total, n_points, n_parameters = 0.0, 0, 0
    for sources, accuracy, weight in zip(
        *(np.asarray(x) for x in (data.sources, data.accuracy, data.weight)), strict=True
    ):
        real = weight > 0
        root = np.sqrt(weight[real])
        basis = root[:, None] * np.vander(sources[real], degree + 1)
        coefficients = np.linalg.lstsq(basis, root * accuracy[real], rcond=None)[0]
        total += float(np.sum((basis @ coefficients - root * accuracy[real]) ** 2))
        n_points += int(real.sum())
        # Two points have a line through them, not a quadratic.
        n_parameters += min(degree + 1, int(real.sum()))
    dof = n_points - n_parameters
    p_value = goodness(total, dof) if errors_known else math.nan
    return Alternative(name, total, dof, p_value, total + 2 * n_parameters)


@eqx.filter_jit
def _extreme_lines(beta, lam, left, wanted, data):
    everywhere = jnp.broadcast_to(wanted, (data.sources.shape[0], wanted.shape[0]))

    def one(beta, lam, left):
        best, _ = lines(beta, lam, data)
        values, _ = shapes(beta, lam, everywhere, data)
        return jax.vmap(lambda line, at: line.extremes(at, left))(best, values)

    return jax.vmap(one)(beta, lam, left)


def goodness(chi2: float, dof: int) -> float:
    """Probability of a larger chi-squared if the model were true."""
    return float(jax.scipy.special.gammaincc(dof / 2, chi2 / 2)) if dof > 0 else math.nan
