"""Simultaneous bands against laws in closed form, and how often they hold a whole curve."""

import numpy as np
import pytest
import scipy.stats

from jaxkinetic.retrieval.band import simultaneous_factor

MANY = 10**6


def test_factors_of_normal_laws():
    """Independent sources, P = (2 Phi(q) - 1)^S; one and the same; one that has no error."""
    independent = scipy.stats.norm.ppf((1 + 0.95 ** (1 / 10)) / 2)
    assert simultaneous_factor(np.diag(np.arange(1.0, 11)), MANY) == pytest.approx(independent, abs=0.03)
    assert simultaneous_factor(np.ones((40, 40)), MANY) == pytest.approx(1.96, abs=0.03)
    assert simultaneous_factor(np.diag([1.0, 0.0]), MANY, 0.5) == pytest.approx(
        scipy.stats.norm.ppf(0.75), abs=0.02
    )
    assert simultaneous_factor(np.zeros((2, 2)), MANY) == 0


@pytest.mark.parametrize("n_prompts", [4, 8, 17, 64])
def test_factors_of_few_prompts_are_those_of_independent_t_statistics(n_prompts):
    """Each source has an estimate of its own variance; one for all once gave 3.58 for 3.95 at 8 prompts."""
    for size in (1, 9):
        exact = scipy.stats.t.ppf((1 + 0.95 ** (1 / size)) / 2, n_prompts - 1)
        assert simultaneous_factor(np.eye(size), n_prompts) == pytest.approx(exact, rel=0.03)
    assert simultaneous_factor(np.ones((9, 9)), n_prompts) == pytest.approx(
        scipy.stats.t.ppf(0.975, n_prompts - 1), rel=0.03
    )


def test_the_same_estimate_has_the_same_band():
    covariance = np.eye(5) + 0.5
    for n_prompts in (8, 64):
        assert simultaneous_factor(covariance, n_prompts) == simultaneous_factor(covariance, n_prompts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_prompts", "correlation", "seed"), [(4, 0.0, 5), (8, 0.7, 4), (16, 0.7, 4), (64, 0.0, 4)]
)
def test_bands_hold_the_whole_curve_as_often_as_they_say(n_prompts, correlation, seed):
    """Of 400 curves of nine sources 380 are expected, with a standard deviation of 4; the band may be wider."""
    sources = np.arange(9)
    root = np.linalg.cholesky(correlation ** np.abs(sources[:, None] - sources[None, :]))
    rng, inside = np.random.default_rng(seed), 0
    for _ in range(400):
        values = rng.standard_normal((n_prompts, 9)) @ root.T
        covariance = np.cov(values.T) / n_prompts
        away = np.abs(values.mean(axis=0)) / np.sqrt(np.diagonal(covariance))
        inside += away.max() <= simultaneous_factor(covariance, n_prompts)
    assert 367 <= inside <= 394


@pytest.mark.parametrize(
    ("n_prompts", "level", "message"),
    [
        (MANY, 1.0, r"`level` must lie in \(0, 1\)"),
        (MANY, 0.0, r"`level` must lie in \(0, 1\)"),
        (3, 0.95, "`n_prompts` must be at least 4, but is 3"),
    ],
)
def test_bad_input(n_prompts, level, message):
    with pytest.raises(ValueError, match=message):
        simultaneous_factor(np.eye(2), n_prompts, level)
