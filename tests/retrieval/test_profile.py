import functools
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, FourierKernel, retrieval_profile, u_shape
from tests.problems import DIGITS, MpProfile, mp_profile

pytestmark = pytest.mark.optimized

MODES = 28


def model(beta, lam):
    return CausalAttention(ExpCosine(beta, n_modes=MODES), ALiBi(lam))


shape = functools.partial(u_shape, vocab_size=8)


def test_profile_against_forty_digits():
    sources = [1e-6, 0.1, 0.5, 1.0]
    got = retrieval_profile(model(1.5, 2.0), 0.9, 8, sources)
    with mp.workdps(DIGITS):
        exact = [float(MpProfile(1.5, 2.0, 8)(mp.mpf(0.9), mp.mpf(s))) for s in sources]
    np.testing.assert_allclose(got.values, exact, rtol=1e-12)
    np.testing.assert_array_equal(got.sources, sources)
    expected = np.sqrt(np.pi / 2) / 8 + np.sqrt(2 * np.pi) / (8 * 100) * np.array(exact)
    np.testing.assert_allclose(got.soft_accuracy(100), expected, rtol=1e-12)


def test_profiles_beyond_the_range_have_logarithms():
    """beta = 12, lam = 100, M = 2: up to e^1e4 at the start, and down to e^-98 for weak attention."""
    sources = [1e-6, 0.01, 0.2, 1.0]
    for beta, dtype in [(12.0, np.float64), (12.0, np.float32), (0.01, np.float32)]:
        got = retrieval_profile(
            CausalAttention(ExpCosine(jnp.asarray(beta, dtype)), ALiBi(dtype(100))),
            dtype(1),
            2,
            np.asarray(sources, dtype),
        )
        with mp.workdps(DIGITS):
            exact = MpProfile(float(dtype(beta)), 100, 2, 12)
            logs = [float(mp.log(exact(1, float(dtype(s))))) for s in sources]
        assert (beta < 1) == (min(logs) < -90)
        assert (beta > 1) == (max(logs) > 710)
        np.testing.assert_allclose(got.log_values, logs, rtol=1e-13 if dtype == np.float64 else 2e-6)
        np.testing.assert_array_equal(got.signs, 1)
        if beta > 1:
            with pytest.raises(RuntimeError, match=f"S_t exceeds the range of {np.dtype(dtype)}: use `log_values`"):
                _ = got.values


def test_logarithms_of_a_profile_with_negative_rates():
    kernel, sources = FourierKernel([0.2, -0.9]), np.array([1e-4, 0.05, 0.3, 0.9])
    got = retrieval_profile(CausalAttention(kernel, ALiBi(-1.0)), 1.5, 5, sources)
    with mp.workdps(DIGITS):
        weights = [mp.exp(-((mp.pi * n / 5) ** 2) / 2) for n in (1, 2)]
        exact = [
            float(sum(w * mp_profile(a, 1.5, -1, 1, mp.mpf(s)) for w, a in zip(weights, (0.2, -3.6), strict=True)))
            for s in sources
        ]
    assert min(exact) < 0 < max(exact)
    np.testing.assert_allclose(got.values, exact, rtol=1e-11)
    np.testing.assert_allclose(got.signs * np.exp(got.log_values), exact, rtol=1e-11)


