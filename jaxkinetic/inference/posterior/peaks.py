"""Where the likelihood peaks within the prior's range and along its edges, however narrow the peaks are.

A coarse grid steps over the ridges of shallow curves. So the best lam of each row is sought by a scan that closes
in on it, from the grid's own best, and along the edges of beta from everywhere. From the highest of these places,
and along the edges of lam, Levenberg-Marquardt goes on.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxkinetic.inference.fit.likelihood import CurveData, residuals
from jaxkinetic.inference.fit.search import N_STARTS, is_local_minimum, polish
from jaxkinetic.inference.posterior.adaptive_grid import centres_of
from jaxkinetic.inference.posterior.grid_likelihood import log_likelihood
from jaxkinetic.inference.posterior.prior_coordinates import ends_of_rows, lam_at, ranges, v_of
from jaxkinetic.inference.posterior.priors import Priors
from jaxkinetic.theories import paper

_MOST_MAXIMA = 32
_MOST_POLISHED = 24
_ON_EDGE_OF_LAM = (N_STARTS - _MOST_POLISHED) // 2
_ON_EDGE_OF_BETA = 32
_SCAN = 31
_SCANS = 3
_CLOSER = 10


class Summits(NamedTuple):
    """Local maxima of the likelihood, and maxima at fixed beta or lam: those of every data set together.

    Attributes:
        u: log(beta), (K,).
        v: arcsinh(lam / lam_scale), (K,).
        log_likelihood: the largest of the data sets, nuisances integrated out, (K,).
        on_edge: whether the search held it to an edge of the range, (K,).
        chi2: smallest chi-squared of all.
        beta: sharpness there.
        lam: positional bias there.
        residuals: standardised residuals there, (C, P).
    """

    u: Float[np.ndarray, " peak"]
    v: Float[np.ndarray, " peak"]
    log_likelihood: Float[np.ndarray, " peak"]
    on_edge: Bool[np.ndarray, " peak"]
    chi2: float
    beta: float
    lam: float
    residuals: Float[np.ndarray, "curve position"]


def likeliest(u: Float[np.ndarray, " b"], lam: Float[np.ndarray, "b l"], data: Sequence[CurveData], priors: Priors):
    """Log likelihood at every pair, the largest of the data sets, (B, L)."""
    return np.max([log_likelihood(np.exp(u), lam, d, priors.line) for d in data], axis=0)


def summits(
    coarse: Float[np.ndarray, "b l"], u: Float[np.ndarray, " b"], data: Sequence[CurveData], priors: Priors
) -> Summits:
    """Climb from the local maxima of a coarse grid, from the best of each row, and along the four edges.

    Args:
        coarse: log likelihood, the largest of the data sets, on a grid over the prior's whole range: cells of each
            row are even in q.
        u: log(beta) of its rows.
        data: the curves, once for each depth and vocabulary.
        priors: their ranges are searched.
    """
    u_ridge, lam_ridge, value, held = _ridges(coarse, u, data, priors)
    few = _well_apart(u_ridge, lam_ridge, value, u, priors)
    (low, high), _ = ranges(priors)
    along = np.exp(centres_of(low, high, _ON_EDGE_OF_LAM))
    beta = np.concatenate([np.exp(u_ridge[few]), along, along])
    lam = np.concatenate([lam_ridge[few], *(np.full(along.size, float(edge)) for edge in priors.lam_range)])
    holds_lam = np.arange(beta.size) >= few.size
    hold, starts = np.stack([np.zeros_like(holds_lam), holds_lam], axis=1), np.stack([beta, lam], axis=1)
    searched = [_within(d, priors) for d in data]
    found = [polish(starts, hold, d) for d in searched]
    values, chi2 = (np.concatenate(x) for x in zip(*found, strict=True))
    beta, lam = values.T
    which, on_edge = np.repeat(np.arange(len(data)), holds_lam.size), np.tile(holds_lam, len(data))
    inside = (lam >= priors.lam_range[0]) & (lam <= priors.lam_range[1])
    beta, lam, chi2, which, on_edge = (x[inside] for x in (beta, lam, chi2, which, on_edge))
    best = int(np.argmin(chi2))
    top = likeliest(np.log(beta), lam[:, None], data, priors)[:, 0]
    return Summits(
        np.concatenate([np.log(beta), u_ridge]),
        np.concatenate([v_of(lam, priors), v_of(lam_ridge, priors)]),
        np.concatenate([top, value]),
        np.concatenate([on_edge, held]),
        float(chi2[best]), float(beta[best]), float(lam[best]),
        np.asarray(_residuals(np.array([beta[best], lam[best]]), searched[which[best]])),
    )  # fmt: skip


_residuals = jax.jit(residuals)


def _within(data, priors):
    """The curves with a theory that is searched in the range of the priors, and beside it in lam."""
    widest, theory = max(abs(x) for x in priors.lam_range), data.theory
    wider = paper(float(theory.time), theory.vocab_size, beta_range=priors.beta_range, lam_range=(-widest, widest))
    return dataclasses.replace(data, theory=wider)


def _ridges(coarse, u, data, priors):
    """(u, lam, log likelihood) where it is largest along rows, and which of them lie on an edge of beta."""
    n = coarse.shape[1]
    maxima = np.flatnonzero(is_local_minimum(-coarse) & np.isfinite(coarse))
    maxima = maxima[np.argsort(coarse.ravel()[maxima])[::-1][:_MOST_MAXIMA]]
    cells = np.union1d(maxima, np.arange(u.size) * n + coarse.argmax(axis=1))
    even = centres_of(0, 1, _ON_EDGE_OF_BETA)
    u = np.concatenate([u[cells // n], *(np.full(even.size, edge) for edge in ranges(priors)[0])])
    share = np.concatenate([(cells % n + 0.5) / n, even, even])
    reach = np.repeat([1 / n, 1 / even.size], [cells.size, 2 * even.size])
    ends, row = ends_of_rows(u, priors), np.arange(u.size)

    def scan(share, reach):
        tried = (share[:, None] + reach[:, None] * np.linspace(-1, 1, _SCAN)).clip(0, 1)
        lam = lam_at(ends[:, :1] + np.diff(ends, axis=1) * tried, u, priors)
        value = likeliest(u, lam, data, priors)
        best = value.argmax(axis=1)
        return tried[row, best], lam[row, best].clip(*priors.lam_range), value[row, best]

    for k in range(_SCANS - 1):
        share, *_ = scan(share, reach / _CLOSER**k)
    _, lam, value = scan(share, reach / _CLOSER ** (_SCANS - 1))
    return u, lam, value, row >= cells.size


def _well_apart(u, lam, value, rows, priors):
    """The highest points of which none is within two rows and half a unit of v of a higher one."""
    place = np.stack([u / (2 * (rows[1] - rows[0])), 2 * v_of(lam, priors)], axis=1)
    left, kept = np.argsort(-value), []
    while left.size and len(kept) < _MOST_POLISHED:
        kept.append(left[0])
        left = left[np.abs(place[left] - place[left[0]]).max(axis=1) > 1]
    return np.array(kept)
