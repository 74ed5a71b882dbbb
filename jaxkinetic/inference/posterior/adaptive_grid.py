"""A grid in two coordinates that adapts to where the probability is.

Rows are cells of the first coordinate u, of any width. Each has a window of the second, cut into equal cells of a
coordinate q that stretches v where rows may have narrow modes; probabilities are those of the cells in (u, v).
"""

import itertools
from typing import Any

import numpy as np

from jaxkinetic.inference.fit.intervals import Interval, threshold

_NEGLIGIBLE = 30.0


def centres_of(low: Any, high: Any, n: int) -> np.ndarray:
    """Centres of n equal cells between low and high."""
    return low + (high - low) * (np.arange(n) + 0.5) / n


def edges_of(windows: np.ndarray, n: int) -> np.ndarray:
    """Edges of n equal cells of each window, (B, n + 1)."""
    return windows[:, :1] + np.diff(windows, axis=1) * np.arange(n + 1) / n


def prior_share(rows, edges, whole):
    """Prior probability of every cell, flat in (u, v), from the edges of the cells in v."""
    return np.diff(rows)[:, None] * np.diff(edges, axis=1) / np.prod([high - low for low, high in whole])


def adapt(log_likelihood, share, rows, windows, ends, n_new):
    """Rows that crowd where the probability is, and for each a window of q outside of which it is negligible.

    ``ends`` gives the ends of the prior's range in q for each centre of a row, (B, 2).
    """
    q = centres_of(windows[:, :1], windows[:, 1:], log_likelihood.shape[1])
    peak = np.unravel_index(np.argmax(log_likelihood), log_likelihood.shape)
    top = log_likelihood[peak]
    # Where the posterior is narrower than a cell, its height is not known better than the drop to the next one.
    beside = log_likelihood[peak[0], np.clip([peak[1] - 1, peak[1] + 1], 0, q.shape[1] - 1)]
    kept = log_likelihood > top - _NEGLIGIBLE - min(top - beside.min(), 1e4)
    used = np.flatnonzero(kept.any(axis=1))
    n, place = share.size, np.arange(share.size)

    # A third of the rows go evenly to wherever there is anything, the rest by probability, each cell counting for
    # its neighbours as well.
    spread = np.max([np.pad(share, 2)[i : i + n] for i in range(5)], axis=0)
    even = np.zeros(n)
    even[max(used[0] - 2, 0) : used[-1] + 3] = np.diff(rows)[max(used[0] - 2, 0) : used[-1] + 3]
    weight = 2 * spread / spread.sum() + even / even.sum()
    new = np.interp(np.linspace(0, 1, n_new + 1), np.concatenate([[0.0], np.cumsum(weight) / weight.sum()]), rows)

    # Rows without anything take the window of the nearest that has something, and all of them that of their
    # neighbours too: the new rows lie between the old ones.
    width = (windows[:, 1] - windows[:, 0]) / q.shape[1]
    first, last = kept.argmax(axis=1), q.shape[1] - 1 - kept[:, ::-1].argmax(axis=1)
    nearest = used[np.abs(place[:, None] - used[None, :]).argmin(axis=1)]
    left, right = (q[place, first] - 2.5 * width)[nearest], (q[place, last] + 2.5 * width)[nearest]
    left, right = (np.stack([np.pad(x, 1, mode="edge")[i : i + n] for i in range(3)]) for x in (left, right))
    centres, old = (new[1:] + new[:-1]) / 2, (rows[1:] + rows[:-1]) / 2
    low, high = ends(centres).T
    # A window beyond the range is a cell at its edge: no row is without width.
    least = np.minimum(np.interp(centres, old, width), high - low)
    left = np.interp(centres, old, left.min(axis=0)).clip(low, high - least)
    right = np.interp(centres, old, right.max(axis=0)).clip(left + least, high)
    return new, np.stack([left, right], axis=1)


def raise_to(log_likelihood, peaks, rows, edges):
    """The log likelihood with the cells that hold known peaks (u, v, value) raised to them."""
    raised = log_likelihood.copy()
    np.maximum.at(raised, cells_of(peaks[0], peaks[1], rows, edges), peaks[2])
    return raised


