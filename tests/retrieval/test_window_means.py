"""Means over windows against the estimate's own numbers."""

import jax
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval import ProfileEstimate

MODEL = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))


@pytest.fixture(scope="module")
def estimate():
    return jk.estimate_profile(
        MODEL, 0.5, 4, 12, n_prompts=64, key=jax.random.key(0), sources="all", joint=True, n_steps=4
    )


def test_means_and_their_errors_are_those_of_the_sources(estimate):
    found = jk.window_means(estimate, [0.0, 0.3, 0.35, 1.0])
    # Tokens 1 to 3, token 4, and tokens 5 to 11.
    parts = [slice(0, 3), slice(3, 4), slice(4, 11)]
    np.testing.assert_allclose(found.values, [estimate.values[p].mean() for p in parts], rtol=1e-13)
    np.testing.assert_allclose(found.sources, [2 / 12, 4 / 12, 8 / 12], rtol=1e-13)
    blocks = [[estimate.covariance[p, q].mean() for q in parts] for p in parts]
    np.testing.assert_allclose(found.covariance, blocks, rtol=1e-11)
    np.testing.assert_allclose(found.standard_error[1], estimate.standard_error[3], rtol=1e-12)
    assert found.range == np.ptp(found.values)
    assert (found.n_tokens, found.n_prompts) == (12, 64)


@pytest.mark.parametrize("n_tokens", [10, 20, 100])
@pytest.mark.parametrize("edges", [np.linspace(0, 1, 11)[1:], np.linspace(0.1, 0.9, 9), np.arange(1, 10) * 0.1])
def test_tokens_on_an_edge_belong_after_it_however_the_edge_is_rounded(edges, n_tokens):
    n = n_tokens - 1
    moments = Moments(32, np.zeros(n), np.eye(n))
    estimate = ProfileEstimate(
        np.arange(1, n_tokens) / n_tokens, moments.mean, moments.standard_error, 32, n_tokens, 8, "soft", "adjoint",
        True, 4, 0.0, moments,
    )  # fmt: skip
    found = jk.window_means(estimate, edges)
    first = np.round(edges[:-1] * n_tokens).clip(1)
    last = np.round(edges[1:] * n_tokens) - 1
    np.testing.assert_allclose(found.sources, (first + last) / 2 / n_tokens, rtol=1e-12)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([0.5, 0.2], "`edges` must be two or more ends that increase"),
        ([0.5], "`edges` must be two or more ends that increase"),
        ([0.1, 0.15, 0.9], r"`edges` must leave a source in every window, but \[0.1, 0.15\) has none"),
    ],
)
def test_bad_input(estimate, edges, message):
    with pytest.raises(ValueError, match=message):
        jk.window_means(estimate, edges)
