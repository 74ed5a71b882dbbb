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
from jaxkinetic.inference.posterior.plane import Plane
from jaxkinetic.inference.posterior.predictive import LineLaws, draw_lines, line_laws
from jaxkinetic.inference.posterior.priors import Priors
from jaxkinetic.theories import Parameter, Theory

_DRAWS = 2000


@dataclasses.dataclass(frozen=True, repr=False)
class Posterior(Shown):
    """Posterior of the two parameters of a theory on a grid, and of theories where several were given.

    Attributes:
        theories: what was weighed, (T,), of equal prior probability; one or several.
        first: first parameter at the centres of the rows, (R,), densest where the probability is.
        second: second parameter at the centres, (R, C); for the paper's theory evenly spaced in each row in
            arcsinh(lam / s) with s = min(1, beta / 4).
        mass: posterior probability of every cell, (T, R, C); it sums to 1.
        intervals: shortest interval of each parameter in the scale in which the prior is flat. An end is
            open where the prior sets it, not the data: at the end of its range, or short of it, if up to there the
            likelihood stays within chi^2_1(level) / 2 of its peak and only the prior's volume shrinks.
        identifiable: whether the interval of each parameter is closed.
        log_evidence: log of the probability of the curves under the theories and their priors.
        log_evidence_of: the same for each curve a "constant", a "quadratic" and a "free-form" curve.
        chi2: smallest chi-squared within the ranges of the priors, offset and contrast of each curve at their best.
        dof: points less parameters: two of the theory, and two per curve.
        p_value: probability of a larger chi-squared if the theory were true; NaN without degrees of freedom.
        curves: the curves.
        priors: those of each curve's mean and contrast.
        level: probability in the intervals.
    """

    theories: tuple[Theory, ...] = dataclasses.field(repr=False)
    first: np.ndarray = dataclasses.field(repr=False)
    second: np.ndarray = dataclasses.field(repr=False)
    mass: np.ndarray = dataclasses.field(repr=False)
    intervals: dict[str, Interval]
    identifiable: dict[str, bool]
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

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Both parameters, with the ranges over which their priors are flat."""
        return self.theories[0].parameters

    @property
    def probabilities(self) -> np.ndarray:
        """Posterior probability of each of the theories, (T,)."""
        return self.mass.sum(axis=(1, 2))

    def describe_priors(self) -> str:
        """Say all priors in words, a line each."""
        return "\n".join([*(f"{p.name:<10}{p.flat}" for p in self.parameters), str(self.priors)])

    def marginal(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Edges of cells of one parameter, (n + 1,), and their probabilities, (n,)."""
        check_choice("name", name, self.intervals)
        joint, (first, second) = self.mass.sum(axis=0), self.parameters
        if name == first.name:
            return first.unscaled(self._rows), joint.sum(axis=1)
        edges, share = column_marginal(joint, self._edges)
        return second.unscaled(edges), share

    def describe(self, name: str) -> str:
        """Interval of a parameter in words, with "unidentified" where the data leave it open."""
        check_choice("name", name, self.intervals)
        shown = f"{self.intervals[name]} ({100 * self.level:.0f} %)"
        return shown if self.identifiable[name] else f"unidentified, {shown}"

    def region(self, level: float) -> np.ndarray:
        """Cells that hold the given probability and are denser than all others, (R, C).

        Raises:
            ValueError: if the level does not lie in (0, 1).
        """
        check_level(level)
        joint = self.mass.sum(axis=0)
        order = np.argsort(self.density, axis=None)[::-1]
        kept = int(np.searchsorted(np.cumsum(joint.ravel()[order]), level)) + 1
        inside = np.zeros(joint.size, bool)
        inside[order[:kept]] = True
        return inside.reshape(joint.shape)

    @property
    def density(self) -> np.ndarray:
        """Posterior density of both parameters relative to the prior's, (R, C)."""
        return self.mass.sum(axis=0) / prior_share(self._rows, self._edges, Plane(self.theories[0]).ranges)

    def predict(
        self, curve: RetrievalCurve, sources: Any = None, level: float | None = None, n_questions: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low end, median and high end of the predicted accuracy of one of the curves, each (S,).

        Every parameter is drawn from its posterior (2000 draws, always the same). The theory does not know that an
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
        found = self.line_laws((np.arange(_DRAWS) + rng.random()) / _DRAWS, wanted)
        parts = found.mean[:, index], found.covariance[:, index], rng.random(_DRAWS), rng.standard_normal(_DRAWS)
        offset, contrast = (np.asarray(x)[:, None] for x in draw_lines(*(jnp.asarray(x) for x in parts)))
        drawn = offset + contrast * found.shape[:, index]
        if n_questions is not None:
            drawn = rng.binomial(n_questions, drawn.clip(0, 1)) / n_questions
        tail = (1 - level) / 2
        low, median, high = np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0)
        return low, median, high

    def line_laws(self, share: np.ndarray, sources: np.ndarray) -> LineLaws:
        """What is left to say about offset and contrast of every curve at draws of the parameters.

        Args:
            share: where the draws stand in the posterior's cumulative probability over its cells, in (0, 1), (D,);
                evenly spaced ones draw every cell as often as its probability says.
            sources: positions sigma_0 in (0, 1], (S,).
        """
        cells = np.searchsorted(np.cumsum(self.mass.ravel()), share * (1 - 1e-12))
        which, i, j = np.unravel_index(cells, self.mass.shape)
        values = np.stack([self.first[i], self.second[i, j]], axis=1)
        n_curves = len(self.curves)
        found = LineLaws(*(np.empty((share.size, n_curves, *size)) for size in ((2,), (2, 2), (sources.size,))))
        for k in np.unique(which):
            here = which == k
            part = line_laws(values[here], sources, self._data[k], self.priors)
            for whole, some in zip(found, part, strict=True):
                whole[here] = some
        return found
