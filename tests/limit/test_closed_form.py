import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxkinetic import ALiBi, ExpCosine, required_modes
from jaxkinetic.limit import closed_form
from tests.problems import DIGITS, MpCorrection, mp_profile, mp_variable

VOCAB = 8
ARGUMENTS = ("beta", "lam", "time", "source")
MODES = required_modes(6.0)


@functools.cache
def box():
    """Corners, lam = 0 and 1e-9, sigma_0 = 1 and 1e-6, and random points inside; columns as in ARGUMENTS."""
    rng, n = np.random.default_rng(0), 100
    beta, time, source = (
        np.exp(rng.uniform(np.log(a), np.log(b), n)) for a, b in [(0.05, 6), (0.01, 2), (1e-6, 1)]
    )
    source[::3] = rng.uniform(0, 1, source[::3].size)
    inside = np.stack([beta, rng.uniform(-2, 12, n), time, source], axis=1)
    inside[:8, 1], inside[8:16, 1], inside[16:24, 3] = 0, 1e-9, 1
    corners = list(itertools.product([0.05, 6.0], [-2.0, 0.0, 1e-9, 12.0], [0.01, 2.0], [1e-6, 1.0]))
    return np.concatenate([inside, corners])


@functools.cache
def reference(dtype):
    """S_t and its derivatives at the box's points, as rounded to dtype, in float64."""
    rows = []
    for beta, lam, time, source in box().astype(dtype).astype(float):
        with mp.workdps(DIGITS):
            exact = MpCorrection(beta, lam, VOCAB).value_and_slopes(time, source)
        rows.append([float(exact[name]) for name in ("value", *ARGUMENTS)])
    return np.array(rows).T


def correction(beta, lam, time, source):
    rates = ExpCosine(beta, n_modes=MODES).growth_rates()
    weights = closed_form.mode_weights(VOCAB, MODES)
    return closed_form.retrieval_correction(rates, weights, time, source, ALiBi(lam), signed=False)


@functools.cache
def computed(dtype):
    columns = [jnp.asarray(c, dtype) for c in box().T]
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(correction, argnums=(0, 1, 2, 3))))(*columns)
    return value, *slopes


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nothing_is_nan_in_the_box_and_precision_is_kept(dtype):
    for column in computed(dtype):
        assert column.dtype == dtype
        assert not np.any(np.isnan(column))


def test_forward_mode_has_no_nan_in_single_precision():
    slopes = jax.jit(jax.vmap(jax.jacfwd(correction, argnums=(0, 1, 2, 3))))(
        *(jnp.asarray(c, np.float32) for c in box().T)
    )
    assert not np.any(np.isnan(np.stack(slopes)))


def test_value_against_forty_digits():
    np.testing.assert_allclose(computed(np.float64)[0], reference(np.float64)[0], rtol=1e-11)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_derivative_against_forty_digits(argument):
    i = 1 + ARGUMENTS.index(argument)
    np.testing.assert_allclose(computed(np.float64)[i], reference(np.float64)[i], rtol=1e-8)


@pytest.mark.parametrize("i", range(5), ids=("value", *ARGUMENTS))
def test_single_precision(i):
    exact = reference(np.float32)
    got = np.asarray(computed(np.float32)[i], float)
    representable = np.abs(exact[0]) < 1e28
    assert representable.sum() > 120
    np.testing.assert_allclose(got[representable], exact[i][representable], rtol=1e-4)
    overflows = exact[0] > np.finfo(np.float32).max
    assert overflows.any()
    if i == 0:
        assert np.all(np.isposinf(got[overflows]))


profile = jax.jit(lambda rate, t, s, s0, lam: closed_form.volterra_hardy(rate, t, s, s0, ALiBi(lam)))


@pytest.mark.parametrize("lam", [-2.0, 0.0, 1e-9, 1.0, 12.0])
@pytest.mark.parametrize("rate", [-300.0, -30.0, -1.0, -1e-9, 0.0, 1.0, 50.0])
def test_profile_of_either_sign_at_inner_positions(rate, lam):
    for sigma, source in [(0.9, 0.9), (0.9, 0.3), (0.5, 1e-4)]:
        got = float(profile(rate, 1.3, sigma, source, lam))
        with mp.workdps(40):
            exact = float(mp_profile(rate, mp.mpf("1.3"), mp.mpf(lam), mp.mpf(sigma), mp.mpf(source)))
            size = float(mp_profile(abs(rate), 0, mp.mpf(lam), mp.mpf(sigma), mp.mpf(source)))
        # Beside its zeros the oscillating profile is compared with its size rate x time x graphon.
        scale = abs(exact) + (
            abs(rate) * float(profile(1e-12, 1.0, sigma, source, lam)) * 1e12 if rate < 0 else size
        )
        assert abs(got - exact) <= 1e-12 * scale


