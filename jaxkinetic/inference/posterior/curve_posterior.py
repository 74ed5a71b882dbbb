"""The exact posterior of a theory's two parameters from measured curves.

The likelihood is binomial in its normal form; offset and contrast of each curve are integrated in closed form, and
what is left is summed over a grid in the scales in which the priors are flat. The grid adapts: rows of equal first
parameter crowd where the probability is, and each has a window of the second of its own, because the two may be too
correlated for a rectangle and there may be two modes.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxkinetic import theories
from jaxkinetic._types import check_at_least, check_level, check_type, require_double
from jaxkinetic.inference.data.curves import RetrievalCurve, as_curves
from jaxkinetic.inference.fit.alternatives import goodness
from jaxkinetic.inference.fit.likelihood import CurveData, stack_curves
from jaxkinetic.inference.posterior.adaptive_grid import (
    adapt,
    centres_of,
    column_marginal,
    edges_of,
    ends_of_the_range,
    prior_share,
    raise_to,
    shortest_interval,
)
from jaxkinetic.inference.posterior.grid_likelihood import log_likelihood
from jaxkinetic.inference.posterior.peaks import LikelihoodPeaks, find_peaks
from jaxkinetic.inference.posterior.plane import Plane
from jaxkinetic.inference.posterior.posterior import Posterior
from jaxkinetic.inference.posterior.prior_check import check_priors
from jaxkinetic.inference.posterior.priors import Priors, alternative_columns, linear_evidence
from jaxkinetic.theories import Theory

ALTERNATIVES = ("constant", "quadratic", "free-form")
_COARSE = 64
_UNSEEN = 0.05


def curve_posterior(
    curves: Sequence[RetrievalCurve] | RetrievalCurve,
    *,
    theory: Theory | Sequence[Theory] | None = None,
    priors: Priors | None = None,
    level: float = 0.9,
    grid: tuple[int, int] = (200, 200),
) -> Posterior:
    """Posterior of the two parameters of a theory, shared by all curves, of several lengths or several models.

    Args:
        curves: measured curves with n_questions. To ask whether two models share parameters, compare the
            log_evidence of both together with the sum of those of each alone.
        theory: what gives the shape; priors are flat in the scales of its parameters over their ranges. Several
            theories of the same parameters, as the paper's at several depths, have equal prior probability.
            `theories.paper` if None.
        priors: those of each curve's mean and contrast; see `Priors`; its defaults if None.
        level: probability in the intervals.
        grid: number of values of the first and of the second parameter.

    A mode narrower than a cell beside a wide one is resolved no finer than the window of its row; more cells
    resolve more.

    Returns:
        The posterior. An interval whose end the prior sets is open there, and its parameter unidentified.

    Raises:
        ValueError: if there are no curves, curves without n_questions, constant curves only, arguments out of
            range, theories without two common parameters, priors that exclude the data, or a grid too coarse for
            the likelihood.
    """
    curves = as_curves(curves)
    priors = Priors() if priors is None else priors
    check_type("priors", priors, Priors)
    weighed = _weighed(theories.paper() if theory is None else theory)
    _check(curves, level, grid)
    grid = (int(grid[0]), int(grid[1]))
    data = [stack_curves(curves, each)[0] for each in weighed]

    g, plane = _adapted(data, priors, grid), Plane(weighed[0])
    check_priors(curves, g.peaks, data, priors)
    top = g.log_likelihood.max()
    relative = np.exp(g.log_likelihood - top) * prior_share(g.rows, g.edges, plane.ranges)
    total = relative.sum()
    intervals = _intervals(g, relative.sum(axis=0) / total, plane, level)
    dof = sum(c.sources.size for c in curves) - 2 - 2 * len(curves)
    return Posterior(
        theories=weighed,
        first=plane.first_at(g.u),
        second=g.second,
        mass=relative / total,
        intervals=intervals,
        identifiable={name: interval.closed for name, interval in intervals.items()},
        log_evidence=float(top + np.log(total / len(data))),
        log_evidence_of={name: _alternative(name, curves, priors) for name in ALTERNATIVES},
        chi2=g.peaks.chi2,
        dof=dof,
        p_value=goodness(g.peaks.chi2, dof),
        curves=curves,
        priors=priors,
        level=level,
        _rows=g.rows,
        _edges=g.edges,
        _data=data,
    )


class _Grid(NamedTuple):
    """A grid that has adapted: centres u and second, edges of rows and cells, the log likelihood of each theory."""

    u: np.ndarray
    second: np.ndarray
    rows: np.ndarray
    edges: np.ndarray
    log_likelihood: np.ndarray
    peaks: LikelihoodPeaks


def _adapted(data: Sequence[CurveData], priors: Priors, grid: tuple[int, int]) -> _Grid:
    """Adapt to where the probability is, coarsely at first."""
    plane = Plane(data[0].theory)
    shape = min(grid[0], _COARSE), min(grid[1], _COARSE)
    rows = np.linspace(*plane.ranges[0], shape[0] + 1)
    windows = plane.ends_of_rows((rows[1:] + rows[:-1]) / 2)
    finest, found = np.inf, None
    while True:
        u = (rows[1:] + rows[:-1]) / 2
        second = plane.second_at(centres_of(windows[:, :1], windows[:, 1:], shape[1]), u)
        edges = plane.v_of(plane.second_at(edges_of(windows, shape[1]), u))
        likelihood = np.stack([log_likelihood(plane.first_at(u), second, d, priors) for d in data])
        best = likelihood.max(axis=0)
        found = find_peaks(best, u, data, priors) if found is None else found
        free = ~found.on_edge
        guided = raise_to(best, (found.u[free], found.v[free], found.log_likelihood[free]), rows, edges)
        shares = np.exp(guided - guided.max()) * prior_share(rows, edges, plane.ranges)
        shares /= shares.sum()
        # Once the likeliest cell holds no less than before, adapting gains nothing: now all cells that are wanted,
        # which adapt again to what only they can tell apart.
        no_gain = shares.max() > 0.8 * finest
        if no_gain and shape == grid:
            break
        finest, shape = (np.inf, grid) if no_gain else (shares.max(), shape)
        rows, windows = adapt(guided, shares.sum(axis=1), rows, windows, plane.ends_of_rows, shape[0])
    unseen = float(shares[guided > best + 1].sum())
    if unseen > _UNSEEN:
        raise ValueError(
            f"Argument `grid` is too coarse for these curves: cells of {grid} miss peaks of the likelihood that "
            f"may hold {100 * unseen:.0f} % of the probability. Raise it."
        )
    return _Grid(u, second, rows, edges, likelihood, found)


def _intervals(g, joint, plane, level):
    """Shortest intervals of both parameters, open where the range sets an end and not the data."""
    marginals = (g.rows, joint.sum(axis=1)), column_marginal(joint, g.edges)
    by_range = ends_of_the_range(
        g.log_likelihood.max(axis=0), g.rows, g.edges, plane.ranges, level,
        (g.peaks.u, g.peaks.v, g.peaks.log_likelihood), g.peaks.on_edge,
    )  # fmt: skip
    found = {}
    for k, parameter in enumerate((plane.first, plane.second)):
        i = shortest_interval(*marginals[k], plane.ranges[k], parameter.unscaled, level)
        low, high = by_range[k]
        found[parameter.name] = dataclasses.replace(i, low_open=i.low_open or low, high_open=i.high_open or high)
    return found


def _check(curves, level, grid):
    require_double("Posteriors")
    for curve in curves:
        if curve.n_questions is None:
            raise ValueError(f"Argument `curves` must have n_questions, but {curve.label} has none.")
    check_level(level)
    if np.shape(grid) != (2,):
        raise ValueError(f"Argument `grid` must be two numbers, of rows and of columns, but is {grid!r}.")
    for n in grid:
        check_at_least("grid", n, 16)


def _weighed(given) -> tuple[Theory, ...]:
    """Theories that share the prior's probability: of two parameters, and of the same."""
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    if not found:
        raise ValueError("Argument `theory` must hold one theory or several, but holds none.")
    for theory in found:
        check_type("theory", theory, Theory)
        if len(theory.parameters) != 2:
            raise ValueError(
                f"Argument `theory` must have two parameters for a posterior on a grid, but {theory} has "
                f"{len(theory.parameters)}."
            )
        if any(not _is_same(*pair) for pair in zip(theory.parameters, found[0].parameters, strict=True)):
            raise ValueError(
                f"Argument `theory` must hold theories of the same parameters, but {theory} has others."
            )
    return found


def _is_same(a, b):
    return (a.name, a.low, a.high, a.scale, a.width) == (b.name, b.low, b.high, b.scale, b.width)


def _alternative(name, curves, priors):
    return sum(
        linear_evidence(alternative_columns(name, c.sources, priors), c.accuracy, c.standard_error**-2, priors)
        for c in curves
    )
