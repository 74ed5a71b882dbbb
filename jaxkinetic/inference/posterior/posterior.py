"""What a posterior says: marginals, intervals, regions, goodness of fit, and the curves that it predicts."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxkinetic._show import Shown
from jaxkinetic._types import as_positions, check_at_least, check_choice, check_level
from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.fit.intervals import Interval
from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.posterior.adaptive_grid import column_marginal, prior_share
from jaxkinetic.inference.posterior.predictive import Outlook, draw_lines, outlook
from jaxkinetic.inference.posterior.prior_coordinates import lam_of_v, ranges
from jaxkinetic.inference.posterior.priors import Priors

_DRAWS = 2000


@dataclasses.dataclass(frozen=True, repr=False)
class Posterior(Shown):
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
        chi2: smallest chi-squared within the ranges of the priors, offset and contrast of each curve at their best.
        dof: points less parameters: beta, lam, and two per curve.
        p_value: probability of a larger chi-squared if the model were true; NaN without degrees of freedom.
        curves: the curves.
        priors: the priors.
        level: probability in the intervals.
    """

    beta: np.ndarray = dataclasses.field(repr=False)
    lam: np.ndarray = dataclasses.field(repr=False)
    times: np.ndarray
    vocab_sizes: np.ndarray
    mass: np.ndarray = dataclasses.field(repr=False)
    intervals: dict[str, Interval]
    identified: dict[str, bool]
    log_evidence: float
    log_evidence_of: dict[str, float]
    chi2: float
    dof: int
    p_value: float
    curves: list[RetrievalCurve] = dataclasses.field(repr=False)
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
        check_choice("name", name, ("beta", "lam", "time", "vocab_size"))
        if name == "beta":
            return np.exp(self._rows), self.mass.sum(axis=(0, 1, 3))
        if name == "lam":
            edges, share = column_marginal(self.mass.sum((0, 1)), self._edges)
            return lam_of_v(edges, self.priors), share
        if name == "time":
            return self.times, self.mass.sum(axis=(1, 2, 3))
        return self.vocab_sizes, self.mass.sum(axis=(0, 2, 3))

    def describe(self, name: str) -> str:
        """Interval of "beta" or "lam" in words, with "unidentified" where the data leave it open."""
        check_choice("name", name, self.intervals)
        shown = f"{self.intervals[name]} ({100 * self.level:.0f} %)"
        return shown if self.identified[name] else f"unidentified, {shown}"

    def region(self, level: float) -> np.ndarray:
        """Cells of (beta, lam) that hold the given probability and are denser than all others, (B, L).

        Raises:
            ValueError: if the level does not lie in (0, 1).
        """
        check_level(level)
        joint = self.mass.sum(axis=(0, 1))
        order = np.argsort(self.density, axis=None)[::-1]
        kept = int(np.searchsorted(np.cumsum(joint.ravel()[order]), level)) + 1
        inside = np.zeros(joint.size, bool)
        inside[order[:kept]] = True
        return inside.reshape(joint.shape)

    @property
    def density(self) -> np.ndarray:
        """Posterior density of (beta, lam) relative to the prior's, (B, L)."""
        return self.mass.sum(axis=(0, 1)) / prior_share(self._rows, self._edges, ranges(self.priors))

    def predict(
        self, curve: RetrievalCurve, sources: Any = None, level: float | None = None, n_questions: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low end, median and high end of the predicted accuracy of one of the curves, each (S,).

        Every parameter is drawn from its posterior (2000 draws, always the same). The model does not know that an
        accuracy ends at 1: far from where the curve was measured its band may.

        Args:
            curve: one of the curves.
            sources: positions in (0, 1]; the curve's own if None.
            level: probability of the band; that of the posterior if None.
            n_questions: predict a new measurement of so many questions rather than the accuracy itself.

        Raises:
            ValueError: if the curve is not one of the posterior's, or an argument is out of range.
        """
        level = self.level if level is None else level
        check_level(level)
        if n_questions is not None:
            check_at_least("n_questions", n_questions, 1)
        index = next((i for i, c in enumerate(self.curves) if c is curve), None)
        if index is None:
            raise ValueError("Argument `curve` must be one of the posterior's curves; see `.curves`.")
        wanted = curve.sources if sources is None else as_positions("sources", sources)
        rng = np.random.default_rng(0)
        found = self.outlook((np.arange(_DRAWS) + rng.random()) / _DRAWS, wanted)
        parts = found.mean[:, index], found.covariance[:, index], rng.random(_DRAWS), rng.standard_normal(_DRAWS)
        offset, contrast = (np.asarray(x)[:, None] for x in draw_lines(*(jnp.asarray(x) for x in parts)))
        drawn = offset + contrast * found.shape[:, index]
        if n_questions is not None:
            drawn = rng.binomial(n_questions, drawn.clip(0, 1)) / n_questions
        tail = (1 - level) / 2
        low, median, high = np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0)
        return low, median, high

    def outlook(self, share: np.ndarray, sources: np.ndarray) -> Outlook:
        """What is left to say about every curve at draws of the parameters.

        Args:
            share: where the draws stand in the posterior's cumulative probability over its cells, in (0, 1), (D,);
                evenly spaced ones draw every cell as often as its probability says.
            sources: positions sigma_0 in (0, 1], (S,).
        """
        cells = np.searchsorted(np.cumsum(self.mass.ravel()), share * (1 - 1e-12))
        t, v, i, j = np.unravel_index(cells, self.mass.shape)
        which = t * self.vocab_sizes.size + v
        n_curves = len(self.curves)
        found = Outlook(*(np.empty((share.size, n_curves, *size)) for size in ((2,), (2, 2), (sources.size,))))
        for k in np.unique(which):
            here = which == k
            part = outlook(self.beta[i[here]], self.lam[i[here], j[here]], sources, self._data[k], self.priors.line)
            for whole, values in zip(found, part, strict=True):
                whole[here] = values
        return found
