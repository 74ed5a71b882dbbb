import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.special import ive

from jaxkinetic import ExpCosine, FourierKernel, SmoothKernel, required_modes
from jaxkinetic._types import trusted

THETA = jnp.linspace(-4, 4, 33)


@pytest.mark.parametrize("beta", [1e-6, 0.05, 1.0, 6.0, 40.0])
def test_coefficients_are_bessel_functions_to_relative_accuracy(beta):
    coefficients = ExpCosine(beta).coefficients()
    with mp.workdps(40):
        exact = [float(mp.besseli(n, mp.mpf(beta))) for n in range(1, coefficients.size + 1)]
    np.testing.assert_allclose(coefficients, exact, rtol=1e-14)


def test_coefficients_have_the_bessel_slope():
    def kernel(beta):
        return ExpCosine(beta, n_modes=24).coefficients()

    with mp.workdps(40):
        exact = [float(mp.besseli(n, mp.mpf(2), derivative=1)) for n in range(1, 25)]
    np.testing.assert_allclose(jax.jacfwd(kernel)(2.0), exact, rtol=1e-13)
    np.testing.assert_allclose(jax.jacrev(kernel)(2.0), exact, rtol=1e-13)


@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0, 6.0, 30.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_modes_are_enough_and_no_fewer(beta, dtype):
    needed, n = required_modes(beta, dtype), np.arange(1, 300)
    strength = n * ive(n, beta)

    def tail(count):
        return strength[count:].sum() / strength.sum()

    assert tail(needed) <= 4 * np.finfo(dtype).eps < tail(needed - 1)

    def resolved(count):
        return bool(jax.jit(lambda b: ExpCosine(b, n_modes=count).is_resolved())(dtype(beta)))

    assert resolved(needed)
    assert not resolved(needed - 2)


@pytest.mark.parametrize(
    "kernel",
    [ExpCosine(2.0), FourierKernel([0.4, -0.3, 0.2]), SmoothKernel(lambda x: 1 / (1.5 - jnp.cos(x)))],
    ids=["exp-cosine", "fourier", "smooth"],
)
def test_series_gives_the_kernel_and_its_derivative(kernel):
    n, c = jnp.arange(1, kernel.n_modes + 1), kernel.coefficients()
    waves = 2 * jnp.cos(jnp.outer(THETA, n)) @ c
    value = kernel(THETA)
    np.testing.assert_allclose(waves - waves[0], value - value[0], rtol=0, atol=3e-13)
    np.testing.assert_allclose(-2 * jnp.sin(jnp.outer(THETA, n)) @ (n * c), kernel.derivative(THETA), atol=3e-12)
    np.testing.assert_allclose(kernel.growth_rates(), n**2 * c, rtol=1e-15)


def test_smooth_kernel_needs_no_more_modes_than_the_exact_one():
    smooth, exact = SmoothKernel(lambda x: jnp.exp(jnp.cos(x))), ExpCosine(1.0)
    assert smooth.n_modes == exact.n_modes == 16
    np.testing.assert_allclose(smooth.coefficients(), exact.coefficients(), rtol=0, atol=1e-15)
    assert smooth.is_resolved()


def test_second_derivative_of_the_coefficients():
    def kernel(beta):
        return ExpCosine(beta, n_modes=24).coefficients()

    with mp.workdps(40):
        exact = [float(mp.besseli(n, mp.mpf(2), derivative=2)) for n in range(1, 25)]
    np.testing.assert_allclose(jax.jacfwd(jax.jacrev(kernel))(2.0), exact, rtol=1e-13)
    assert float(jax.jacfwd(kernel)(1e-300)[0]) == 0.5


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_traced_beta_has_modes_for_sixteen(dtype):
    resolved = jax.jit(lambda beta: ExpCosine(beta).is_resolved())
    assert resolved(dtype(16))
    for beta in (30, 75, 500, np.finfo(dtype).max, np.inf, np.nan):
        with trusted():
            assert not jax.jit(lambda beta: ExpCosine(beta).is_resolved())(dtype(beta))
    n_modes = jax.eval_shape(lambda beta: ExpCosine(beta).coefficients(), dtype(1)).size
    assert required_modes(16.0, dtype) <= n_modes < required_modes(16.0, dtype) + 4


def test_rates_below_rounding_are_zero():
    smooth = SmoothKernel(lambda theta: 40 - jnp.cos(theta) - 0.3 * jnp.cos(2 * theta))
    np.testing.assert_allclose(smooth.growth_rates()[:2], [-0.5, -0.6], rtol=1e-12)
    assert smooth.n_modes > 2
    np.testing.assert_array_equal(smooth.growth_rates()[2:], 0)
    np.testing.assert_array_equal(FourierKernel([1.0, 2e-16, -3e-16]).growth_rates(), [1.0, 0.0, -27e-16])
    assert np.all(np.asarray(ExpCosine(1e-3).growth_rates()) > 0)


def test_signs_of_growth_rates_are_declared():
    assert not ExpCosine(1.0).has_signed_rates
    assert FourierKernel([1.0]).has_signed_rates


def test_single_precision_is_kept():
    kernel = ExpCosine(jnp.float32(1.0))
    assert kernel.coefficients().dtype == kernel.growth_rates().dtype == np.float32
    assert kernel.n_modes < ExpCosine(1.0).n_modes
