"""Whole fits through the simulator: against the closed form, and where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from tests.inference import oracle
from tests.inference.test_simulation_fit import PAPER, alibi, coordinates, planted, theory_of
from tests.limit.laws import CODEWORDS

TRUTH = (0.7, -2.0)


@pytest.mark.slow
def test_at_many_tokens_the_fit_is_that_of_the_closed_form():
    """The same exact curve, 512 tokens and the limit: estimates within 4 Monte Carlo errors, errors alike.

    Four Monte Carlo errors are some 0.4 of the data's here. The true difference, which falls as 1 / N, is about
    0.12 of them at 512 tokens; at 128 it was measured as 0.48 in lam, six Monte Carlo errors, which would fail.
    """
    n_tokens = 512
    sources = np.ceil(n_tokens * 0.97 * (np.arange(60) + 0.5) / 60) / n_tokens
    shape = oracle.shape(sources, *TRUTH)
    curve = jk.RetrievalCurve(sources, 0.2 + 0.6 * (shape - shape.min()) / np.ptp(shape), 1000)
    closed = jk.fit_curves(curve)
    assert (closed.beta, closed.lam) == pytest.approx(TRUTH, rel=1e-6)
    found = jk.fit_by_simulation(
        curve, n_tokens, jax.random.key(1), start=(0.9, -1.0), steps=16, batch=16, n_steps=2, tolerance=0.2
    )
    assert found.converged
    assert found.monte_carlo_error <= 0.2
    error = np.sqrt(np.diag(found.monte_carlo_covariance))
    away = coordinates(found.beta, found.lam) - coordinates(closed.beta, closed.lam)
    assert np.all(np.abs(away) < 4 * error)
    assert np.all(error < 0.2 * np.sqrt(np.diag(found.data_covariance)))
    # The likelihood's interval and the normal one in log(beta) are of one width, where both are narrow.
    low, high = found.interval("beta")
    ours, theirs = np.log(high / low), np.log(closed.intervals["beta"].high / closed.intervals["beta"].low)
    assert ours == pytest.approx(theirs, rel=0.3)
    assert found.chi2 < 10


def fourier(beta, lam):
    """A kernel of two waves, whose first coefficient is twice that of the exponential cosine at small beta."""
    return jk.CausalAttention(jk.FourierKernel(beta * jnp.array([1.0, 0.25])), jk.ALiBi(lam))


@pytest.mark.slow
def test_another_kernel_is_fitted():
    """With the exponential cosine in its place beta would come out as twice of what it is."""
    truth = 0.35, -2.0
    curve = planted(fourier, 32, 2000, 1, 28, *truth, end=0.95)
    found = jk.fit_by_simulation(
        curve, 32, jax.random.key(1), theory=theory_of(fourier), start=(0.45, -1.0), steps=16, batch=16,
        n_steps=2, tolerance=0.4,
    )  # fmt: skip
    recovered(found, truth, "adjoint", 0.15, 0.3)


@pytest.mark.slow
def test_prompts_of_codewords_are_fitted():
    curve = planted(alibi, 16, 10_000, 1, 8, *TRUTH, law=CODEWORDS, n_prompts=8192)
    found = jk.fit_by_simulation(
        curve, 16, jax.random.key(1), theory=PAPER, prompts=CODEWORDS, start=(0.8, -1.6), steps=8, batch=256,
        n_steps=2, tolerance=0.5, max_blocks=24,
    )  # fmt: skip
    recovered(found, TRUTH, "glauber", 0.1, 0.4)
    # Uniform prompts of the same beta and lam have another shape, which this curve rejects.
    uniform = planted(alibi, 16, None, None, 8, *TRUTH, n_prompts=8192)
    away = (uniform.accuracy - curve.accuracy) / curve.standard_error
    assert away @ away > 50


def recovered(found, truth, estimator, beta_error, lam_error):
    """Planted values within errors of the size that the data allow: log beta's and arcsinh lam's."""
    assert found.converged
    assert found.estimator == estimator
    assert found.identifiable == {"beta": True, "lam": True}
    assert found.contains(truth, level=0.99)
    for name, value in zip(("beta", "lam"), truth, strict=True):
        low, high = found.interval(name, 0.99)
        assert low < value < high
    assert np.all(np.sqrt(np.diag(found.data_covariance)) < [beta_error, lam_error])
    assert found.p_value > 1e-3
