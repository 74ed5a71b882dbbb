"""The power series over modes against sums of Bessel functions by scipy and mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import special

from jaxkinetic import ExpCosine
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.mode_series import LARGEST, largest_exponent, mode_sum

TIME = jnp.asarray(1.3)
WEIGHTS = closed_form.mode_weights(8, 20)
RATES = jax.vmap(lambda beta: ExpCosine(beta, n_modes=32).growth_rates()[:20])(jnp.array([0.02, 1.0, 7.0]))
Y = jnp.asarray(np.stack([[0.0, 1e-6, 0.03, 0.7, 3.0, 40.0, 900.0]] * 3))


def test_values_against_scipy():
    """sum_n w_n sqrt(c / Y) I_1(2 sqrt(c Y)), scaled by the same power of e."""
    values, log_scale = mode_sum(RATES, WEIGHTS, TIME, Y)
    c = np.asarray(RATES * TIME)[:, :, None]
    y = np.asarray(Y)[:, None, :]
    x = 2 * np.sqrt(c * y)
    shift = np.asarray(log_scale)[:, None, :]
    half = np.where(x > 0, special.ive(1, x) / np.where(x > 0, x, 1), 0.5)
    expected = np.sum(np.asarray(WEIGHTS)[None, :, None] * 2 * c * half * np.exp(x - shift), axis=1)
    np.testing.assert_allclose(values, expected, rtol=3e-13)


def test_values_against_forty_digits():
    found, log_scale = mode_sum(RATES[2:], WEIGHTS, TIME, jnp.array([[0.9, 300.0]]))
    with mpmath.workdps(40):
        for y, value, shift in zip((0.9, 300.0), found[0].tolist(), log_scale[0].tolist(), strict=True):
            exact = mpmath.mpf(0)
            for rate, weight in zip(RATES[2].tolist(), WEIGHTS.tolist(), strict=True):
                c = mpmath.mpf(rate) * mpmath.mpf(1.3)
                exact += weight * mpmath.sqrt(c / y) * mpmath.besseli(1, 2 * mpmath.sqrt(c * y))
            assert abs(value * mpmath.exp(shift) / exact - 1) < 1e-13


def test_forward_derivatives_against_differences():
    def log_sum(beta, y):
        rates = ExpCosine(beta, n_modes=32).growth_rates()[None, :20]
        values, log_scale = mode_sum(rates, WEIGHTS, TIME, y[None, None])
        return jnp.log(values[0, 0]) + log_scale[0, 0]

    compiled, h = jax.jit(log_sum), 1e-4
    for at in ((1.2, 0.7), (3.0, 30.0)):
        at = jnp.asarray(at)
        found = jax.jit(jax.jacfwd(log_sum, (0, 1)))(*at)
        for i, slope in enumerate(found):
            near, far = (
                (compiled(*at.at[i].add(k * h)) - compiled(*at.at[i].add(-k * h))) / (2 * k * h) for k in (1, 2)
            )
            assert float(slope) == pytest.approx(float(4 * near - far) / 3, rel=1e-9)


def test_beyond_its_reach_it_says_so():
    y = jnp.array([[1.0, 1e4, 1e9]])
    exponent = largest_exponent(RATES[1], WEIGHTS, TIME, y[0])
    assert float(exponent[1]) < LARGEST < float(exponent[2])
    values, _ = mode_sum(RATES[1:2], WEIGHTS, TIME, y)
    np.testing.assert_array_equal(np.isnan(values), [[False, False, True]])
