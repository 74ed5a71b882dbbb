"""The U beyond the paper's case: strong bias, kernels of either sign, and what rounding must not decide."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import special

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, FourierKernel, SmoothKernel, u_shape
from jaxkinetic.retrieval.u_shape import scan_end
from tests.problems import mp_entire_bessel

pytestmark = pytest.mark.optimized

OSCILLATING = ([0.03, -0.6, 0.0, 0.0], -8.0, 0.06, 4)


@functools.partial(jax.jit, static_argnums=3)
def signed_shape(values, lam, time, vocab_size):
    return u_shape(CausalAttention(FourierKernel(values), ALiBi(lam)), time, vocab_size)


def wells(values, lam, time, vocab_size):
    """Where H'(y) turns from negative to positive on a fine grid of sqrt(y) that ends far beyond `scan_end`."""
    n = np.arange(1, len(values) + 1)
    c = time * n**2 * np.asarray(values)
    log_weights = -((np.pi * n / vocab_size) ** 2) / 2
    last = scan_end(jnp.asarray(c), jnp.asarray(log_weights), jnp.asarray(float(lam)), True)[0]
    y = float(last) * 4 * np.linspace(1e-6, 1, 40_001) ** 2
    excess = np.zeros_like(y)
    largest = 2 * np.sqrt(max(c.max(), 0) * y)
    # E / (E + e^y), E = e^lam - 1
    ratio = np.expm1(lam) / (np.expm1(lam) + np.exp(np.minimum(y, 700)))
    for growth, log_weight in zip(c[c != 0], log_weights[c != 0], strict=True):
        x = 2 * np.sqrt(abs(growth) * y)
        if growth > 0:
            waves = [special.ive(m, x) * np.exp(x - largest) * (2 / x) ** m for m in (1, 2)]
        else:
            waves = [special.jv(m, x) * np.exp(-largest) * (2 / x) ** m for m in (1, 2)]
        excess += np.exp(log_weight) * growth * (growth * waves[1] - ratio * waves[0])
    return y[1:][(excess[:-1] < 0) & (excess[1:] >= 0)]


def test_minima_far_beyond_the_start_of_the_prompt_are_counted():
    u = signed_shape(jnp.asarray(OSCILLATING[0]), *OSCILLATING[1:])
    found = wells(*OSCILLATING)
    np.testing.assert_allclose(found, [2.6, 122.6, 376.8, 760.1, 1259.5, 1819.0], rtol=3e-3)
    assert int(u.n_minima) == 6
    assert u.has_primacy
    assert not u.is_u_shaped
    assert float(u.scanned_from) == 0


@pytest.mark.parametrize("n", [12, pytest.param(150, marks=pytest.mark.slow)])
def test_minima_of_signed_kernels_against_a_fine_grid(n):
    rng = np.random.default_rng(3)
    counts = []
    for _ in range(n):
        values = rng.normal(size=4) * np.exp(rng.uniform(-3, 1)) / np.arange(1, 5) ** 2
        # Slow growth lets the oscillations last.
        values = np.where(values > 0, 0.03, 1.0) * values
        lam, time, vocab_size = rng.uniform(-8, 8), np.exp(rng.uniform(-3, 1)), 4
        u = signed_shape(jnp.asarray(values), lam, time, vocab_size)
        if not (values > 0).any() or float(u.scanned_from) > 0:
            continue
        counts.append(int(u.n_minima))
        assert counts[-1] == len(wells(values, lam, time, vocab_size)), (values, lam, time)
    assert len(counts) > 0.7 * n
    assert len(set(counts)) > 2


def test_a_scan_that_stops_early_says_where_and_claims_no_u():
    u = signed_shape(jnp.asarray([1e-6, -3e3, 0.0, 0.0]), 2.0, 1.0, 4)
    assert 1e-6 < float(u.scanned_from) < 1e-5
    assert not u.is_u_shaped
    # Nothing grows: oscillations never end, and there is no primacy.
    u = signed_shape(jnp.asarray([-1e4, 0.0, 0.0, 0.0]), 2.0, 1.0, 4)
    assert float(u.scanned_from) > 0
    assert not (u.has_primacy | u.is_u_shaped)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lam", [60.0, 720.0, 800.0, 5000.0])
def test_minimum_at_any_bias(lam, dtype):
    """The minimum goes to the start as about log(lam) / lam, and S_t there underflows."""
    one = jnp.ones((), dtype)
    u = u_shape(CausalAttention(ExpCosine(one), ALiBi(lam * one)), one, 8)
    with mp.workdps(40):
        modes = [(n**2 * mp.besseli(n, 1), mp.exp(-((mp.pi * n / 8) ** 2) / 2)) for n in range(1, 30)]

        def excess(shift):
            # H'(y) / H(y) but for a positive factor, at y = lam + shift
            y = lam + shift
            value, slope = (mp.fsum(w * c**m * mp_entire_bessel(m, c * y) for c, w in modes) for m in (1, 2))
            return (1 + mp.exp(shift)) * slope / value - 1

        source = mp.log1p(mp.exp(-mp.findroot(excess, mp.log(lam) / 2))) / lam
    assert float(u.argmin) == pytest.approx(float(source), rel=1e-11 if dtype == np.float64 else 3e-4)
    assert u.is_u_shaped
    assert float(u.drop) > lam / 2


def test_rounding_decides_nothing():
    def function(theta):
        return -jnp.cos(theta) - 0.3 * jnp.cos(2 * theta)

    for kernel in (SmoothKernel(function), FourierKernel([-0.5, -0.15, 2e-17, 2e-17])):
        rates = np.asarray(kernel.growth_rates())
        np.testing.assert_allclose(rates[:2], [-0.5, -0.6], rtol=1e-15)
        assert np.all(rates[2:] == 0)
        u = u_shape(CausalAttention(kernel, ALiBi(-4.0)), 1.0, 4)
        assert not u.has_primacy
        assert float(u.smallness) == 0


def test_the_theorem_is_silent_where_a_rate_is_negative():
    # (1.22) bounds the supremum alone; the proof needs every c_n >= 0. Here S_t'(1) < 0.
    u = signed_shape(jnp.asarray([0.05, -0.5, 0.0, 0.0]), 1.0, 1.0, 8)
    assert 0 < u.smallness <= u.smallness_bound
    assert not u.has_recency
    assert not u.theorem_holds


@pytest.mark.parametrize("lam", [-800.0, -30.0, -1e-3, -1e-12, 0.0, 1e-3, 30.0, 800.0])
def test_recency_ends_where_the_threshold_says_or_never_begins(lam):
    for values in ([0.4, 0.1, 0.0, 0.0], [-0.4, -0.1, 0.0, 0.0], [0.3, -0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]):
        shape = functools.partial(signed_shape, jnp.asarray(values), lam)
        threshold = float(shape(1.0, 4).recency_threshold)
        first = sum(n**2 * a * np.exp(-((np.pi * n / 4) ** 2) / 2) for n, a in enumerate(values, start=1))
        assert threshold >= 0
        assert (threshold > 0) == (first * lam > 0)
        if 0 < threshold < 1e10:
            assert shape(threshold * (1 - 1e-9), 4).has_recency
            assert not shape(threshold * (1 + 1e-9), 4).has_recency
        elif threshold == 0:
            assert not shape(1e-3, 4).has_recency
