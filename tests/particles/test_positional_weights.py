"""The velocity under weights other than ALiBi, against all pairs."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    ExpCosine,
    ExponentialSum,
    PowerLaw,
    SplineWeights,
    pairwise_drift,
    simulate,
    spectral_drift,
)
from jaxkinetic.sums.convolution import causal_convolution, convolve, split_weights

FAMILIES = {
    "exponentials": ExponentialSum([1.0, 0.3, 2.0], [1.0, -3.0, 50.0]),
    "extreme exponentials": ExponentialSum([1.0, 1e-3], [900.0, -900.0]),
    "power": PowerLaw(1.5, 0.01),
    "sharp power": PowerLaw(3.0, 0.001),
    "spline": SplineWeights([0.3, -0.2, 0.5, 0.1, -1.2, -0.7, -0.9, 0.4]),
    "growing spline": SplineWeights(np.linspace(0, 8, 9)),
}
SIZES = [2, 3, 32, 33, 64, 65, 66, 1000, 2050]
spectral, pairwise = eqx.filter_jit(spectral_drift), eqx.filter_jit(pairwise_drift)


def angles(n_tokens, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-10, 10, n_tokens))


def relative(got, exact):
    return float(jnp.max(jnp.abs(got - exact)) / jnp.max(jnp.abs(exact)))


def in_single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


@pytest.mark.parametrize("positions", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("n_tokens", SIZES)
def test_spectral_against_pairwise(n_tokens, positions):
    model, theta = CausalAttention(ExpCosine(1.0), positions), angles(n_tokens)
    got, exact = spectral(model, theta), pairwise(model, theta)
    assert relative(got, exact) <= 1e-12
    # The first tokens too, to whom the largest weights are far away.
    assert relative(got[:4], exact[:4]) <= 1e-12


@pytest.mark.parametrize("positions", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("n_tokens", [2, 66, 2050])
def test_single_precision_stays_single_and_accurate(n_tokens, positions):
    theta = angles(n_tokens)
    model = CausalAttention(ExpCosine(1.0), positions)
    single = CausalAttention(ExpCosine(jnp.float32(1.0)), in_single(positions))
    got = spectral(single, theta.astype(jnp.float32))
    exact = pairwise(in_single(model), theta.astype(jnp.float32).astype(jnp.float64))
    assert got.dtype == jnp.float32
    assert relative(got, exact) <= 3e-5


@pytest.mark.parametrize("name", ["exponentials", "power", "spline"])
def test_causality_to_the_last_bit(name):
    model, theta = CausalAttention(ExpCosine(1.0), FAMILIES[name]), angles(200)
    before, after = spectral(model, theta), spectral(model, theta.at[100].add(0.7))
    np.testing.assert_array_equal(before[:100], after[:100])
    assert jnp.all(before[100:] != after[100:])
    assert before[0] == 0


@pytest.mark.parametrize("name", ["exponentials", "power", "spline"])
def test_derivatives_in_both_modes_against_all_pairs(name):
    theta = angles(70)
    parameters, tree = jax.tree.flatten(FAMILIES[name])

    def summed(parameters, theta, drift):
        model = CausalAttention(ExpCosine(0.9), jax.tree.unflatten(tree, parameters))
        return jnp.sum(drift(model, theta) * jnp.cos(jnp.arange(theta.shape[0])))

    def flat(found):
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(found)])

    exact = flat(jax.jit(jax.grad(summed, argnums=(0, 1)), static_argnums=2)(parameters, theta, pairwise_drift))
    for derivative in (jax.grad, jax.jacfwd):
        found = jax.jit(derivative(summed, argnums=(0, 1)), static_argnums=2)(parameters, theta, spectral_drift)
        np.testing.assert_allclose(flat(found), exact, rtol=0, atol=1e-11 * float(jnp.max(jnp.abs(exact))))


def test_vmap_against_a_loop():
    theta = jnp.stack([angles(70, seed) for seed in range(3)])
    for name in ("exponentials", "spline"):
        model = CausalAttention(ExpCosine(1.0), FAMILIES[name])
        batched = jax.jit(jax.vmap(lambda x, model=model: spectral_drift(model, x)))(theta)
        for i in range(3):
            np.testing.assert_allclose(batched[i], spectral(model, theta[i]), rtol=1e-11, atol=1e-13)


def test_one_exponential_moves_as_alibi():
    theta = angles(150)
    one, alibi = (CausalAttention(ExpCosine(1.0), p) for p in (ExponentialSum([3.0], [2.0]), ALiBi(2.0)))
    ends = [simulate(model, theta, [1.0]).angles[-1] for model in (one, alibi)]
    np.testing.assert_allclose(*ends, rtol=1e-11, atol=1e-11)


def average_by_pairs(x, log_b):
    """Averages of earlier tokens, each over its own weights, in double precision."""
    exact = np.zeros_like(x)
    for j in range(1, x.shape[1]):
        weights = np.exp(log_b[1 : j + 1] - np.max(log_b[1 : j + 1]))
        exact[:, j] = x[:, :j][:, ::-1] @ (weights / weights.sum())
    return exact


LAGS = {
    "flat": lambda s: 0 * s,
    "falling": lambda s: -80 * s,
    "rising": lambda s: 40 * s,
    "rising steeply": lambda s: 500 * s,
    "jumping": lambda s: np.where(s > 0.5, 60.0, 0.0),
    "a hump": lambda s: 60 * np.exp(-(((s - 0.7) / 0.05) ** 2)),
    "rough": lambda s: 30 * np.sin(1000 * s),
    "a power": lambda s: -3 * np.log(s + 1e-4),
}


@pytest.mark.parametrize("shape", LAGS.values(), ids=LAGS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 129, 513, 4097])
def test_rounding_is_relative_to_each_tokens_own_weights(n, dtype, shape):
    """Weights of any range: what no token reaches does not spoil it.

    Eight blocks of 64 make one of 512, eight of these one of 4096.
    """
    x = np.random.default_rng(2).uniform(-1, 1, (2, n)).astype(dtype)
    log_b = shape(np.arange(n) / n).astype(dtype)
    found = np.asarray(causal_convolution(jnp.asarray(x), jnp.asarray(log_b)))
    assert found.dtype == dtype
    error = np.abs(found - average_by_pairs(x.astype(float), log_b.astype(float)))
    # Rounding of the logarithms themselves, and a few of the sum.
    assert error.max() <= np.finfo(dtype).eps * (16 + np.ptp(log_b))
    assert np.all(found[:, 0] == 0)


def test_a_spline_that_rises_by_forty_moves_tokens_as_all_pairs_do():
    model = CausalAttention(ExpCosine(1.0), SplineWeights(np.linspace(0, 40, 9)))
    theta = angles(1000)
    exact = pairwise(model, theta)
    np.testing.assert_allclose(spectral(model, theta), exact, rtol=0, atol=1e-13)
    single = spectral(in_single(model), theta.astype(jnp.float32))
    exact = pairwise(model, theta.astype(jnp.float32).astype(float))
    np.testing.assert_allclose(single, exact, rtol=0, atol=3e-5)


@pytest.mark.slow
def test_a_mode_costs_about_two_ffts_over_all_tokens():
    @jax.jit
    def one_fft(x, b):
        n = x.shape[-1]
        sums = jnp.fft.ifft(jnp.fft.fft(jax.lax.complex(*x), 2 * n) * jnp.fft.fft(b, 2 * n))[:n]
        return jnp.stack([jnp.real(sums), jnp.imag(sums)])

    def seconds(run, x, b):
        start = time.perf_counter()
        run(x, b).block_until_ready()
        return time.perf_counter() - start

    blocks = jax.jit(convolve)
    for n_tokens in (2**12, 2**14, 2**16):
        x, b = jnp.stack([angles(n_tokens), angles(n_tokens, 1)]), jnp.linspace(1, 0.1, n_tokens).at[0].set(0)
        log_b = jnp.log(b)
        exact = one_fft(x, b) / jnp.maximum(jnp.cumsum(b), b[1])[None, :]
        weights = jax.jit(split_weights)(log_b)
        np.testing.assert_allclose(blocks(x, weights), exact, rtol=0, atol=1e-12)
        # In turns, so that a slow spell of the machine hits both. Weights are cut up once for all modes.
        pairs = [(seconds(blocks, x, weights), seconds(one_fft, x, b)) for _ in range(40)]
        ours, theirs = np.min(pairs, axis=0)
        assert ours < 3.5 * theirs


@pytest.mark.slow
def test_cost_grows_almost_linearly():
    def seconds(n_tokens):
        model, theta = CausalAttention(ExpCosine(1.0), FAMILIES["spline"]), angles(n_tokens)
        spectral(model, theta).block_until_ready()
        runs = []
        for _ in range(7):
            start = time.perf_counter()
            spectral(model, theta).block_until_ready()
            runs.append(time.perf_counter() - start)
        return min(runs)

    slope = np.log(seconds(2**16) / seconds(2**12)) / np.log(16)
    assert slope < 1.5
