"""How many terms and nodes the profile of other positional weights takes, and what its stated error is worth."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    ExpCosine,
    FourierKernel,
    PowerLaw,
    iterated_kernels,
    retrieval_profile,
)
from jaxkinetic.limit.closed_form import mode_weights, volterra_hardy
from jaxkinetic.limit.resolution import ResolutionWarning
from tests.limit.test_iterated_kernels import collocated

RATES = ExpCosine(1.0).growth_rates()
SOURCES = jnp.asarray([0.01, 0.011, 0.05, 0.3, 0.77, 0.98, 1.0])
# A single mode, n = 2, of negative rate -40: the terms of its series cancel.
REPULSIVE = FourierKernel([0.0, -10.0])
FLAT = PowerLaw(0.0, 1.0)


def closed_form(rate, time, sources, lam):
    """g_a(t, 1; sigma_0) of (1.23)."""
    one = jnp.ones(())
    return jax.vmap(lambda s: volterra_hardy(jnp.asarray(rate), jnp.asarray(time), one, s, ALiBi(lam)))(sources)


@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_a_sharp_power_law_solves_the_volterra_hardy_equation(scale):
    """The breaks reach down to the scale, for the profile and for the independent solver."""
    positions, rate, source = PowerLaw(1.5, scale), 4.0, 0.3
    profile = retrieval_profile(CausalAttention(FourierKernel([rate]), positions), 1.2, 8, [source])
    exact = mode_weights(8, 1)[0] * collocated(positions, rate, 1.2, source, 10)
    assert float(profile.values[0]) == pytest.approx(float(exact), rel=1e-8)
    assert profile.error < 1e-8


def test_a_strong_kernel_gets_as_many_terms_as_it_needs():
    """S_t is 8e5 here: 32 terms leave 5e-11 of it."""
    positions, sources = PowerLaw(1.5, 0.05), jnp.asarray([0.05, 0.3, 0.7])
    profile = retrieval_profile(CausalAttention(ExpCosine(3.0), positions), 1.5, 6, sources)
    fine = iterated_kernels(positions, n_terms=128, n_nodes=32)
    exact = fine.correction(ExpCosine(3.0).growth_rates(), 1.5, 6, sources)
    np.testing.assert_allclose(profile.values, exact, rtol=1e-11)
    assert profile.error < 1e-11


def test_a_deep_profile_gets_more_terms_than_the_default():
    """a t Y = 1100, at which 64 terms leave 1e-12: against the closed form, which knows no series."""
    sources = jnp.asarray([0.01, 0.1])
    model = CausalAttention(FourierKernel([240.0]), FLAT)
    profile = retrieval_profile(model, 1.0, 8, sources)
    exact = mode_weights(8, 1)[0] * closed_form(240.0, 1.0, sources, 0.0)
    np.testing.assert_allclose(profile.values, exact, rtol=1e-9)
    with pytest.raises(eqx.EquinoxRuntimeError, match="has not decayed after 64 terms: raise `n_terms`"):
        eqx.filter_jit(lambda t: retrieval_profile(model, t, 8, sources))(jnp.asarray(1.0))
    traced = eqx.filter_jit(lambda t: retrieval_profile(model, t, 8, sources, n_terms=128))(jnp.asarray(1.0))
    np.testing.assert_allclose(traced.values, exact, rtol=1e-9)


@pytest.mark.parametrize("time", [0.1, 0.5])
def test_the_error_states_what_cancellation_costs(time):
    """Relative to the first term, a t k(1, sigma_0), where the series of a negative rate cancels."""
    kernels = iterated_kernels(ALiBi(1.0), n_nodes=32)
    rates = jnp.asarray([-40.0])
    found, exact = kernels.profiles(rates, time, SOURCES)[:, 0], closed_form(-40.0, time, SOURCES, 1.0)
    first = 40 * time * jax.vmap(lambda s: ALiBi(1.0).graphon(jnp.ones(()), s))(SOURCES)
    largest = float(jnp.max(jnp.abs(found - exact) / first))
    error = float(kernels.error(rates, time, None, SOURCES).largest)
    assert largest < error < 1e-8
    assert time < 0.5 or largest > 1e-3 * error


def test_cancellation_beyond_the_tolerance_is_refused():
    """At t = 1 the sum at 0.01 has 4 digits, at t = 5 none; more terms or nodes do not help."""
    kernels = iterated_kernels(ALiBi(1.0), n_nodes=48, n_terms=128)
    for time in (1.0, 5.0):
        with pytest.raises(RuntimeError, match=r"Rounding does not resolve .* cancel: raise `tolerance`"):
            kernels.profiles(jnp.asarray([-40.0]), time, SOURCES)
    loose = dataclasses.replace(kernels, tolerance=1e-3)
    exact = closed_form(-40.0, 1.0, SOURCES, 1.0)
    found = loose.profiles(jnp.asarray([-40.0]), 1.0, SOURCES)[:, 0]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4 * float(jnp.abs(exact).max()))


def test_a_profile_short_of_the_default_tolerance_states_its_error():
    model = CausalAttention(REPULSIVE, FLAT)
    with pytest.warns(ResolutionWarning, match=r"resolved to \d\.\de-07 .* default tolerance 1e-08"):
        profile = retrieval_profile(model, 0.9, 8, SOURCES)
    exact = mode_weights(8, 2)[1] * closed_form(-40.0, 0.9, SOURCES, 0.0)
    assert 1e-8 < profile.error < 1e-6
    assert np.abs(profile.values - exact).max() < profile.error * jnp.max(jnp.abs(exact))
    with pytest.raises(RuntimeError, match=r"Rounding does not resolve .* to 1e-07"):
        retrieval_profile(model, 0.9, 8, SOURCES, tolerance=1e-7)
    assert retrieval_profile(model, 0.9, 8, SOURCES, tolerance=1e-6).error < 1e-6


def test_a_profile_beyond_the_floating_point_range_is_refused():
    model = CausalAttention(FourierKernel([1e5]), FLAT)
    with pytest.raises(RuntimeError, match="exceed the floating-point range: pass an earlier time"):
        retrieval_profile(model, 2.0, 8, SOURCES)


@pytest.mark.parametrize("n_terms", [9, 13])
def test_a_series_cut_early_is_an_error(n_terms):
    """At beta = lam = t = 1 the first term left out is 9e-8 after 9 terms, 3e-14 after 13, 5e-16 after 14."""
    with pytest.raises(RuntimeError, match=f"has not decayed after {n_terms} terms: raise `n_terms`"):
        iterated_kernels(ALiBi(1.0), n_terms=n_terms).correction(RATES, 1.0, 8, SOURCES)


def test_the_first_series_that_may_pass_does():
    exact = retrieval_profile(CausalAttention(ExpCosine(1.0), ALiBi(1.0)), 1.0, 8, SOURCES).values
    found = iterated_kernels(ALiBi(1.0), n_terms=14).correction(RATES, 1.0, 8, SOURCES)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
