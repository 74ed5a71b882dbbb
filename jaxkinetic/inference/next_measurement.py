"""Which extra measurement would tell most: the information about a theory's parameters v expected of one point.

A point at sigma_0 of one of the curves, with n questions, has a binomial number y of right answers, at the accuracy
a = m + k s, no less than 0 and no more than 1. Given v and the data so far, (m, k) is normal and cut to k >= 0 (see
`line_law`), so that

    p(a | v) = N(a; mu, tau^2) Phi(k^(a) / s_k') / Phi(k^ / s_k),
    mu = m^ + k^ s,    tau^2 = (1, s) L^{-1} (1, s)^T,

with k^(a) and s_k' those of k once a is known as well; what lies beyond an end counts as that end. The expected
information is the mutual information of y with v, in nats, offset and contrast integrated out:

    I = E sum_y p(y | v) log p(y | v) - sum_y p(y) log p(y),
    p(y | v) = int Binomial(y; n, a) p(a | v) da,    p(y) = E p(y | v).

With a = sin(phi)^2 the binomial is about 1 / (2 sqrt(n)) wide in phi whatever a, so that grids of accuracies and of
counts are even in phi; close to 0 and to n, where it is not smooth in y, every count is its own node.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, log_ndtr, ndtr, xlog1py, xlogy
from jax.scipy.stats import norm
from jaxtyping import Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import as_numbers, as_positions, check_type
from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.posterior.posterior import Posterior
from jaxkinetic.inference.posterior.predictive import LineLaws, cut_normal

_DRAWS = 512
_POSITIONS = 39
_QUANTILES = 128
# Accuracies and counts per binomial standard deviation, the most accuracies, and how many counts at either
# end are all nodes.
_ACCURACIES, _COUNTS, _MOST, _SINGLE = 4, 3, 4096, 64


@dataclasses.dataclass(frozen=True, repr=False)
class NextMeasurement(Shown):
    """Expected information of one more point, in nats: the allowed region shrinks by about e^{-information}.

    Attributes:
        posterior: what is known so far.
        sources: positions sigma_0, (S,).
        n_questions: questions asked there, increasing, (Q,).
        information: of each curve, position and number of questions, (C, S, Q); NaN where a curve of known n_items
            has no item, before its first and after its last.
        error: numerical error of each, the distance between halves of the posterior's draws, (C, S, Q); of about
            the size of a standard error, and for values below 0.02 no more than an order of magnitude.
    """

    posterior: Posterior
    sources: Float[np.ndarray, " source"]
    n_questions: Float[np.ndarray, " n"]
    information: Float[np.ndarray, "curve source n"]
    error: Float[np.ndarray, "curve source n"]

    def best(self, n_questions: float | None = None) -> tuple[RetrievalCurve, float]:
        """Curve and position of the most telling point with a number of questions, the largest if None."""
        wanted = self.n_questions[-1] if n_questions is None else n_questions
        at = np.flatnonzero(self.n_questions == wanted)
        if not at.size:
            raise ValueError(f"Argument `n_questions` must be one of {self.n_questions}, but is {wanted:g}.")
        here = self.information[:, :, at[0]]
        if np.all(np.isnan(here)):
            raise ValueError("Argument `sources` had no position between the first and the last item of any curve.")
        curve, source = np.unravel_index(np.nanargmax(here), here.shape)
        return self.posterior.curves[curve], float(self.sources[source])

    def __str__(self) -> str:
        """Say, for each curve and number of questions, where to ask and what that is expected to tell."""
        width = max(len(c.label) for c in self.posterior.curves)
        lines = [f"{'one more point of':<{width}}  questions  best sigma_0  information, nats  region shrinks to"]
        for i, curve in enumerate(self.posterior.curves):
            for j, n in enumerate(self.n_questions):
                if np.all(np.isnan(self.information[i, :, j])):
                    lines.append(
                        f"{curve.label:<{width}}  {n:9g}  no position lies between its first and last item"
                    )
                    continue
                k = int(np.nanargmax(self.information[i, :, j]))
                told, error = self.information[i, k, j], self.error[i, k, j]
                lines.append(
                    f"{curve.label:<{width}}  {n:9g}  {self.sources[k]:12.3f}  {told:7.3f} +- {error:.3f}  "
                    f"{100 * np.exp(-told):15.0f} %"
                )
        return "\n".join(lines)


def next_measurement(posterior: Posterior, *, n_questions: Any = None, sources: Any = None) -> NextMeasurement:
    """Expected information of one more point about the parameters, and about the theory if several are weighed.

    Args:
        posterior: what is known so far.
        n_questions: questions asked at the point, one number or several; as many as behind the first curve's
            points, and four times as many, if None.
        sources: positions in (0, 1] where it may be; 39 even ones between the first and the last item if None.

    Returns:
        The information in nats: what the point says about the parameters that all curves share. A ridge along
        which the point's accuracy stays the same stays.

    Raises:
        ValueError: if a number of questions is below 1 or so large that the draws of the posterior do not resolve
            its noise, or a position is outside (0, 1].
    """
    check_type("posterior", posterior, Posterior)
    asked = float(np.median(np.asarray(posterior.curves[0].n_questions)))
    counts = np.unique(as_numbers("n_questions", (asked, 4 * asked) if n_questions is None else n_questions))
    if not counts.size or not np.all(np.isfinite(counts) & (counts >= 1)):
        raise ValueError(f"Argument `n_questions` must be at least 1, but is {counts}.")
    check_sensible(n_questions=counts)
    ends = np.array([(0.5 / c.n_items, 1 - 0.5 / c.n_items) if c.n_items else (0.0, 1.0) for c in posterior.curves])
    even = np.linspace(max(ends.min(), 0.5 / _POSITIONS), min(ends.max(), 1 - 0.5 / _POSITIONS), _POSITIONS)
    at = as_positions("sources", even if sources is None else sources)
    known = posterior.line_laws((np.arange(_DRAWS) + 0.5) / _DRAWS, at)
    found = np.stack(
        [np.stack([_of_curve(known, i, n) for n in counts], axis=1) for i in range(len(posterior.curves))]
    )
    found[(at < ends[:, :1] - 1e-9) | (at > ends[:, 1:] + 1e-9)] = np.nan
    whole, even, odd = np.moveaxis(found, -1, 0)
    # Against 16384 draws, half of this distance was exceeded twofold in twelve of 27 cases.
    error = np.maximum(np.abs(even - odd), np.abs(2 * whole - (even + odd)))
    return NextMeasurement(posterior, at, counts, np.maximum(whole, 0), error)


def _of_curve(known: LineLaws, index: int, n_questions: float) -> Float[np.ndarray, "source 3"]:
    """Information of a point of one curve from all draws, from the even and from the odd ones."""
    (m, k), covariance = known.mean[:, index].T, known.covariance[:, index]
    s = known.shape[:, index].T
    of_m, shared, of_k = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    # Mean and variance of m + k s before the cut, and its covariance with k.
    mu, variance, with_k = m + k * s, of_m + 2 * s * shared + s**2 * of_k, shared + s * of_k
    error = np.sqrt(of_k)
    by_error = np.asarray(_cut_quantiles(k / error)) - (k / error)[:, None]
    # Mean accuracy at quantiles of k, and its error there.
    given = mu[..., None] + (with_k / error)[..., None] * by_error
    rest = np.sqrt(np.maximum(variance - with_k**2 / of_k, np.finfo(float).tiny))
    far = 6 * np.sqrt(variance)
    reach = (given.min(axis=2) - far).min(), (given.max(axis=2) + far).max()
    low, high = np.arcsin(np.sqrt(np.clip(reach, 0, 1)))
    questions = max(int(np.rint(n_questions)), 1)
    needed = (high - low) * 2 * np.sqrt(questions) * _ACCURACIES
    if needed > _MOST:
        raise ValueError(
            f"Argument `n_questions` is too large: noise of {0.5 / np.sqrt(questions):.1g} is finer than {_DRAWS} "
            "draws of the posterior can tell."
        )
    # Sizes are powers of two, so that few programs serve all curves and counts.
    edges = np.sin(np.linspace(low, high, _power_of_two(needed) + 1)) ** 2
    counts, measure = _counts(questions, low, high)
    padding = 0, _power_of_two(counts.size) - counts.size
    known_lines = mu, variance, with_k, rest, given
    return np.stack(
        _information(
            known_lines, k, of_k, edges, float(questions), np.pad(counts, padding), np.pad(measure, padding)
        ),
        axis=-1,
    )


def _power_of_two(size: float) -> int:
    return 2 ** max(int(np.ceil(np.log2(max(size, 1)))), 6)


def _counts(n: int, low: float, high: float) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Numbers of right answers that accuracies between two angles phi give, and how many each stands for."""
    every = np.arange(n + 1.0)
    if n < 4 * _SINGLE:
        return every, np.ones_like(every)
    margin = 4 / np.sqrt(n)
    ends = n * np.sin(np.clip([low - margin, high + margin], 0, np.pi / 2)) ** 2
    # Midpoints in phi stand for the counts between those that are nodes of their own.
    first, last = np.clip(ends, _SINGLE - 0.5, n - _SINGLE + 0.5)
    start, stop = np.arcsin(np.sqrt(np.array([first, last]) / n))
    size = int(np.ceil((stop - start) * 2 * np.sqrt(n) * _COUNTS))
    phi = start + (stop - start) * (np.arange(size) + 0.5) / max(size, 1)
    middle, step = n * np.sin(phi) ** 2, n * np.sin(2 * phi) * (stop - start) / max(size, 1)
    single = np.concatenate([every[:_SINGLE], every[-_SINGLE:]])
    single = single[(single >= np.floor(ends[0])) & (single <= np.ceil(ends[1]))]
    return np.concatenate([single, middle]), np.concatenate([np.ones_like(single), step])


