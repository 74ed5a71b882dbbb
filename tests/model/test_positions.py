import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxkinetic import ALiBi
from jaxkinetic.model.positions import log_sinhc
from tests.problems import mp_graphon

LAMS = [-300.0, -2.0, -1e-9, 0.0, 1e-9, 1.0, 12.0, 300.0]


@pytest.mark.parametrize("lam", LAMS)
def test_weights_are_the_formula_and_sum_to_one(lam):
    n = 9
    weights = ALiBi(lam).weights(n)
    np.testing.assert_allclose(weights.sum(axis=1), [0] + [1] * (n - 1), rtol=1e-14)
    for j in range(2, n + 1):
        raw = [mp.exp(-mp.mpf(lam) / n * (j - k)) for k in range(1, j)]
        exact = [float(r / mp.fsum(raw)) for r in raw]
        np.testing.assert_allclose(weights[j - 1, : j - 1], exact, rtol=1e-12)
    assert jnp.all(jnp.triu(weights) == 0)


@pytest.mark.parametrize("lam", LAMS)
def test_exponents_factor_the_weights(lam):
    n = 9
    decay, growth = ALiBi(lam).exponents(n)
    j = np.arange(1, n + 1)
    raw = np.tril(np.exp(-float(decay) * (j[:, None] - 1 - j[None, :]) - float(growth) * (j[None, :] - 1)), -1)
    raw[1:] /= raw[1:].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ALiBi(lam).weights(n), raw, rtol=1e-12, atol=1e-300)
    assert decay >= 0
    assert growth >= 0


@pytest.mark.parametrize("lam", LAMS)
def test_graphon_is_the_formula(lam):
    for sigma, source in [(1.0, 0.3), (0.4, 0.4), (1.0, 1e-6)]:
        with mp.workdps(40):
            exact = float(mp_graphon(mp.mpf(lam), mp.mpf(sigma), mp.mpf(source)))
        got = float(ALiBi(lam).graphon(jnp.asarray(sigma), jnp.asarray(source)))
        assert got == pytest.approx(exact, rel=2e-13)
    assert ALiBi(lam).graphon(jnp.asarray(0.3), jnp.asarray(0.4)) == 0


def test_finite_weights_converge_to_the_graphon():
    gaps = []
    for n in (100, 200, 400):
        positions = ALiBi(2.0)
        weights = n * positions.weights(n)[n - 1, n // 4 - 1]
        gaps.append(float(jnp.abs(weights - positions.graphon(jnp.asarray(1.0), jnp.asarray(0.25)))))
    np.testing.assert_allclose(np.log2(np.divide(gaps[:-1], gaps[1:])), 1, atol=0.05)


@pytest.mark.parametrize("u", [0.0, 1e-8, 0.3, 0.999999, 1.000001, -1.0, 5.0, 800.0])
def test_log_sinhc_with_two_derivatives(u):
    with mp.workdps(40):
        x = mp.mpf(u)
        exact = [
            mp.log(mp.sinh(x) / x) if u else 0,
            mp.coth(x) - 1 / x if u else 0,
            1 / x**2 - mp.csch(x) ** 2 if u else mp.mpf(1) / 3,
        ]
    slope = jax.grad(log_sinhc)
    got = [log_sinhc(jnp.asarray(u)), slope(u), jax.grad(slope)(u)]
    np.testing.assert_allclose(np.array(got), np.array(exact, float), rtol=1e-12, atol=1e-15)
