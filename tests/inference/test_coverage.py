"""Profile-likelihood intervals as users get them: how often they hold what was planted, and where they are open."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from jaxkinetic import RetrievalCurve, fit_curves
from jaxkinetic.theories import paper
from tests.inference import oracle

pytestmark = pytest.mark.optimized

TRUTH, VOCAB, LEVEL = {"beta": 2.0, "lam": 6.0}, 3, 0.9


def planted(seed, n_positions, n_questions, beta, lam, contrast):
    sources = (np.arange(n_positions) + 0.5) / n_positions
    values = oracle.shape(sources, beta, lam, 1.0, VOCAB)
    accuracy = 0.2 + contrast * (values - values.min()) / np.ptp(values)
    counts = np.random.default_rng(seed).binomial(n_questions, accuracy)
    return RetrievalCurve(sources, counts / n_questions, n_questions)


@pytest.mark.slow
def test_intervals_of_the_profile_likelihood_cover_planted_values():
    """Of 400 replicates 86 to 94 per cent are covered: 360 expected, with a standard deviation of 6."""

    def one(seed):
        return fit_curves(
            planted(seed, 6, 40_000, **TRUTH, contrast=0.6), theory=paper(vocab_size=VOCAB), level=LEVEL
        )

    with ThreadPoolExecutor(2) as pool:
        fits = list(pool.map(one, range(400)))
    for name, value in TRUTH.items():
        intervals = [f.intervals[name] for f in fits]
        assert all(i.closed and i.level == LEVEL for i in intervals)
        inside = sum(i.low <= value <= i.high for i in intervals)
        assert 0.86 * 400 <= inside <= 0.94 * 400, f"{name}: {inside} of 400"
        # Misses are shared by the two sides, as a shift of all intervals would not have it.
        below = sum(value < i.low for i in intervals)
        assert stats.binomtest(below, 400 - inside).pvalue > 1e-3, f"{name}: {below} of {400 - inside} misses"
    # The least chi-squared has the distribution that its degrees of freedom say.
    assert stats.kstest([f.p_value for f in fits], "uniform").pvalue > 1e-3


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 8))])
def test_a_shallow_curve_leaves_intervals_open_and_says_so(seed):
    """Few questions on the ridge lam ~ beta, which neither beta nor lam of any size leaves."""
    found = fit_curves(planted(seed, 5, 300, 0.3, 0.3, contrast=0.05), theory=paper(vocab_size=VOCAB), level=LEVEL)
    for name in TRUTH:
        interval = found.intervals[name]
        assert interval.low_open or interval.high_open
        assert not found.identifiable[name]
        assert found.describe(name).startswith("unidentified, [")
        assert ("<" in str(interval), ">" in str(interval)) == (interval.low_open, interval.high_open)
    assert "unidentified" not in fit_curves(
        planted(seed, 6, 40_000, **TRUTH, contrast=0.6), theory=paper(vocab_size=VOCAB)
    ).describe("lam")