class TestDerivativesInBeta:
    """As people write them: no argument but beta."""

    sources = jnp.asarray([0.05, 0.4, 0.9])

    def profile(self, beta):
        return retrieval_profile(CausalAttention(ExpCosine(beta), ALiBi(1.0)), 1.0, 8, self.sources).values

    def argmin(self, beta):
        return u_shape(CausalAttention(ExpCosine(beta), ALiBi(1.0)), 1.0, 8).argmin

    def slopes(self, beta):
        with mp.workdps(DIGITS):
            return [float(MpProfile(beta, 1, 8).value_and_slopes(1, float(s))["beta"]) for s in self.sources]

    def test_of_the_profile(self):
        slopes = self.slopes(1.3)
        assert float(jax.grad(lambda b: self.profile(b).sum())(1.3)) == pytest.approx(sum(slopes), rel=1e-11)
        np.testing.assert_allclose(jax.jit(jax.jacfwd(self.profile))(1.3), slopes, rtol=1e-11)
        np.testing.assert_allclose(jax.vmap(jax.jacrev(self.profile))(jnp.asarray([1.3]))[0], slopes, rtol=1e-11)
        bend = jax.jit(jax.hessian(lambda b: self.profile(b)[1]))(1.3)
        high, low = (self.slopes(1.3 + h)[1] for h in (1e-5, -1e-5))
        assert float(bend) == pytest.approx((high - low) / 2e-5, rel=1e-8)

    def test_of_the_u(self):
        at, h = 1.1, 1e-3
        points = at + h * jnp.asarray([-2.0, -1.0, 0.0, 1.0, 2.0])
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(self.argmin)))(points)
        difference = (values[0] - 8 * values[1] + 8 * values[3] - values[4]) / (12 * h)
        assert float(slopes[2]) == pytest.approx(float(difference), rel=1e-8)

    @pytest.mark.slow
    def test_of_the_u_forwards_and_twice(self):
        at, h = 1.1, 1e-3
        slope = jax.jit(jax.jacfwd(self.argmin))
        low, middle, high = (float(slope(at + k * h)) for k in (-1, 0, 1))
        assert middle == pytest.approx(float(jax.grad(self.argmin)(at)), rel=1e-12)
        assert float(jax.hessian(self.argmin)(at)) == pytest.approx((high - low) / (2 * h), rel=1e-4)

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_up_to_sixteen_and_a_reason_beyond(self, dtype):
        logarithm = jax.jit(lambda b: retrieval_profile(
            CausalAttention(ExpCosine(b), ALiBi(dtype(1.0))), dtype(1e-3), 8, jnp.asarray([0.4], dtype)
        ).log_values[0])  # fmt: skip
        with mp.workdps(DIGITS):
            exact = float(mp.log(MpProfile(16, 1, 8)(float(dtype(1e-3)), float(dtype(0.4)))))
        assert float(logarithm(dtype(16))) == pytest.approx(exact, rel=1e-12 if dtype == np.float64 else 1e-5)
        for beta, message in [
            (40.0, r"\d+ Fourier modes do not resolve the kernel: raise `n_modes` \(see `required_modes`\)"),
            (1e4, "Argument `beta` must be at most"),
            (-1.0, "Argument `beta` must be positive and finite"),
            (0.0, "Argument `beta` must be positive and finite"),
            (np.nan, "Argument `beta` must be positive and finite"),
        ]:
            with pytest.raises((RuntimeError, ValueError), match=message):
                jax.block_until_ready(logarithm(dtype(beta)))


def test_single_precision_stays_single():
    f32 = jnp.float32
    single = CausalAttention(ExpCosine(f32(1.0)), ALiBi(f32(1.0)))
    got = retrieval_profile(single, f32(1.0), 8, jnp.asarray([0.2, 0.7], f32))
    exact = retrieval_profile(model(1.0, 1.0), 1.0, 8, [0.2, 0.7])
    assert got.values.dtype == got.sources.dtype == np.float32
    np.testing.assert_allclose(got.values, exact.values, rtol=1e-5)
    u, reference = shape(single, f32(1.0)), shape(model(1.0, 1.0), 1.0)
    assert u.argmin.dtype == u.minimum.dtype == u.drop.dtype == np.float32
    assert float(u.argmin) == pytest.approx(float(reference.argmin), rel=1e-5)


@pytest.mark.parametrize(
    ("beta", "lam", "time"), [(1.0, 1.0, 1.0), (0.3, 0.2, 1.0), (3.0, 6.0, 0.05), (1.0, 1.0, 2.3)]
)
def test_minimum_against_forty_digits(beta, lam, time):
    u = shape(model(beta, lam), time)
    assert u.is_u_shaped
    with mp.workdps(DIGITS):
        exact = MpProfile(beta, lam, 8)
        root = mp.findroot(lambda s: exact.value_and_slopes(time, s)["source"], float(u.argmin))
        assert float(u.argmin) == pytest.approx(float(root), rel=1e-8)
        assert float(u.minimum) == pytest.approx(float(exact(time, root)), rel=1e-12)
        assert float(u.drop) == pytest.approx(float(exact(time, 1) - exact(time, root)), rel=1e-7)
    # and it is the lowest point, by a search that knows nothing of slopes
    found: Any = minimize_scalar(
        lambda s: float(exact(time, s)), bounds=(1e-3, 1), method="bounded", options={"xatol": 1e-9}
    )
    assert float(u.argmin) == pytest.approx(found.x, abs=1e-4)
    assert float(u.minimum) == pytest.approx(found.fun, rel=1e-9)


@pytest.mark.parametrize("name", ["argmin", "minimum", "drop"])
def test_implicit_derivatives_against_differences(name):
    def of(parameters):
        beta, lam, time = parameters
        return getattr(u_shape(model(beta, lam), time, 8), name)

    at, h = jnp.asarray([1.0, 1.2, 0.9]), 1e-4
    gradient, value = jax.jit(jax.grad(of))(at), jax.jit(of)
    for i in range(3):
        step = jnp.zeros(3).at[i].set(h)
        near = (value(at + step) - value(at - step)) / (2 * h)
        far = (value(at + 2 * step) - value(at - 2 * step)) / (4 * h)
        assert float(gradient[i]) == pytest.approx(float((4 * near - far) / 3), rel=1e-6)


