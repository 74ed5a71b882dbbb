"""Where priors begin to exclude the data: the thresholds that the documentation gives."""

import sys

import numpy as np
import pytest

from jaxkinetic import Priors, RetrievalCurve, theories
from jaxkinetic.inference.fit.likelihood import stack_curves
from jaxkinetic.inference.posterior.peaks import LikelihoodPeaks
from jaxkinetic.inference.posterior.prior_check import check_priors

MODULE = sys.modules[check_priors.__module__]
ACCURACY = np.array([0.3, 0.5, 0.4, 0.6, 0.7])
CURVE = RetrievalCurve([0.1, 0.3, 0.5, 0.7, 0.9], ACCURACY, 1000)


def fitted(chi2):
    """A best fit that meets every point, whatever its chi-squared is said to be."""
    one, free = np.zeros(1), np.zeros(1, bool)
    return LikelihoodPeaks(one, one, one, free, chi2, np.array([1.0, 2.0]), residuals=np.zeros((1, 7)))


def check(chi2, theory=None, **priors):
    data = [stack_curves([CURVE], theory or theories.paper())[0]]
    check_priors([CURVE], fitted(chi2), data, Priors(**priors))


@pytest.mark.parametrize("side", [-1, 1])
def test_a_mean_excludes_what_is_beyond_six_standard_deviations(side):
    spread = 0.02
    check(1.0, mean=0.5 + side * 5.9 * spread, mean_spread=spread)
    with pytest.raises(ValueError, match="the mean accuracy of curve is"):
        check(1.0, mean=0.5 + side * 6.1 * spread, mean_spread=spread)


def test_a_contrast_excludes_what_varies_beyond_six_standard_deviations():
    check(1.0, contrast_spread=ACCURACY.std() / 5.9)
    with pytest.raises(ValueError, match="curve varies by"):
        check(1.0, contrast_spread=ACCURACY.std() / 6.1)


@pytest.mark.parametrize(
    ("within", "beyond", "is_refused"),
    [
        # Five points: a chi-squared of 37.5 has a probability of 5e-7, one of 35 of 1.5e-6.
        (100.0, 49.0, True),
        (100.0, 51.0, False),
        (37.5 + 50, 37.4, True),
        (35.0, -20.0, False),
        (38.0, -20.0, True),
    ],
)
def test_ranges_exclude_what_fits_far_better_beyond_them_and_not_within(monkeypatch, within, beyond, is_refused):
    monkeypatch.setattr(MODULE, "best_log_likelihood", lambda *given: given)
    monkeypatch.setattr(MODULE, "find_peaks", lambda *given: fitted(beyond))  # noqa: ARG005
    if is_refused:
        with pytest.raises(ValueError, match=r"with beta from 0.1 to 1 and lam from -20 to 100 chi-squared is"):
            check(within, theories.paper(beta_range=(0.1, 1.0)))
    else:
        check(within, theories.paper(beta_range=(0.1, 1.0)))
    # Ranges that hold the default ones have nothing beyond them, nor do those of a theory of one's own.
    check(within, theories.paper(beta_range=(0.001, 20.0), lam_range=(-50.0, 200.0)))
    own = [theories.Parameter(name, 0.0, 1.0) for name in ("a", "b")]
    check(within, theories.of_function(lambda s, a, b: a * s + b * s**2, own))
