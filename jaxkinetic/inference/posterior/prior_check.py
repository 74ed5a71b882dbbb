"""Refusal of priors under which curves like these do not happen.

Curves that reject the model itself are no such case: they do so within the priors and outside of them alike.
"""

import dataclasses
from collections.abc import Sequence

from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.fit.alternatives import goodness
from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.posterior.adaptive_grid import centres_of
from jaxkinetic.inference.posterior.peaks import LikelihoodPeaks, best_log_likelihood, find_peaks
from jaxkinetic.inference.posterior.plane import Plane
from jaxkinetic.inference.posterior.priors import Priors

_SPREADS = 6
_UNHEARD_OF = 1e-6
_FAR_WORSE = 50.0
_COARSE = 64


def check_priors(
    curves: Sequence[RetrievalCurve], best: LikelihoodPeaks, data: Sequence[CurveData], priors: Priors
) -> None:
    """Refuse priors of the mean or of the contrast, or ranges of a theory's parameters, that exclude the data.

    A mean or a contrast excludes them beyond six standard deviations. Ranges do if the best chi-squared within them
    has a probability below 1e-6 and exceeds by 50 that of the theory's widest (a likelihood e^25 times larger).

    Args:
        curves: the curves.
        best: the best fit within the ranges.
        data: the curves, once for each theory.
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
    wider = [dataclasses.replace(d, theory=d.theory.widest) for d in data]
    given, plane = Plane(data[0].theory), Plane(wider[0].theory)
    if plane.ranges == given.ranges:
        return
    u = centres_of(*plane.ranges[0], _COARSE)
    ends = plane.ends_of_rows(u)
    second = plane.second_at(centres_of(ends[:, :1], ends[:, 1:], _COARSE), u)
    found = find_peaks(best_log_likelihood(u, second, wider, priors), u, wider, priors)
    if best.chi2 - found.chi2 > _FAR_WORSE:
        both = given.first, given.second
        ranges = " and ".join(f"{p.name} from {float(p.low):g} to {float(p.high):g}" for p in both)
        there = ", ".join(f"{p.name} = {x:.3g}" for p, x in zip(both, found.values, strict=True))
        raise ValueError(
            f"Argument `theory` excludes the data: with {ranges} chi-squared is {best.chi2:.4g} at best for "
            f"{n_points} points, and {found.chi2:.4g} at {there}. Widen its ranges."
        )