# (1 - e^-lam) 2 sum w a / sum w a^2, as the authors print it for lam = 1, M = 8.
@pytest.mark.parametrize(("beta", "printed"), [(1.0, 2.457489), (2.0, 0.600716), (3.0, 0.174018)])
def test_recency_flips_exactly_at_the_threshold(beta, printed):
    threshold = float(shape(model(beta, 1.0), 1.0).recency_threshold)
    assert f"{threshold:.6f}" == f"{printed:.6f}"
    assert shape(model(beta, 1.0), threshold * (1 - 1e-12)).has_recency
    assert not shape(model(beta, 1.0), threshold * (1 + 1e-12)).has_recency


@functools.cache
def many():
    rng, n = np.random.default_rng(0), 1000
    beta, lam = np.exp(rng.uniform(np.log(0.05), np.log(6), n)), np.exp(rng.uniform(-3, 2.5, n))
    batched = jax.jit(jax.vmap(lambda b, l, t: u_shape(model(b, l), t, 8)))

    @jax.jit
    @jax.vmap
    def bounds(b, l):
        # Without the minima, which are not computed where they are not asked for.
        u = u_shape(model(b, l), jnp.ones(()), 8)
        return u.smallness_bound / u.smallness, u.recency_threshold

    small, recency = bounds(beta, lam)
    time = np.exp(rng.uniform(-2, 1, n)) * np.minimum(small, recency)
    time[n // 2 :] = (np.exp(rng.uniform(-1, 0.3, n)) * recency)[n // 2 :]
    return beta, lam, time, batched(beta, lam, time)


@pytest.mark.slow
def test_the_theorem_is_never_contradicted():
    *_, u = many()
    assert int(u.theorem_holds.sum()) > 250
    assert jnp.all(u.is_u_shaped[u.theorem_holds])
    assert int((u.is_u_shaped & ~u.theorem_holds).sum()) > 50
    assert jnp.all(u.drop[u.is_u_shaped] > 0)


def test_a_minimum_without_recency_is_no_u():
    *_, u = many()
    odd = ~u.has_recency & (u.n_minima > 0)
    assert int(odd.sum()) > 10
    assert not jnp.any(u.is_u_shaped[odd])
    assert jnp.all(u.argmin[odd] < 1)


@pytest.mark.parametrize("lam", [0.0, -0.5, -3.0, -50.0])
def test_no_recency_without_positive_bias(lam):
    u = shape(model(1.0, lam), 0.5)
    assert u.has_primacy
    assert not (u.has_recency)
    assert not (u.is_u_shaped)
    assert not (u.theorem_holds)
    assert (float(u.argmin), float(u.drop), int(u.n_minima)) == (1, 0, 0)
    assert u.recency_threshold <= 0


def test_time_zero_is_flat():
    u = shape(model(1.0, 1.0), 0.0)
    assert not (u.has_primacy)
    assert not (u.has_recency)
    assert not (u.is_u_shaped)
    assert not (u.theorem_holds)
    assert float(u.minimum) == float(u.drop) == 0


def test_far_past_the_theorem_the_u_is_gone():
    u = shape(model(6.0, 1.0), 2.0)
    assert not (u.theorem_holds)
    assert not (u.is_u_shaped)
    assert u.has_primacy


def test_condition_takes_the_supremum_over_all_modes():
    # The decoder of two words damps n > 7, where this kernel grows fastest.
    kernel = FourierKernel(jnp.asarray([0.1] + [0.0] * 8 + [1.0]))
    u = u_shape(CausalAttention(kernel, ALiBi(1.0)), 0.01, 2)
    assert float(u.smallness) == pytest.approx(1.0, rel=1e-14)


def test_repelling_kernels_have_no_primacy():
    u = shape(CausalAttention(FourierKernel([-0.5, -0.1]), ALiBi(1.0)), 1.0)
    assert not (u.has_primacy)
    assert not (u.is_u_shaped)


def test_vmap_against_a_loop():
    beta, lam, time, u = many()
    for i in (0, 999):
        single = shape(model(beta[i], lam[i]), time[i])
        assert float(single.argmin) == pytest.approx(float(u.argmin[i]), rel=1e-12)


@pytest.mark.parametrize("time", [1e-15, 1e-14, 1e-13])
def test_modes_that_outgrow_a_small_weight_are_kept(time):
    """M = 2 and beta = 40: from 1e65 on, modes of weight below 1e-22 carry the profile."""
    sharp = CausalAttention(ExpCosine(40.0), ALiBi(1.0))
    found = float(retrieval_profile(sharp, time, 2, [0.1]).values[0])
    with mp.workdps(40):
        y = mp.log(mp.expm1(1) / mp.expm1(mp.mpf(1) / 10))
        waves = mp.mpf(0)
        for n in range(1, 60):
            c = n**2 * mp.besseli(n, 40) * mp.mpf(time)
            waves += mp.exp(-((mp.pi * n) ** 2) / 8) * c * mp.hyp0f1(2, c * y)
        # The graphon is e^{-lam (1 - sigma_0)} lam / (1 - e^{-lam}), and the positions in the code are doubles.
        exact = float(mp.exp(-mp.mpf(9) / 10) / -mp.expm1(-1) * waves)
    assert found == pytest.approx(exact, rel=1e-11)
