"""Least-squares fit of a theory to measured retrieval curves, with profile-likelihood intervals."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic import theories
from jaxkinetic._show import Shown
from jaxkinetic._types import as_positions, check_choice, check_level, check_type, require_double
from jaxkinetic.inference.data.curves import RetrievalCurve, as_curves
from jaxkinetic.inference.fit import search
from jaxkinetic.inference.fit.alternatives import DEGREES, Alternative, fit_polynomial, goodness
from jaxkinetic.inference.fit.fitted_values import FittedValues
from jaxkinetic.inference.fit.intervals import Interval, profile_intervals, threshold
from jaxkinetic.inference.fit.likelihood import CurveData, lines, shapes, stack_curves
from jaxkinetic.inference.fit.search import N_STARTS, Scan
from jaxkinetic.theories import Theory

_CHUNK = 64


@dataclasses.dataclass(frozen=True, repr=False)
class CurveFit(FittedValues, Shown):
    """Result of `fit_curves`. Parameters and quantities are attributes too: ``fit.beta`` is ``fit.values["beta"]``.

    Attributes:
        theory: what was fitted.
        values: best value of each parameter within its range; see ``identifiable`` before quoting one.
        quantities: what follows from them; for the paper's theory the ridge r = 2 lam / (a_1 t), the combination to
            which shallow curves are sensitive.
        intervals: profile-likelihood interval of each parameter.
        identifiable: whether that interval is closed.
        chi2: smallest chi-squared.
        dof: points less parameters: those of the theory, and two per curve.
        p_value: probability of a larger chi-squared if the theory were true; NaN where errors are not known.
        aic: Akaike's criterion, chi2 + 2 parameters.
        alternatives: a constant and a quadratic in sigma_0 for each curve.
        surface: chi-squared over the whole search range.
        profiles: for each parameter, the smallest chi-squared at each of its values.
        curves: the curves that were fitted.
        errors_known: whether n_questions were given; if not, the scatter round the best fit sets the errors.
        level: coverage of the intervals and of `band`.
    """

    theory: Theory
    values: dict[str, float]
    quantities: dict[str, float]
    intervals: dict[str, Interval]
    identifiable: dict[str, bool]
    chi2: float
    dof: int
    p_value: float
    aic: float
    alternatives: list[Alternative]
    surface: Scan
    profiles: dict[str, Scan]
    curves: list[RetrievalCurve]
    errors_known: bool
    level: float
    _data: CurveData = dataclasses.field(repr=False)

    def describe(self, name: str) -> str:
        """Interval of a parameter in words, with "unidentified" where the data leave it open."""
        check_choice("name", name, self.intervals)
        interval = self.intervals[name]
        if interval.closed:
            return f"in {interval} ({100 * self.level:g} %)"
        return f"unidentified, {interval}"

    def summary(self) -> str:
        """Say what was fitted, every parameter with its interval, and how well it and the alternatives fit."""
        lines = [f"  model       accuracy = c0 + c1 {self.theory}"]
        lines += [f"  {name:<11} {self.describe(name)}; best {value:.4g}" for name, value in self.values.items()]
        lines += [f"  {name:<11} {value:.4g} at the best point" for name, value in self.quantities.items()]
        for name, fit in [("chi-squared", self), *((f"  {a.name}", a) for a in self.alternatives)]:
            likely = f"p = {fit.p_value:.3g}" if self.errors_known else "p unknown"
            how_well = f"{fit.chi2:.2f} for {fit.dof} degrees of freedom, {likely}, AIC {fit.aic:.1f}"
            lines.append(f"  {name:<11} {how_well}")
        if not self.errors_known:
            lines.append("  errors      not given: taken from the scatter round the best fit")
        return "\n".join(lines)

    def predict(self, curve: RetrievalCurve, sources: Any = None) -> np.ndarray:
        """Fitted accuracy of one of the fitted curves, at its own positions or at others in (0, 1]."""
        best = np.array([list(self.values.values())])
        return self._extremes(curve, sources, best, np.zeros(1))[0][0]

    def band(self, curve: RetrievalCurve, sources: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest accuracy that the data allow at each position: a profile-likelihood band.

        Over every choice of the parameters, c0 and c1 >= 0 whose chi-squared exceeds the smallest by no more than
        the threshold of ``level`` for one quantity.
        """
        # What the parameters leave of the threshold is free for the line.
        left = threshold(self.level) - (self._region.chi2 - self.chi2).clip(0)
        low, high = self._extremes(curve, sources, self._region.values, left)
        return low.min(axis=0), high.max(axis=0)

    @functools.cached_property
    def _region(self) -> Scan:
        """Points that cover the allowed region: those known, and a grid round them. Bands alone need it."""
        limit = self.chi2 + threshold(self.level)
        known = self.surface.and_also(*self.profiles.values())
        inside = known.values[known.chi2 <= limit]
        if not self.values:
            return Scan(inside, known.chi2[known.chi2 <= limit])
        chi2_at = functools.partial(search.chi2_at, data=self._data)
        fine = self.theory.coordinates.cover(inside, chi2_at, limit)
        found = Scan(inside, known.chi2[known.chi2 <= limit]).and_also(Scan(fine, chi2_at(fine)))
        kept = found.chi2 <= limit
        return Scan(found.values[kept], found.chi2[kept])

    def _extremes(self, curve, sources, values, left):
        index = next((i for i, c in enumerate(self.curves) if c is curve), None)
        if index is None:
            raise ValueError("Argument `curve` must be one of the fitted curves; see `.curves`.")
        wanted = curve.sources if sources is None else as_positions("sources", sources)
        # Padded to few shapes, so that a notebook's many calls compile once.
        n, extra = len(values), -len(values) % _CHUNK
        v, r = jnp.asarray(np.pad(values, ((0, extra), (0, 0)), mode="edge")), np.pad(left, (0, extra), mode="edge")
        everywhere = jnp.asarray(np.pad(wanted, (0, -wanted.size % _CHUNK), mode="edge"))
        chunks = [
            _extreme_lines(v[i : i + _CHUNK], jnp.asarray(r[i : i + _CHUNK]), everywhere, self._data)
            for i in range(0, n, _CHUNK)
        ]
        low, high = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return low[:n, index, : wanted.size], high[:n, index, : wanted.size]


