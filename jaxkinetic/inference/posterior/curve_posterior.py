"""The exact posterior of beta and lam, if wanted of t and M, from measured curves.

The likelihood is binomial in its normal form; offset and contrast of each curve are integrated in closed form, and
what is left is summed over a grid in the `coordinates` in which the priors are flat. The grid adapts: rows of equal
beta crowd where the probability is, and each has a window of lam of its own, because beta and lam are too
correlated for a rectangle and there may be two modes.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import (
    as_numbers,
    check_at_least,
    check_level,
    check_positive,
    check_type,
    require_double,
)
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
from jaxkinetic.inference.posterior.peaks import Summits, summits
from jaxkinetic.inference.posterior.posterior import Posterior
from jaxkinetic.inference.posterior.prior_check import check_priors
from jaxkinetic.inference.posterior.prior_coordinates import ends_of_rows, lam_at, lam_of_v, ranges, v_of
from jaxkinetic.inference.posterior.priors import Priors, alternative_columns, linear_evidence
from jaxkinetic.theories import paper

ALTERNATIVES = ("constant", "quadratic", "free-form")
_COARSE = 64
_UNSEEN = 0.05


def curve_posterior(
    curves: Sequence[RetrievalCurve] | RetrievalCurve,
    time: float | Sequence[float] = 1.0,
    vocab_size: int | Sequence[int] = 8,
    priors: Priors | None = None,
    level: float = 0.9,
    grid: tuple[int, int] = (200, 200),
) -> Posterior:
    """Posterior of beta and lam shared by all curves, of several lengths or several models.

    Args:
        curves: measured curves with n_questions. To ask whether two models share beta and lam, compare the
            log_evidence of both together with the sum of those of each alone.
        time: depth t, or several of equal prior probability.
        vocab_size: vocabulary size M of the decoder, or several of equal prior probability.
        priors: see `Priors`; its defaults if None.
        level: probability in the intervals.
        grid: number of values of beta and of lam.

    A mode narrower than a cell beside a wide one is resolved no finer than the window of its row; more cells
    resolve more.

    Returns:
        The posterior. An interval whose end the prior sets is open there, and its parameter unidentified.

    Raises:
        ValueError: if there are no curves, curves without n_questions, constant curves only, arguments out of
            range, priors that exclude the data, or a grid too coarse for the likelihood.
    """
    curves = as_curves(curves)
    priors = Priors() if priors is None else priors
    check_type("priors", priors, Priors)
    times, sizes = _weighed("time", time), _weighed("vocab_size", vocab_size)
    sizes = [int(m) if m.is_integer() else m for m in sizes.tolist()]
    _check(curves, sizes, level, grid)
    grid = (int(grid[0]), int(grid[1]))
    data = [
        stack_curves(curves, paper(t, m, beta_range=priors.beta_range))[0]
        for t, m in itertools.product(times.tolist(), sizes)
    ]

    g = _adapted(data, priors, grid)
    check_priors(curves, g.summits, data, priors)
    whole = ranges(priors)
    top = g.log_likelihood.max()
    relative = np.exp(g.log_likelihood - top) * prior_share(g.rows, g.edges, whole)
    total = relative.sum()
    joint = relative.sum(axis=0) / total
    intervals = {
        "beta": shortest_interval(g.rows, joint.sum(axis=1), whole[0], np.exp, level),
        "lam": shortest_interval(*column_marginal(joint, g.edges), whole[1], lambda v: lam_of_v(v, priors), level),
    }
    peaks = g.summits.u, g.summits.v, g.summits.log_likelihood
    by_range = ends_of_the_range(
        g.log_likelihood.max(axis=0), g.rows, g.edges, whole, level, peaks, g.summits.on_edge
    )
    for name, (low, high) in zip(intervals, by_range, strict=True):
        i = intervals[name]
        intervals[name] = dataclasses.replace(i, low_open=i.low_open or low, high_open=i.high_open or high)
    dof = sum(c.sources.size for c in curves) - 2 - 2 * len(curves)
    return Posterior(
        np.exp(g.u), g.lam, times, np.asarray(sizes),
        (relative / total).reshape(times.size, len(sizes), *grid), intervals,
        identified={name: interval.closed for name, interval in intervals.items()},
        log_evidence=float(top + np.log(total / len(data))),
        log_evidence_of={name: _alternative(name, curves, priors) for name in ALTERNATIVES},
        chi2=g.summits.chi2,
        dof=dof,
        p_value=goodness(g.summits.chi2, dof),
        curves=curves,
        priors=priors,
        level=level,
        _rows=g.rows,
        _edges=g.edges,
        _data=data,
    )  # fmt: skip


class _Grid(NamedTuple):
    """A grid that has adapted: centres u and lam, edges of rows and cells, the log likelihood of each data set."""

    u: np.ndarray
    lam: np.ndarray
    rows: np.ndarray
    edges: np.ndarray
    log_likelihood: np.ndarray
    summits: Summits


def _adapted(data: Sequence[CurveData], priors: Priors, grid: tuple[int, int]) -> _Grid:
    """Adapt to where the probability is, coarsely at first."""
    whole = ranges(priors)
    shape = min(grid[0], _COARSE), min(grid[1], _COARSE)
    rows, ends = np.linspace(*whole[0], shape[0] + 1), partial(ends_of_rows, priors=priors)
    windows = ends((rows[1:] + rows[:-1]) / 2)
    finest, found = np.inf, None
    while True:
        u = (rows[1:] + rows[:-1]) / 2
        lam = lam_at(centres_of(windows[:, :1], windows[:, 1:], shape[1]), u, priors)
        edges = v_of(lam_at(edges_of(windows, shape[1]), u, priors), priors)
        likelihood = np.stack([log_likelihood(np.exp(u), lam, d, priors.line) for d in data])
        best = likelihood.max(axis=0)
        found = summits(best, u, data, priors) if found is None else found
        free = ~found.on_edge
        guided = raise_to(best, (found.u[free], found.v[free], found.log_likelihood[free]), rows, edges)
        shares = np.exp(guided - guided.max()) * prior_share(rows, edges, whole)
        shares /= shares.sum()
        # Once the likeliest cell holds no less than before, adapting gains nothing: now all cells that are wanted,
        # which adapt again to what only they can tell apart.
        settled = shares.max() > 0.8 * finest
        if settled and shape == grid:
            break
        finest, shape = (np.inf, grid) if settled else (shares.max(), shape)
        rows, windows = adapt(guided, shares.sum(axis=1), rows, windows, ends, shape[0])
    unseen = float(shares[guided > best + 1].sum())
    if unseen > _UNSEEN:
        raise ValueError(
            f"Argument `grid` is too coarse for these curves: cells of {grid} miss peaks of the likelihood that "
            f"may hold {100 * unseen:.0f} % of the probability. Raise it."
        )
    return _Grid(u, lam, rows, edges, likelihood, found)


def _check(curves, sizes, level, grid):
    require_double("Posteriors")
    for curve in curves:
        if curve.n_questions is None:
            raise ValueError(f"Argument `curves` must have n_questions, but {curve.label} has none.")
    for m in sizes:
        check_at_least("vocab_size", m, 2)
    check_sensible(vocab_size=sizes)
    check_level(level)
    if np.shape(grid) != (2,):
        raise ValueError(f"Argument `grid` must be two numbers, of values of beta and of lam, but is {grid!r}.")
    for n in grid:
        check_at_least("grid", n, 16)


def _weighed(name, values):
    """Values of t or M that share the prior's probability."""
    values = np.atleast_1d(as_numbers(name, values))
    check_sensible(**{name: values})
    if values.ndim != 1 or not values.size:
        raise ValueError(f"Argument `{name}` must hold one value or several, but has shape {values.shape}.")
    check_positive(name, values)
    return values


def _alternative(name, curves, priors):
    return sum(
        linear_evidence(alternative_columns(name, c.sources, priors), c.accuracy, c.standard_error**-2, priors)
        for c in curves
    )
