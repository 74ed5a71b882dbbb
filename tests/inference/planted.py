"""Curves with known beta and lam, made without the package's own formulas."""

from collections.abc import Sequence

import numpy as np

from jaxkinetic.inference import RetrievalCurve
from tests.inference import oracle

BETA, LAM = 1.5, 4.0
LENGTHS = (16, 20, 24)
OFFSETS, SLOPES = (0.5, 0.45, 0.4), (0.1, 0.2, 0.3)


def planted(
    n_questions: int | None,
    seed: int | None = None,
    beta: float = BETA,
    lam: float = LAM,
    lengths: Sequence[int] = LENGTHS,
) -> list[RetrievalCurve]:
    """Curves of several lengths; with a seed the answers are drawn, without one they are exact."""
    rng = np.random.default_rng(seed)
    curves = []
    for n, offset, slope in zip(lengths, OFFSETS, SLOPES, strict=False):
        sources = (np.arange(n) + 0.5) / n
        values = oracle.shape(sources, beta, lam)
        accuracy = offset + slope * (values - values.min()) / np.ptp(values)
        if seed is not None and n_questions is not None:
            accuracy = rng.binomial(n_questions, accuracy) / n_questions
        curves.append(RetrievalCurve(sources, accuracy, n_questions, n))
    return curves


def points(curves: Sequence[RetrievalCurve]) -> list[oracle.Points]:
    """Curves as the oracle wants them, with errors worked out here."""
    found = []
    for c in curves:
        assert c.n_questions is not None
        p = (c.accuracy * c.n_questions + 0.5) / (c.n_questions + 1)
        found.append(oracle.Points(c.sources, c.accuracy, np.sqrt(p * (1 - p) / c.n_questions)))
    return found