@jax.jit
def _cut_quantiles(x):
    """Even quantiles of N(x, 1) cut to positive values, one row for each x."""
    share = (jnp.arange(_QUANTILES) + 0.5) / _QUANTILES
    return cut_normal(*jnp.broadcast_arrays(x[:, None], share[None, :]))


@jax.jit
def _information(known_lines, k, of_k, edges, n_questions, counts, measure):
    width, middle = jnp.diff(edges), (edges[1:] + edges[:-1]) / 2
    accuracy = jnp.concatenate([jnp.zeros(1), middle, jnp.ones(1)])[:, None]
    counts = counts[None, :]
    ways = gammaln(n_questions + 1) - gammaln(counts + 1) - gammaln(n_questions - counts + 1)
    binomial = jnp.exp(ways + xlogy(counts, accuracy) + xlog1py(n_questions - counts, -accuracy))
    positive = log_ndtr(k / jnp.sqrt(of_k))[:, None]

    def one(case):
        mu, variance, with_k, rest, given = case
        # Half a cell wider, so that cells hold what they should of a law that is narrower than a cell.
        spread = jnp.sqrt(variance[:, None] + (width[None, :] / 2) ** 2)
        x, gain = (middle[None, :] - mu[:, None]) / spread, with_k[:, None] / spread
        left = jnp.sqrt(jnp.maximum(of_k[:, None] - gain**2, jnp.finfo(x.dtype).tiny))
        log_density = norm.logpdf(x) - jnp.log(spread) + log_ndtr((k[:, None] + gain * x) / left) - positive
        inside = jnp.exp(log_density) * width[None, :]
        # What lies beyond an end of [0, 1] is that end; its probability is a mean over quantiles of k.
        wrong = jnp.mean(ndtr(-given / rest[:, None]), axis=1, keepdims=True)
        right = jnp.mean(ndtr((given - 1) / rest[:, None]), axis=1, keepdims=True)
        total = jnp.sum(inside, axis=1, keepdims=True)
        inside = inside * (1 - wrong - right) / jnp.maximum(total, jnp.finfo(x.dtype).tiny)
        outcomes = jnp.concatenate([wrong, inside, right], axis=1) @ binomial
        told = xlogy(outcomes, outcomes)

        def of(part):
            mixed = jnp.mean(outcomes[part], axis=0)
            return jnp.sum((jnp.mean(told[part], axis=0) - xlogy(mixed, mixed)) * measure)

        return of(slice(None)), of(slice(0, None, 2)), of(slice(1, None, 2))

    return jax.lax.map(one, known_lines)
