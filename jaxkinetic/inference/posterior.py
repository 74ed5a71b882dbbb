"""The exact posterior of beta and lam, if wanted of t and M, from measured curves.

The likelihood is binomial in its normal form; offset and contrast of each curve are integrated in closed form, and
what is left is summed over a grid in the coordinates in which the priors are flat, u = log(beta) and
v = arcsinh(lam / lam_scale). The grid adapts: rows of equal beta crowd where the probability is, and each has a
window of lam of its own, because beta and lam are too correlated for a rectangle and there may be two modes. Its
cells are equal in q = arcsinh(lam / s), s = min(lam_scale, beta / 4): the ridge lam ~ beta of shallow curves is as
wide in q for every beta.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic._types import check_at_least, check_positive, round_up
from jaxkinetic.inference.adaptive_grid import (
    adapt,
    centres_of,
    column_marginal,
    edges_of,
    ends_of_the_range,
    prior_share,
    raise_to,
    shortest_interval,
)
from jaxkinetic.inference.curves import RetrievalCurve, check_curves
from jaxkinetic.inference.intervals import Interval
from jaxkinetic.inference.nuisances import (
    Priors,
    alternative_columns,
    integrate_nuisances,
    linear_evidence,
    standardise,
)
from jaxkinetic.inference.projection import CurveData, shapes, stack_curves
from jaxkinetic.inference.search import FREE, LANES, Range, polish
from jaxkinetic.model import required_modes

ALTERNATIVES = ("constant", "quadratic", "free-form")
_BATCH = 512
_DRAWS = 2000
_COARSE = 64
_CHUNK = 2
_UNSEEN = 0.05


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Posterior of (beta, lam) on a grid, and over t and M where several were given.

    Attributes:
        beta: sharpness at the centres of the rows, (B,), densest where the probability is.
        lam: positional bias at the centres, (B, L), in each row evenly spaced in arcsinh(lam / s) with
            s = min(lam_scale, beta / 4).
        times: depths t, (T,), of equal prior probability.
        vocab_sizes: vocabulary sizes M, (V,), of equal prior probability.
        mass: posterior probability of every cell, (T, V, B, L); it sums to 1.
        intervals: shortest intervals of "beta" and "lam" in the coordinate in which the prior is flat. An end is
            open where the prior sets it, not the data: at the end of its range, or short of it, if up to there the
            likelihood stays within chi^2_1(level) / 2 of its peak and only the prior's volume shrinks.
        identified: whether the interval of "beta" and of "lam" is closed.
        log_evidence: log of the probability of the curves under the model and its priors.
        log_evidence_of: the same for each curve a "constant", a "quadratic" and a "free-form" curve.
        curves: the curves.
        priors: the priors.
        level: probability in the intervals.
    """

    beta: np.ndarray
    lam: np.ndarray
    times: np.ndarray
    vocab_sizes: np.ndarray
    mass: np.ndarray
    intervals: dict[str, Interval]
    identified: dict[str, bool]
    log_evidence: float
    log_evidence_of: dict[str, float]
    curves: list[RetrievalCurve]
    priors: Priors
    level: float
    _rows: np.ndarray = dataclasses.field(repr=False)
    _edges: np.ndarray = dataclasses.field(repr=False)
    _data: list[CurveData] = dataclasses.field(repr=False)

    def marginal(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Marginal posterior of one parameter.

        Args:
            name: "beta", "lam", "time" or "vocab_size".

        Returns:
            Edges of cells (n + 1,) for beta and lam, values (n,) for the others; and their probabilities (n,).
        """
        if name == "beta":
            return np.exp(self._rows), self.mass.sum(axis=(0, 1, 3))
        if name == "lam":
            edges, share = column_marginal(self.mass.sum((0, 1)), self._edges)
            return self.priors.lam_scale * np.sinh(edges), share
        if name == "time":
            return self.times, self.mass.sum(axis=(1, 2, 3))
        if name == "vocab_size":
            return self.vocab_sizes, self.mass.sum(axis=(0, 2, 3))
        raise ValueError(f"Argument `name` must be one of beta, lam, time, vocab_size, but is {name!r}.")

    def describe(self, name: str) -> str:
        """Interval of "beta" or "lam" in words, with "unidentified" where the data leave it open."""
        shown = f"{self.intervals[name]} ({100 * self.level:.0f} %)"
        return shown if self.identified[name] else f"unidentified, {shown}"

    def region(self, level: float) -> np.ndarray:
        """Cells of (beta, lam) that hold the given probability and are denser than all others, (B, L)."""
        joint = self.mass.sum(axis=(0, 1))
        order = np.argsort(self.density, axis=None)[::-1]
        kept = int(np.searchsorted(np.cumsum(joint.ravel()[order]), level)) + 1
        inside = np.zeros(joint.size, bool)
        inside[order[:kept]] = True
        return inside.reshape(joint.shape)

    @property
    def density(self) -> np.ndarray:
        """Posterior density of (beta, lam) relative to the prior's, (B, L)."""
        return self.mass.sum(axis=(0, 1)) / prior_share(self._rows, self._edges, _whole(self.priors))

    def predict(
        self, curve: RetrievalCurve, sources: Any = None, level: float | None = None, n_questions: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low end, median and high end of the predicted accuracy of one of the curves, each (S,).

        Every parameter is drawn from its posterior (2000 draws, always the same).

        Args:
            curve: one of the curves.
            sources: positions in (0, 1]; the curve's own if None.
            level: probability of the band; that of the posterior if None.
            n_questions: predict a new measurement of so many questions rather than the accuracy itself.
        """
        index = next((i for i, c in enumerate(self.curves) if c is curve), None)
        if index is None:
            raise ValueError("Argument `curve` must be one of the posterior's curves; see `.curves`.")
        wanted = curve.sources if sources is None else np.asarray(sources, dtype=float)
        if wanted.ndim != 1 or not np.all((wanted > 0) & (wanted <= 1)):
            raise ValueError(f"Argument `sources` must lie in (0, 1], but is {wanted}.")
        rng = np.random.default_rng(0)
        share = (np.arange(_DRAWS) + rng.random()) / _DRAWS
        cells = np.searchsorted(np.cumsum(self.mass.ravel()), share * (1 - 1e-12))
        t, v, i, j = np.unravel_index(cells, self.mass.shape)
        drawn = np.empty((_DRAWS, wanted.size))
        padded = jnp.asarray(np.pad(wanted, (0, -wanted.size % 64), mode="edge"))
        noise = rng.random(_DRAWS), rng.standard_normal(_DRAWS)
        for k, data in enumerate(self._data):
            here = np.flatnonzero(t * self.vocab_sizes.size + v == k)
            if here.size:
                rows = np.pad(here, (0, -here.size % 64), mode="edge")
                columns = [jnp.asarray(x[rows]) for x in (self.beta[i], self.lam[i, j], *noise)]
                found = _draw(*columns, padded, data, index, self.priors)
                drawn[here] = np.asarray(found)[: here.size, : wanted.size]
        if n_questions is not None:
            check_at_least("n_questions", n_questions, 1)
            drawn = rng.binomial(n_questions, drawn.clip(0, 1)) / n_questions
        tail = (1 - (self.level if level is None else level)) / 2
        low, median, high = np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0)
        return low, median, high


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
            range, priors of mean and contrast that exclude the data, or a grid too coarse for the likelihood.
    """
    curves = [curves] if isinstance(curves, RetrievalCurve) else list(curves)
    priors = priors or Priors()
    times = np.atleast_1d(np.asarray(time, dtype=float))
    sizes = [int(m) if float(m) == int(m) else m for m in np.atleast_1d(vocab_size).tolist()]
    _check(curves, times, sizes, level, grid)
    grid = (int(grid[0]), int(grid[1]))
    n_modes = round_up(required_modes(priors.beta_range[1], np.float64), 4)
    data = [stack_curves(curves, t, m, n_modes)[0] for t, m in itertools.product(times.tolist(), sizes)]

    whole = _whole(priors)
    coarse = min(grid[0], _COARSE), min(grid[1], _COARSE)
    rows, ends = np.linspace(*whole[0], coarse[0] + 1), partial(_ends, priors=priors)
    windows = ends((rows[1:] + rows[:-1]) / 2)
    finest, shape, peaks = np.inf, coarse, None
    while True:
        u = (rows[1:] + rows[:-1]) / 2
        lam = _lam_of(centres_of(windows[:, :1], windows[:, 1:], shape[1]), u, priors)
        edges = np.arcsinh(_lam_of(edges_of(windows, shape[1]), u, priors) / priors.lam_scale)
        log_likelihood = np.stack([_log_likelihood(u, lam, d, priors) for d in data])
        best = log_likelihood.max(axis=0)
        peaks = _peaks(best, u, lam, data, priors) if peaks is None else peaks
        guided = raise_to(best, peaks, rows, edges)
        shares = np.exp(guided - guided.max()) * prior_share(rows, edges, whole)
        shares /= shares.sum()
        # Once the likeliest cell holds no less than before, adapting gains nothing: now all cells that are wanted,
        # which adapt again to what only they can tell apart.
        settled = shares.max() > 0.8 * finest
        if settled and shape == grid:
            break
        finest, shape = (np.inf, grid) if settled else (shares.max(), shape)
        rows, windows = adapt(guided, shares.sum(axis=1), rows, windows, ends, shape[0])
    top = log_likelihood.max()
    relative = np.exp(log_likelihood - top) * prior_share(rows, edges, whole)
    total = relative.sum()
    joint = relative.sum(axis=0) / total
    unseen = float(shares[guided > best + 1].sum())
    if unseen > _UNSEEN:
        raise ValueError(
            f"Argument `grid` is too coarse for these curves: cells of {grid} miss peaks of the likelihood that "
            f"may hold {100 * unseen:.0f} % of the probability. Raise it."
        )
    mass = (relative / total).reshape(times.size, len(sizes), *grid)
    peak = np.unravel_index(np.argmax(log_likelihood), log_likelihood.shape)
    _check_priors(curves, np.exp(u[peak[1]]), lam[peak[1], peak[2]], data[peak[0]], priors)
    intervals = {
        "beta": shortest_interval(rows, joint.sum(axis=1), whole[0], np.exp, level),
        "lam": shortest_interval(
            *column_marginal(joint, edges), whole[1], lambda v: priors.lam_scale * np.sinh(v), level
        ),
    }
    by_range = ends_of_the_range(log_likelihood.max(axis=0), rows, edges, whole, level)
    for name, (low, high) in zip(intervals, by_range, strict=True):
        i = intervals[name]
        intervals[name] = dataclasses.replace(i, low_open=i.low_open or low, high_open=i.high_open or high)
    return Posterior(
        np.exp(u), lam, times, np.asarray(sizes), mass, intervals,
        identified={name: interval.closed for name, interval in intervals.items()},
        log_evidence=float(top + np.log(total / len(data))),
        log_evidence_of={name: _alternative(name, curves, priors) for name in ALTERNATIVES},
        curves=curves,
        priors=priors,
        level=level,
        _rows=rows,
        _edges=edges,
        _data=data,
    )  # fmt: skip


def _check(curves, times, sizes, level, grid):
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "Posteriors need double precision: call `jax.config.update('jax_enable_x64', True)` first "
            "(the command line does)."
        )
    _check_curves(curves)
    check_positive("time", times)
    for m in sizes:
        check_at_least("vocab_size", m, 2)
    if not 0 < level < 1:
        raise ValueError(f"Argument `level` must lie in (0, 1), but is {level}.")
    for n in grid:
        check_at_least("grid", n, 16)


def _check_curves(curves):
    check_curves(curves)
    for curve in curves:
        if curve.n_questions is None:
            raise ValueError(f"Argument `curves` must have n_questions, but {curve.label} has none.")
    if all(np.ptp(c.accuracy) == 0 for c in curves):
        raise ValueError("Argument `curves` must vary with position, but every curve is constant.")


def _whole(priors):
    """The prior's range in the coordinates (u, v)."""
    low, high = (float(np.log(b)) for b in priors.beta_range)
    left, right = (float(np.arcsinh(v / priors.lam_scale)) for v in priors.lam_range)
    return (low, high), (left, right)


def _scale(u, priors):
    return np.minimum(priors.lam_scale, np.exp(u) / 4)


def _ends(u, priors):
    """The prior's range of lam in the coordinate q of each row."""
    return np.arcsinh(np.asarray(priors.lam_range) / _scale(u, priors)[:, None])


def _lam_of(q, u, priors):
    return _scale(u, priors)[:, None] * np.sinh(q)


def _peaks(log_likelihood, u, lam, data, priors):
    """Coordinates (u, v) and log likelihood of local maxima, (K,) each: a coarse grid steps over narrow ones."""
    ringed = np.pad(log_likelihood, 1, constant_values=-np.inf)
    around = [np.roll(ringed, s, axis=a)[1:-1, 1:-1] for a in (0, 1) for s in (-1, 1)]
    local = np.where(np.all([log_likelihood >= x for x in around], axis=0), log_likelihood, -np.inf)
    starts = np.concatenate(
        [
            np.argsort(local, axis=None)[::-1][:LANES],
            np.arange(u.size) * lam.shape[1] + log_likelihood.argmax(axis=1),
        ]
    )
    beta, lam = np.exp(u)[starts // lam.shape[1]], lam.ravel()[starts]
    edge = max(abs(x) for x in priors.lam_range)
    found = [polish(beta, lam, FREE, d, Range(priors.beta_range, (-edge, edge))) for d in data]
    u = np.log(np.concatenate([p.beta for p in found]))
    lam = np.clip(np.concatenate([p.lam for p in found]), *priors.lam_range)
    values = np.max([_log_likelihood(u, lam[:, None], d, priors)[:, 0] for d in data], axis=0)
    return u, np.arcsinh(lam / priors.lam_scale), values


def _log_likelihood(u, lam, data, priors):
    pairs = np.broadcast_to(np.exp(u)[:, None], lam.shape), lam
    # Chunks of one size, so that grids of every size share one compilation.
    padded = [np.pad(p.ravel(), (0, -p.size % (_CHUNK * _BATCH)), mode="edge") for p in pairs]
    chunks = [p.reshape(-1, _CHUNK, _BATCH) for p in padded]
    found = np.concatenate([np.asarray(_log_likelihoods(b, l, data, priors)) for b, l in zip(*chunks, strict=True)])
    found = found.ravel()[: lam.size]
    return np.where(np.isfinite(found), found, -np.inf).reshape(lam.shape)


@partial(jax.jit, static_argnums=3)
def _log_likelihoods(beta, lam, data, priors):
    def one(beta, lam):
        nuisances, _ = _nuisances(beta, lam, data.sources, data, priors)
        return jnp.sum(nuisances.log_evidence)

    return jax.lax.map(lambda row: jax.vmap(one)(*row), (beta, lam))


def _nuisances(beta, lam, wanted, data, priors):
    """What is left to say about m and k of every curve, and the standardised shapes at the wanted positions."""
    own, scale = shapes(beta, lam, data.sources, data)
    others, _ = shapes(beta, lam, wanted, data) if wanted is not data.sources else (own, scale)
    present = (data.weight > 0).astype(own.dtype)
    own, others = jax.vmap(standardise)(own, present, others)
    left = jax.vmap(lambda s, y, w: integrate_nuisances(s, y, w, priors))(own, data.accuracy, data.weight)
    return left, others


@partial(jax.jit, static_argnums=(6, 7))
def _draw(beta, lam, uniform, normal, wanted, data, index, priors):
    everywhere = jnp.broadcast_to(wanted, (data.sources.shape[0], wanted.shape[0]))

    def one(beta, lam, uniform, normal):
        nuisances, at = _nuisances(beta, lam, everywhere, data, priors)
        (m, k), covariance = nuisances.mean[index], nuisances.covariance[index]
        error = jnp.sqrt(covariance[1, 1])
        # k from its normal cut to k >= 0, by the inverse of the tail's distribution; then m given k.
        tail = jax.scipy.special.ndtr(k / error) * uniform
        contrast = jnp.maximum(k - error * jax.scipy.special.ndtri(tail), 0)
        share = covariance[0, 1] / covariance[1, 1]
        offset = m + share * (contrast - k) + jnp.sqrt(covariance[0, 0] - share * covariance[0, 1]) * normal
        return offset + contrast * at[index]

    return jax.vmap(one)(beta, lam, uniform, normal)


def _check_priors(curves, beta, lam, data, priors):
    """Refuse priors of mean and contrast under which curves like these do not happen."""
    shape = np.asarray(_standardised(beta, lam, data, priors))
    for curve, s in zip(curves, shape, strict=True):
        w = curve.standard_error**-1
        basis = np.stack([np.ones(curve.sources.size), s[: curve.sources.size]], axis=1)
        (m, k), *_ = np.linalg.lstsq(basis * w[:, None], curve.accuracy * w, rcond=None)
        if abs(m - priors.mean) > 6 * priors.mean_spread:
            raise ValueError(
                f"Argument `priors` excludes the data: the mean accuracy of {curve.label} is {m:.3g}, its prior "
                f"{priors.mean:g} +- {priors.mean_spread:g}."
            )
        if k > 6 * priors.contrast_spread:
            raise ValueError(
                f"Argument `priors` excludes the data: {curve.label} varies by {k:.3g} over its positions, the "
                f"prior's standard deviation is {priors.contrast_spread:g}."
            )


@partial(jax.jit, static_argnums=3)
def _standardised(beta, lam, data, priors):
    return _nuisances(beta, lam, data.sources, data, priors)[1]


def _alternative(name, curves, priors):
    return sum(
        linear_evidence(alternative_columns(name, c.sources, priors), c.accuracy, c.standard_error**-2, priors)
        for c in curves
    )
