"""Theorem 1.2: particles approach the limit as 1 / N, for uniform prompts and for codewords."""

import numpy as np
import pytest

import jaxkinetic as jk
from scripts.convergence import CODEWORDS, distance, residual, slope

SIZES = (32, 128, 512)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "n_prompts", "degree", "within"),
    [(jk.UniformPrompts(), (1024, 768, 512), 3, 0.1), (CODEWORDS, (1024, 1024, 1024), 1, 0.05)],
    ids=["uniform", "codewords"],
)
def test_the_distance_to_the_limit_falls_as_one_over_n(law, n_prompts, degree, within):
    """Slopes of log |S_N - S| over log N at three sources, and none but -1 fits all of them."""
    found = [distance(law, n, p, degree, seed=n) for n, p in zip(SIZES, n_prompts, strict=True)]
    values, errors = np.stack([f.values for f in found]), np.stack([f.errors for f in found])
    # All on one side of the limit, and seen above the noise also at N = 512.
    assert np.all(np.sign(values) == np.sign(values[0, 0]))
    assert np.all(np.abs(values) > 3 * errors), values / errors
    for k in range(values.shape[1]):
        exponent, _, error = slope(SIZES, values[:, k], errors[:, k])
        assert error < within, (values, errors)
        assert -1.2 < exponent < -0.8, (exponent, error)


def test_regression_leaves_no_bias_and_takes_what_is_linear():
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(400, 5)), rng.normal(size=400)
    rest = residual(3 + features @ np.arange(5.0) + 0.1 * noise, features)
    np.testing.assert_allclose(rest.mean(), 3, atol=0.02)
    assert 0.09 < rest.std() < 0.11