def fit_curves(
    curves: Sequence[RetrievalCurve] | RetrievalCurve, *, theory: Theory | None = None, level: float = 0.95
) -> CurveFit:
    """Fit a theory to one or several curves: accuracy = c0 + c1 s(sigma_0), with parameters that all curves share.

    c0 and c1 >= 0 belong to each curve and are eliminated exactly; points are weighted by their binomial errors.
    The minimum is sought on a grid and by Levenberg-Marquardt from many starts; intervals are those of the profile
    likelihood.

    Args:
        curves: measured curves, for example the lengths of one model.
        theory: what gives the shape s, and the ranges that are searched; `theories.paper` if None.
        level: coverage of intervals and bands.

    Returns:
        The fit. An interval that reaches the end of the range is open there, and its parameter "unidentified".

    Raises:
        ValueError: if there are no curves, fewer positions than parameters, curves some of which have
            n_questions and some not, or constant curves only.
    """
    theory = theories.paper() if theory is None else theory
    curves = check_problem(curves, theory)
    check_level(level)
    n_points, n_parameters = sum(c.sources.size for c in curves), len(theory.parameters) + 2 * len(curves)
    data, errors_known = stack_curves(curves, theory)

    whole = search.scan_all(data)
    best = _minimum(whole, data)
    if not errors_known:
        # The scatter round the best fit stands for the errors: chi-squared becomes its degrees of freedom.
        scale = max(n_points - n_parameters, 1) / max(best.chi2, np.finfo(float).tiny ** 0.5)
        data = eqx.tree_at(lambda d: d.weight, data, data.weight * scale)
        whole, best = (Scan(scan.values, scan.chi2 * scale) for scan in (whole, best))

    best, intervals, profiles = profile_intervals(best, whole, data, level)
    for profile in profiles:
        best = min(best, profile.lowest(), key=lambda scan: scan.chi2)
    dof, chi2 = n_points - n_parameters, float(best.chi2)
    named = functools.partial(zip, theory.names, strict=True)
    return CurveFit(
        theory=theory,
        values=dict(named(best.values.tolist())),
        quantities=theory.quantities(best.values),
        intervals=dict(named(intervals)),
        identifiable={name: interval.closed for name, interval in named(intervals)},
        chi2=chi2,
        dof=dof,
        p_value=goodness(chi2, dof) if errors_known else math.nan,
        aic=chi2 + 2 * n_parameters,
        alternatives=[fit_polynomial(name, degree, data, errors_known) for name, degree in DEGREES.items()],
        surface=whole,
        profiles=dict(named(profiles)),
        curves=curves,
        errors_known=errors_known,
        level=level,
        _data=data,
    )


def check_problem(curves: Any, theory: Theory) -> list[RetrievalCurve]:
    """Return the curves as a list; refuse single precision and curves that a theory cannot be fitted to."""
    check_type("theory", theory, Theory)
    curves = as_curves(curves)
    require_double("Fits")
    if len({c.n_questions is None for c in curves}) > 1:
        raise ValueError("Argument `curves` must have n_questions in every curve or in none.")
    n_points, n_parameters = sum(c.sources.size for c in curves), len(theory.parameters) + 2 * len(curves)
    if n_points < n_parameters:
        raise ValueError(
            f"Argument `curves` must have at least as many positions as parameters, but has {n_points} "
            f"positions for {n_parameters} parameters ({', '.join([*theory.names, 'and two per curve'])})."
        )
    return curves


def _minimum(whole: Scan, data: CurveData) -> Scan:
    """Polish the local minima of the grid and return the lowest point."""
    local = np.where(search.is_local_minimum(whole.chi2), whole.chi2, np.inf)
    starts = whole.flat().values[np.argsort(local, axis=None)[:N_STARTS]]
    return search.polish_until_still(search.polish(starts, np.zeros(starts.shape, bool), data), data)


@eqx.filter_jit
def _extreme_lines(values, left, wanted, data):
    everywhere = jnp.broadcast_to(wanted, (data.sources.shape[0], wanted.shape[0]))

    def one(values, left):
        best, _ = lines(values, data)
        at = shapes(values, data, everywhere)
        return jax.vmap(lambda line, at: line.extremes(at, left))(best, at)

    return jax.vmap(one)(values, left)
