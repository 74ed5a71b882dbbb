import functools
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.optimize import brentq

from jaxkinetic import ALiBi, ExpCosine, required_modes
from jaxkinetic._types import trusted
from jaxkinetic.limit import closed_form
from tests.problems import DIGITS, MpProfile, mp_profile, mp_variable

VOCAB = 8
ARGUMENTS = ("beta", "lam", "time", "source")
MODES = required_modes(6.0)
TOLERANCES = {np.float64: (1e-11, 1e-8), np.float32: (1e-4, 1e-4)}
FEW, MANY = 40, 1000


@functools.cache
def points(n):
    """Columns (beta, lam, t, sigma_0, M): edges, lam = 0 and +-1e-9, the ends of the prompt, and random points."""
    rng = np.random.default_rng(1)
    beta, time, source, vocab = (
        np.exp(rng.uniform(np.log(a), np.log(b), n)) for a, b in [(0.01, 20), (0.01, 5), (1e-6, 1), (2, 50)]
    )
    lam = rng.uniform(-20, 100, n)
    source[::3] = rng.uniform(0, 1, source[::3].size)
    source[1::6] = 1 - source[1::6]
    lam[:4], source[4:6] = (0, 0, 1e-9, -1e-9), 1
    inside = np.stack([beta, lam, time, source, np.rint(vocab)], axis=1)
    ends = [(15, -20, 1, 0.99, 8), (20, -20, 5, 1, 2), (20, 100, 5, 1e-6, 2), (0.01, 100, 0.01, 1e-6, 50)]
    return np.concatenate([inside, ends])


@functools.cache
def reference(n, dtype):
    """S_t and its derivatives at the points as rounded to dtype."""
    found = []
    with mp.workdps(DIGITS):
        for beta, lam, time, source, vocab in points(n).astype(dtype).astype(float):
            n_modes = int(np.clip(4 * vocab, 12, 80))
            found.append(MpProfile(beta, lam, int(vocab), n_modes).value_and_slopes(time, source))
    return found


def scaled(point, n_modes):
    beta, lam, time, source, vocab = point
    rates = ExpCosine(beta, n_modes=n_modes).growth_rates()
    log_weights = closed_form.log_mode_weights(vocab, n_modes)
    return closed_form.scaled_profile(rates, log_weights, time, source, ALiBi(lam), signed=False)


@functools.cache
def computed(n, dtype):
    """(S, its slopes forwards and backwards), and the same of log S; each has a row for every point."""
    n_modes = required_modes(20.0, dtype)

    def plain(*p):
        value, log_scale = scaled(p, n_modes)
        return value * jnp.exp(log_scale)

    def logarithm(*p):
        value, log_scale = scaled(p, n_modes)
        return jnp.log(value) + log_scale

    @jax.jit
    @jax.vmap
    @trusted()
    def both(*p):
        slopes = [d(f, argnums=range(4))(*p) for f in (plain, logarithm) for d in (jax.jacfwd, jax.grad)]
        return plain(*p), logarithm(*p), [jnp.stack(some) for some in slopes]

    value, log_value, slopes = both(*(jnp.asarray(c) for c in points(n).astype(dtype).T))
    assert {x.dtype for x in (value, log_value, *slopes)} == {np.dtype(dtype)}
    value, log_value, *slopes = (np.asarray(x, float) for x in (value, log_value, *slopes))
    return (value, *slopes[:2]), (log_value, *slopes[2:])


def fits(x, dtype, margin=1.0):
    """Whether a number at forty digits is within the range of normal numbers, less a factor e^margin."""
    size, limits = mp.log(abs(x)) if x else -mp.inf, np.finfo(dtype)
    return mp.log(float(limits.tiny)) + margin < size < mp.log(float(limits.max)) - margin


PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32])
SIZES = pytest.mark.parametrize("n", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


@SIZES
@PRECISIONS
def test_value_against_forty_digits(n, dtype):
    """S_t where it fits the precision, and log S_t everywhere, which reaches 8e5."""
    (value, *_), (log_value, *_) = computed(n, dtype)
    inside = 0
    for exact, got, got_log in zip(reference(n, dtype), value, log_value, strict=True):
        log_exact = float(mp.log(exact["value"]))
        # Where S_t fits, its relative error is the error of its logarithm.
        assert abs(got_log - log_exact) <= TOLERANCES[dtype][0] * max(1.0, abs(log_exact) / 90)
        if fits(exact["value"], dtype):
            inside += 1
            assert abs(got / exact["value"] - 1) <= TOLERANCES[dtype][0]
    assert 0.6 * value.size < inside < value.size


@SIZES
@PRECISIONS
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_derivative_against_forty_digits(n, dtype, argument):
    """Of S_t where both fit the precision, and of log S_t everywhere; in either mode of differentiation."""
    i, rel = ARGUMENTS.index(argument), TOLERANCES[dtype][1]
    (_, forward, backward), (_, log_forward, log_backward) = computed(n, dtype)
    inside = 0
    for k, exact in enumerate(reference(n, dtype)):
        slope, value = exact[argument], exact["value"]
        for got in (log_forward[k, i], log_backward[k, i]):
            assert abs(got - slope / value) <= rel * abs(slope / value)
        if fits(slope, dtype) and fits(value, dtype):
            inside += 1
            assert abs(forward[k, i] - slope) <= rel * abs(slope)
        # The reverse mode goes through dS / da_n, which may lie below the range where S_t is close to its end.
        if fits(slope, dtype, 10.0) and fits(value, dtype, 10.0):
            assert abs(backward[k, i] - slope) <= rel * abs(slope)
    assert inside > 0.6 * len(points(n))


def test_derivatives_at_depth_zero():
    slopes = jax.jit(jax.grad(closed_form.profile, argnums=(0, 2, 3)))
    rates, log_weights = ExpCosine(1.0).growth_rates(), closed_form.log_mode_weights(8, 16)
    in_rates, in_time, in_source = slopes(rates, log_weights, 0.0, 0.3, ALiBi(2.0))
    graphon = 2 * np.exp(-1.4) / (1 - np.exp(-2))
    assert float(in_time) == pytest.approx(graphon * float(jnp.exp(log_weights) @ rates), rel=1e-14)
    assert float(in_source) == 0
    np.testing.assert_array_equal(in_rates, 0)


def test_second_derivatives_against_differences_of_the_first():
    def plain(p):
        value, log_scale = scaled((*p, 8.0), 24)
        return value * jnp.exp(log_scale)

    slope, bend, h = jax.jit(jax.grad(plain)), jax.jit(jax.hessian(plain)), 1e-4
    for lam in (-3.0, 0.0, 1e-7, 40.0):
        at = jnp.asarray([1.3, lam, 0.8, 0.4])
        found = bend(at)
        for i in range(4):
            step = jnp.zeros(4).at[i].set(h)
            near, far = ((slope(at + k * step) - slope(at - k * step)) / (2 * k * h) for k in (1, 2))
            np.testing.assert_allclose(found[i], (4 * near - far) / 3, rtol=1e-8, atol=1e-9 * np.abs(found).max())


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


@pytest.mark.parametrize("lam", [-300.0, -20.0, -2.0, -1e-9, 0.0, 1e-9, 1e-5, 12.0, 300.0, 1e4])
def test_variable_and_its_inverse(lam):
    for source in (1e-6, 0.2, 0.999, 1.0):
        y = closed_form.goursat_variable(jnp.asarray(1.0), jnp.asarray(source), jnp.asarray(lam))
        with mp.workdps(400):
            exact = float(mp_variable(mp.mpf(lam), mp.mpf(1), mp.mpf(source)))
        # For lam < 0, Y is about e^{lam sigma_0}: a rounding of sigma_0 moves it by |lam|.
        assert float(y) == pytest.approx(exact, rel=1e-15 * (4 + max(-lam, 0)), abs=0)
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


@pytest.mark.parametrize("lam", [-800.0, -1.0, 0.0, 2.0, 800.0])
def test_slope_has_the_sign_and_zeros_of_the_derivative(lam):
    rates, time = ExpCosine(2.0, n_modes=MODES).growth_rates(), jnp.asarray(0.4)
    log_weights = closed_form.log_mode_weights(VOCAB, MODES)
    slope = jax.jit(lambda y: closed_form.profile_slope(y, rates, log_weights, time, jnp.asarray(lam)))

    def exact(y):
        """H'(y) lam / (e^lam - 1) to forty digits."""
        with mp.workdps(400):
            tilt = mp.expm1(lam) * mp.exp(-mp.mpf(y))
            terms = []
            for rate, log_weight in zip(rates.tolist(), log_weights.tolist(), strict=True):
                c = mp.mpf(rate) * mp.mpf(0.4)
                phi1, phi2 = (mp.hyp0f1(m + 1, c * y) / m for m in (1, 2))
                terms.append(mp.exp(log_weight) * ((1 + tilt) * c**2 * phi2 - tilt * c * phi1))
            return mp.fsum(terms)

    for y in (0.0, 0.3, 2.0, 9.0, abs(lam) + 5.0):
        assert np.sign(float(slope(y))) == float(mp.sign(exact(y)))
    if lam > 0:
        found: Any = brentq(lambda y: float(slope(y)), 1e-3, lam + 5, xtol=1e-14, rtol=np.float64(8.9e-16))
        assert [float(mp.sign(exact(found * (1 + d)))) for d in (-1e-13, 1e-13)] == [-1, 1]
