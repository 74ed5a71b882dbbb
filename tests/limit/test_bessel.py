import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxkinetic.limit.bessel import entire_bessel, scaled_entire_bessel
from tests.problems import mp_entire_bessel

ORDERS = range(6)
BORDERS = [4.0, 3.9999, 9.0, 8.9999, 224.999, 225.0, 225.001]


@functools.cache
def points():
    rng = np.random.default_rng(1)
    size = np.concatenate([np.exp(rng.uniform(np.log(1e-8), np.log(1e4), 80)), BORDERS, [1e4]])
    return np.concatenate([[0.0], size, -size])


@functools.cache
def reference(order, dtype):
    """Values and envelopes: beyond its first turning point Phi_m oscillates between +- its modulus."""
    z = points().astype(dtype).astype(float)
    values = np.array([float(mp_entire_bessel(order, x)) for x in z])
    envelopes = np.abs(values)
    for i, x in enumerate(2 * np.sqrt(np.maximum(-z, 0))):
        if x > max(1, order):
            modulus = mp.sqrt(mp.besselj(order, x) ** 2 + mp.bessely(order, x) ** 2)
            envelopes[i] = min(float(modulus / (x / 2) ** order), 1 / float(mp.factorial(order)))
    return values, envelopes


evaluate = jax.jit(entire_bessel, static_argnums=(0, 2))
differentiate = jax.jit(
    lambda order, z: jax.vmap(jax.grad(entire_bessel, argnums=1), in_axes=(None, 0))(order, z),
    static_argnums=0,
)


# A perturbation of z by one rounding moves the value by sqrt(|z|) <= 100 roundings.
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ORDERS)
def test_values_against_forty_digits(order, dtype):
    z = points().astype(dtype)
    got = evaluate(order, jnp.asarray(z), True)
    assert got.dtype == dtype
    values, envelopes = reference(order, dtype)
    representable = values < np.finfo(dtype).max
    assert np.all(np.isposinf(got[~representable]))
    error = np.abs(np.asarray(got, float) - values)[representable] / envelopes[representable]
    assert error.max() <= 300 * np.finfo(dtype).eps


@pytest.mark.parametrize("order", ORDERS)
def test_positive_half_alone_is_the_same(order):
    z = jnp.asarray(points()[points() >= 0])
    # The same sums, but two programs: compilers may round the last digit differently.
    np.testing.assert_array_max_ulp(evaluate(order, z, False), evaluate(order, z, True), maxulp=1)


@pytest.mark.parametrize("order", ORDERS[:-1])
def test_derivative_raises_the_order(order):
    z = jnp.asarray(points())
    np.testing.assert_allclose(differentiate(order, z), evaluate(order + 1, z, True), rtol=1e-15)


@pytest.mark.parametrize("z", [-1e4, -300.0, -30.0, 0.0, 30.0, 1e4])
def test_higher_derivatives_against_the_recurrence(z):
    # z Phi_{m+2} + (m + 1) Phi_{m+1} = Phi_m
    second = jax.jit(jax.grad(jax.grad(lambda x: entire_bessel(0, x))))(z)
    first = jax.jit(jax.grad(lambda x: entire_bessel(0, x)))(z)
    assert float(z * second + first) == pytest.approx(float(entire_bessel(0, jnp.asarray(z))), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("z", [1e4, 1e6, 5.0, -100.0])
def test_scaled_values_and_slopes_do_not_overflow(z, dtype):
    log_factor = dtype(0.3 - 2 * np.sqrt(max(z, 0)))
    evaluate = jax.jit(jax.value_and_grad(lambda z, factor: scaled_entire_bessel(1, z, factor), argnums=(0, 1)))
    value, (slope, in_factor) = evaluate(dtype(z), log_factor)
    with mp.workdps(40):
        exact, exact_slope = (float(mp_entire_bessel(m, z) * mp.exp(float(log_factor))) for m in (1, 2))
    # Both exponents are 2 sqrt(z), known to a rounding.
    rel = 4 * np.finfo(dtype).eps * (1 + 2 * np.sqrt(abs(z)))
    assert float(value) == pytest.approx(exact, rel=rel)
    assert float(slope) == pytest.approx(exact_slope, rel=rel)
    assert float(in_factor) == float(value)