@pytest.mark.parametrize("lam", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("rate", [-2.0, 1.5])
def test_profile_solves_the_volterra_hardy_equation(rate, lam):
    sigma, source, time = 0.8, 0.3, 0.9
    node, weight = np.polynomial.legendre.leggauss(24)
    inner = jnp.asarray(source + (sigma - source) * (node + 1) / 2)
    graphon = jax.vmap(lambda s: ALiBi(lam).graphon(jnp.asarray(sigma), s))
    earlier = jax.vmap(lambda s: profile(rate, time, s, source, lam))(inner)
    integral = jnp.sum(weight * graphon(inner) * earlier) * (sigma - source) / 2
    growth = jax.grad(profile, argnums=1)(rate, time, sigma, source, lam)
    assert float(growth) == pytest.approx(float(rate * (graphon(jnp.asarray([source]))[0] + integral)), rel=1e-12)


def test_profile_vanishes_ahead_of_its_source_and_at_time_zero():
    assert profile(1.0, 1.0, 0.3, 0.5, 1.0) == 0
    assert profile(1.0, 0.0, 0.5, 0.3, 1.0) == 0


@pytest.mark.parametrize("lam", [-2.0, -1e-9, 0.0, 1e-9, 1e-5, 12.0, 300.0])
def test_variable_and_its_inverse(lam):
    for source in (1e-6, 0.2, 0.999, 1.0):
        y = closed_form.goursat_variable(jnp.asarray(1.0), jnp.asarray(source), jnp.asarray(lam))
        with mp.workdps(400):
            exact = float(mp_variable(mp.mpf(lam), mp.mpf(1), mp.mpf(source)))
        assert float(y) == pytest.approx(exact, rel=1e-12, abs=1e-13)
        assert float(closed_form.source_position(y, jnp.asarray(lam))) == pytest.approx(source, rel=1e-12)


@pytest.mark.parametrize("lam", [-50.0, -0.1, -1e-6, 0.0, 1e-6, 0.5, 1.0, 11.0, 60.0])
def test_inverse_variable_has_exact_slopes(lam):
    slopes = jax.jit(jax.grad(closed_form.source_position, argnums=(0, 1)))

    def inverse(y, l):
        return mp.exp(-y) if l == 0 else mp.log1p(mp.expm1(l) * mp.exp(-y)) / l

    for y in (0.0, 0.3, 1.0, 12.0):
        in_y, in_lam = slopes(y, lam)
        with mp.workdps(200):
            h = mp.mpf(10) ** -60
            exact_y = (inverse(y + h, mp.mpf(lam)) - inverse(mp.mpf(y) - h, mp.mpf(lam))) / (2 * h)
            exact_lam = (inverse(mp.mpf(y), lam + h) - inverse(mp.mpf(y), mp.mpf(lam) - h)) / (2 * h)
        assert float(in_y) == pytest.approx(float(exact_y), rel=1e-12)
        assert float(in_lam) == pytest.approx(float(exact_lam), rel=1e-9, abs=1e-12)


# Printed by the authors' own scripts for lam = 1, M = 8, n <= 20.
@pytest.mark.parametrize(("beta", "printed"), [(1.0, 2.457489), (2.0, 0.600716), (3.0, 0.174018)])
@pytest.mark.parametrize("n_modes", [20, 32])
def test_recency_threshold_as_published(beta, printed, n_modes):
    rates = ExpCosine(beta, n_modes=32).growth_rates()[:n_modes]
    weights = closed_form.mode_weights(VOCAB, n_modes)
    threshold = closed_form.recency_threshold(rates, weights, jnp.asarray(1.0))
    assert f"{float(threshold):.6f}" == f"{printed:.6f}"


def test_smallness_bound_takes_either_side():
    assert float(closed_form.smallness_bound(jnp.asarray(0.3))) == pytest.approx(2 * (1 - np.exp(-0.3)), rel=1e-15)
    assert float(closed_form.smallness_bound(jnp.asarray(5.0))) == pytest.approx(3 - np.sqrt(3), rel=1e-15)


def test_expansion_of_the_soft_accuracy():
    # (1.20), and the accuracy of a source that is not correlated at all
    got = closed_form.soft_accuracy(jnp.asarray([0.0, 2.0]), 8, 100)
    np.testing.assert_allclose(
        got, np.sqrt(np.pi / 2) / 8 + np.array([0, 2]) * np.sqrt(2 * np.pi) / 800, rtol=1e-15
    )


@pytest.mark.parametrize("lam", [-1.0, 0.0, 2.0])
def test_slope_has_the_sign_and_zeros_of_the_derivative(lam):
    rates = ExpCosine(2.0, n_modes=MODES).growth_rates()
    weights = closed_form.mode_weights(VOCAB, MODES)
    y = jnp.linspace(0.0, 8.0, 33)
    scaled = jax.vmap(
        lambda y: closed_form.correction_slope(y, rates, weights, jnp.asarray(0.4), jnp.asarray(lam))
    )(y)

    def along(y):
        source = closed_form.source_position(y, jnp.asarray(lam))
        return correction(2.0, lam, jnp.asarray(0.4), source)

    exact = jax.jit(jax.vmap(jax.grad(along)))(y)
    growth = jnp.exp(2 * jnp.sqrt(y * jnp.max(rates) * 0.4))
    np.testing.assert_allclose(scaled * growth, exact, rtol=1e-10, atol=1e-12)
