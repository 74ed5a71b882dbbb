"""Refusal of priors under which curves like these do not happen.

Curves that reject the model itself are no such case: they do so within the priors and outside of them alike.
"""

import dataclasses
from collections.abc import Sequence

from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.fit.alternatives import goodness
from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.posterior.adaptive_grid import centres_of
from jaxkinetic.inference.posterior.peaks import Summits, likeliest, summits
from jaxkinetic.inference.posterior.prior_coordinates import ends_of_rows, lam_at, ranges
from jaxkinetic.inference.posterior.priors import Priors

_SPREADS = 6
_UNHEARD_OF = 1e-6
_FAR_WORSE = 50.0
_COARSE = 64


def check_priors(
    curves: Sequence[RetrievalCurve], best: Summits, data: Sequence[CurveData], priors: Priors
) -> None:
    """Refuse priors of the mean, of the contrast, or ranges of beta and lam that exclude the data.

    A mean or a contrast excludes them beyond six standard deviations. Ranges do if the best chi-squared within them
    has a probability below 1e-6 and exceeds by 50 that of the default ranges (a likelihood e^25 times larger).

    Args:
        curves: the curves.
        best: the best fit within the ranges of the priors.
        data: the curves, once for each depth and vocabulary.
        priors: what is checked.
    """
    _check_ranges(curves, best, data, priors)
    for curve, residual in zip(curves, best.residuals, strict=True):
        fitted = curve.accuracy - residual[: curve.sources.size] * curve.standard_error
        if abs(fitted.mean() - priors.mean) > _SPREADS * priors.mean_spread:
            raise ValueError(
                f"Argument `priors` excludes the data: the mean accuracy of {curve.label} is {fitted.mean():.3g}, "
                f"its prior {priors.mean:g} +- {priors.mean_spread:g}."
            )
        if fitted.std() > _SPREADS * priors.contrast_spread:
            raise ValueError(
                f"Argument `priors` excludes the data: {curve.label} varies by {fitted.std():.3g} over its "
                f"positions, the prior's standard deviation is {priors.contrast_spread:g}."
            )


def _check_ranges(curves, best, data, priors):
    # With every point as a degree of freedom the probability is rather too large.
    n_points = sum(c.sources.size for c in curves)
    if goodness(best.chi2, n_points) > _UNHEARD_OF:
        return
    names = ("beta_range", "lam_range")
    given = [getattr(priors, name) for name in names]
    wide = [
        (min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(given, (getattr(Priors, n) for n in names), strict=True)
    ]
    if wide == [tuple(g) for g in given]:
        return
    elsewhere = dataclasses.replace(priors, **dict(zip(names, wide, strict=True)))
    (low, high), _ = ranges(elsewhere)
    u = centres_of(low, high, _COARSE)
    ends = ends_of_rows(u, elsewhere)
    lam = lam_at(centres_of(ends[:, :1], ends[:, 1:], _COARSE), u, elsewhere)
    found = summits(likeliest(u, lam, data, elsewhere), u, data, elsewhere)
    if best.chi2 - found.chi2 > _FAR_WORSE:
        raise ValueError(
            f"Argument `priors` excludes the data: within beta_range {given[0]} and lam_range {given[1]} "
            f"chi-squared is {best.chi2:.4g} at best for {n_points} points, and {found.chi2:.4g} at "
            f"beta = {found.beta:.3g}, lam = {found.lam:.3g}. Widen them."
        )