def cells_of(u, v, rows, edges):
    """Row and column of the cells that hold points (u, v), or that are nearest to them in their row."""
    i = np.clip(np.searchsorted(rows, u, side="right") - 1, 0, len(rows) - 2)
    return i, np.clip(np.sum(edges[i] <= v[:, None], axis=1) - 1, 0, edges.shape[1] - 2)


def column_marginal(joint, edges):
    """Edges of common cells in v and their probabilities: rows whose cells differ, summed over beta."""
    cumulative = np.concatenate([np.zeros((len(joint), 1)), np.cumsum(joint, axis=1)], axis=1)
    ends = edges.min(), edges.max()

    def shared(common):
        return np.sum([np.interp(common, e, c) for e, c in zip(edges, cumulative, strict=True)], axis=0)

    # Cells of equal width on half the range of probability, of equal probability on the rest.
    even = np.linspace(*ends, 4 * joint.shape[1] + 1)
    likely = np.interp(np.linspace(0, 1, joint.shape[1] + 1), shared(even), even)
    common = np.unique(np.concatenate([np.linspace(*ends, joint.shape[1] + 1), likely[1:-1]]))
    return common, np.diff(shared(common))


def shortest_interval(edges, share, whole, value_of, level):
    """Shortest interval in the flat coordinate: the hull of where the density is highest."""
    centres = (edges[1:] + edges[:-1]) / 2
    fine = np.unique(np.concatenate([np.linspace(a, b, 17) for a, b in itertools.pairwise(edges)]))
    middle, width = (fine[1:] + fine[:-1]) / 2, np.diff(fine)
    # Straight lines between logarithms: between those of the density, wide cells in the tails would hold too much.
    logarithm = np.log(np.maximum(share / np.diff(edges), np.finfo(float).tiny))
    density = np.exp(np.interp(middle, centres, logarithm))
    order = np.argsort(density)[::-1]
    held = np.cumsum((density * width)[order])
    kept = order[: int(np.searchsorted(held, level * held[-1])) + 1]
    first, last = int(kept.min()), int(kept.max())
    slack = 1e-9 * (whole[1] - whole[0])
    low_open = first == 0 and edges[0] <= whole[0] + slack
    high_open = last == middle.size - 1 and edges[-1] >= whole[1] - slack
    return Interval(
        float(value_of(fine[first])), float(value_of(fine[last + 1])), bool(low_open), bool(high_open), level
    )


def ends_of_the_range(log_likelihood, rows, edges, whole, level, peaks, on_edge):
    """Which ends of u and of v the prior's range sets and not the data, ((low, high), (low, high)).

    Those where the cells within chi^2_1(level) / 2 of the likeliest reach furthest at an end of the range, of
    their own coordinate or of the other. An interval that closes there all the same was closed by the prior.
    ``peaks`` are local maxima (u, v, value), those ``on_edge`` at an end of the range: cells step over a narrow
    ridge that leaves the range.
    """
    slack = [1e-9 * (high - low) for low, high in whole]
    at_end = np.zeros(log_likelihood.shape, bool)
    at_end[0] = rows[0] <= whole[0][0] + slack[0]
    at_end[-1] |= rows[-1] >= whole[0][1] - slack[0]
    at_end[:, 0] |= edges[:, 0] <= whole[1][0] + slack[1]
    at_end[:, -1] |= edges[:, -1] >= whole[1][1] - slack[1]
    limit = max(log_likelihood.max(), peaks[2].max()) - threshold(level) / 2
    leaving = on_edge & (peaks[2] > limit)
    at_end[cells_of(peaks[0][leaving], peaks[1][leaving], rows, edges)] = True
    inside = raise_to(log_likelihood, peaks, rows, edges) > limit
    u = np.broadcast_to(np.arange(len(inside))[:, None], inside.shape)
    furthest = [
        (np.where(inside, low, np.inf), np.where(inside, -high, np.inf))
        for low, high in ((u, u), (edges[:, :-1], edges[:, 1:]))
    ]
    return tuple(tuple(bool(at_end[x == x.min()].any()) for x in pair) for pair in furthest)
