"""Where the likelihood peaks within the prior's range and along its edges, however narrow the peaks are.

A coarse grid steps over narrow ridges. So the best second parameter of each row is sought by a scan that closes in
on it, from the grid's own best, and along the edges of the first from everywhere. From the highest of these places,
and along the edges of the second, Levenberg-Marquardt goes on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxkinetic.inference.fit.likelihood import CurveData, residuals
from jaxkinetic.inference.fit.search import N_STARTS, is_local_minimum, polish
from jaxkinetic.inference.posterior.adaptive_grid import centres_of
from jaxkinetic.inference.posterior.grid_likelihood import log_likelihood
from jaxkinetic.inference.posterior.plane import Plane
from jaxkinetic.inference.posterior.priors import Priors

_MOST_MAXIMA = 32
_MOST_POLISHED = 24
_ON_EDGE_OF_SECOND = (N_STARTS - _MOST_POLISHED) // 2
_ON_EDGE_OF_FIRST = 32
_SCAN = 31
_SCANS = 3
_CLOSER = 10
# A search that ends as close to an edge, as a share of the range, has left it: edges are searched for themselves.
_LEFT = 1e-4


class LikelihoodPeaks(NamedTuple):
    """Local maxima of the likelihood, and maxima with one parameter held: those of every data set together.

    Attributes:
        u: first parameter in its scale, (K,).
        v: second parameter in its scale, (K,).
        log_likelihood: the largest of the data sets, lines integrated out, (K,).
        on_edge: whether the search held it to an edge of the range, (K,).
        chi2: smallest chi-squared of all.
        values: parameters there, (2,).
        residuals: standardised residuals there, (C, P).
    """

    u: Float[np.ndarray, " peak"]
    v: Float[np.ndarray, " peak"]
    log_likelihood: Float[np.ndarray, " peak"]
    on_edge: Bool[np.ndarray, " peak"]
    chi2: float
    values: Float[np.ndarray, "2"]
    residuals: Float[np.ndarray, "curve position"]


def best_log_likelihood(
    u: Float[np.ndarray, " row"],
    second: Float[np.ndarray, "row column"],
    data: Sequence[CurveData],
    priors: Priors,
) -> Float[np.ndarray, "row column"]:
    """Log likelihood at every pair, the largest of the data sets."""
    first = Plane(data[0].theory).first_at(u)
    return np.max([log_likelihood(first, second, d, priors) for d in data], axis=0)


def find_peaks(
    coarse: Float[np.ndarray, "row column"],
    u: Float[np.ndarray, " row"],
    data: Sequence[CurveData],
    priors: Priors,
) -> LikelihoodPeaks:
    """Climb from the local maxima of a coarse grid, from the best of each row, and along the four edges.

    Args:
        coarse: log likelihood, the largest of the data sets, on a grid over the prior's whole range: cells of each
            row are even in q.
        u: first parameter of its rows, in its scale.
        data: the curves, once for each theory; the range of its parameters is searched.
        priors: of the lines.
    """
    plane = Plane(data[0].theory)
    u_ridge, second_ridge, value, held = _ridges(coarse, u, data, priors)
    few = _well_apart(u_ridge, second_ridge, value, u, plane)
    along = plane.first_at(centres_of(*plane.ranges[0], _ON_EDGE_OF_SECOND))
    first = np.concatenate([plane.first_at(u_ridge[few]), along, along])
    second = np.concatenate([second_ridge[few], *(np.full(along.size, edge) for edge in plane.ends)])
    is_held = np.arange(first.size) >= few.size
    hold, starts = np.stack([np.zeros_like(is_held), is_held], axis=1), np.stack([first, second], axis=1)
    found = [polish(starts, hold, d) for d in data]
    values, chi2 = (np.concatenate(x) for x in zip(*found, strict=True))
    which, on_edge = np.repeat(np.arange(len(data)), is_held.size), np.tile(is_held, len(data))
    share = plane.second.share_of(values[:, 1])
    inside = on_edge | ((share > _LEFT) & (share < 1 - _LEFT))
    values, chi2, which, on_edge = (x[inside] for x in (values, chi2, which, on_edge))
    best, at = int(np.argmin(chi2)), plane.first.scaled(values[:, 0])
    top = best_log_likelihood(at, values[:, 1:], data, priors)[:, 0]
    return LikelihoodPeaks(
        np.concatenate([at, u_ridge]),
        plane.v_of(np.concatenate([values[:, 1], second_ridge])),
        np.concatenate([top, value]),
        np.concatenate([on_edge, held]),
        float(chi2[best]),
        values[best],
        np.asarray(_residuals(jnp.asarray(values[best]), data[which[best]])),
    )


_residuals = jax.jit(residuals)


def _ridges(coarse, u, data, priors):
    """(u, second, log likelihood) where it is largest along rows, and which of them lie on an edge of the first."""
    plane, n = Plane(data[0].theory), coarse.shape[1]
    maxima = np.flatnonzero(is_local_minimum(-coarse) & np.isfinite(coarse))
    maxima = maxima[np.argsort(coarse.ravel()[maxima])[::-1][:_MOST_MAXIMA]]
    cells = np.union1d(maxima, np.arange(u.size) * n + coarse.argmax(axis=1))
    even = centres_of(0, 1, _ON_EDGE_OF_FIRST)
    u = np.concatenate([u[cells // n], *(np.full(even.size, edge) for edge in plane.ranges[0])])
    share = np.concatenate([(cells % n + 0.5) / n, even, even])
    reach = np.repeat([1 / n, 1 / even.size], [cells.size, 2 * even.size])
    ends, row = plane.ends_of_rows(u), np.arange(u.size)

    def scan(share, reach):
        tried = (share[:, None] + reach[:, None] * np.linspace(-1, 1, _SCAN)).clip(0, 1)
        second = plane.second_at(ends[:, :1] + np.diff(ends, axis=1) * tried, u)
        value = best_log_likelihood(u, second, data, priors)
        best = value.argmax(axis=1)
        return tried[row, best], second[row, best].clip(*plane.ends), value[row, best]

    for k in range(_SCANS - 1):
        share, *_ = scan(share, reach / _CLOSER**k)
    _, second, value = scan(share, reach / _CLOSER ** (_SCANS - 1))
    return u, second, value, row >= cells.size


def _well_apart(u, second, value, rows, plane):
    """The highest points of which none is within two rows and an eighteenth of the range of v of a higher one."""
    place = np.stack([u / (2 * (rows[1] - rows[0])), 18 * plane.second.share_of(second)], axis=1)
    left, kept = np.argsort(-value), []
    while left.size and len(kept) < _MOST_POLISHED:
        kept.append(left[0])
        left = left[np.abs(place[left] - place[left[0]]).max(axis=1) > 1]
    return np.array(kept)
