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
from jaxkinetic.particles.causal_convolution import causal_convolution

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


def test_convolution_is_the_sum():
    rng = np.random.default_rng(1)
    for n in (2, 31, 32, 100, 129):
        x, b = rng.normal(size=(2, n)), np.append(0.0, rng.uniform(size=n - 1))
        exact = [[sum(b[j - k] * row[k] for k in range(j)) for j in range(n)] for row in x]
        np.testing.assert_allclose(causal_convolution(jnp.asarray(x), jnp.asarray(b)), exact, atol=1e-13)


@pytest.mark.parametrize("n_tokens", [513, 4097, 4700, 9000])
def test_convolution_over_every_level_of_blocks_is_the_sum(n_tokens):
    """Eight blocks of 64 make one of 512, eight of these one of 4096, and beyond that there is a third level."""
    rng = np.random.default_rng(3)
    x, b = rng.normal(size=(2, n_tokens)), np.append(0.0, rng.uniform(size=n_tokens - 1))
    found = causal_convolution(jnp.asarray(x), jnp.asarray(b))
    # By products of matrices, a few tokens at a time.
    for j in (1, 64, 511, 512, 2047, 4095, 4096, 4160, n_tokens - 1):
        if j < n_tokens:
            np.testing.assert_allclose(found[:, j], x[:, :j] @ b[j:0:-1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("growth", [-8.0, 0.0, 8.0])
def test_rounding_is_relative_to_each_tokens_own_weights(growth):
    """A single FFT over all tokens rounds relative to the largest sum, and fails all three."""
    n = 4096
    angle, lag = np.random.default_rng(2).uniform(0, 7, n), np.arange(n)
    x = np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    b = np.where(lag > 0, np.exp(growth * lag / n), 0).astype(np.float32)
    found = np.asarray(causal_convolution(jnp.asarray(x), jnp.asarray(b)))
    assert found.dtype == np.float32
    exact = np.stack([np.convolve(row.astype(float), b.astype(float))[:n] for row in x])
    share = np.abs(found - exact)[:, 1:] / np.cumsum(b.astype(float))[1:]
    assert share.max() < 1e-6


@pytest.mark.slow
def test_costs_about_one_fft_over_all_tokens():
    @jax.jit
    def one_fft(x, b):
        n = x.shape[-1]
        sums = jnp.fft.ifft(jnp.fft.fft(jax.lax.complex(*x), 2 * n) * jnp.fft.fft(b, 2 * n))[:n]
        return jnp.stack([jnp.real(sums), jnp.imag(sums)])

    def seconds(run, x, b):
        start = time.perf_counter()
        run(x, b).block_until_ready()
        return time.perf_counter() - start

    blocks = jax.jit(causal_convolution)
    for n_tokens in (2**12, 2**14, 2**16):
        x, b = jnp.stack([angles(n_tokens), angles(n_tokens, 1)]), jnp.linspace(1, 0, n_tokens).at[0].set(0)
        np.testing.assert_allclose(blocks(x, b), one_fft(x, b), rtol=0, atol=1e-13 * 10 * n_tokens)
        # In turns, so that a slow spell of the machine hits both.
        pairs = [(seconds(blocks, x, b), seconds(one_fft, x, b)) for _ in range(40)]
        ours, theirs = np.min(pairs, axis=0)
        assert ours < 2.5 * theirs


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
