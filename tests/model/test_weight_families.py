import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from jaxkinetic import ALiBi, ExponentialSum, PowerLaw, SplineWeights

LOG_VALUES = np.array([0.3, -0.2, 0.5, 0.1, -1.2, -0.7, -0.9, 0.4])
# Pieces of the piecewise b, for quadrature that knows where it bends.
CASES = {
    "alibi": (ALiBi(2.0), lambda s: mp.exp(-2 * s), [0, 1]),
    "no bias": (ALiBi(0.0), lambda _: mp.mpf(1), [0, 1]),
    "exponentials": (
        ExponentialSum([1.0, 0.2, 3.0], [1.0, -2.0, 40.0]),
        lambda s: mp.exp(-s) + mp.exp(2 * s) / 5 + 3 * mp.exp(-40 * s),
        [0, 0.05, 1],
    ),
    "power": (PowerLaw(1.5, 0.05), lambda s: (s + mp.mpf(0.05)) ** mp.mpf(-1.5), [0, 0.05, 1]),
    "hyperbola": (PowerLaw(1.0, 0.3), lambda s: 1 / (s + mp.mpf(0.3)), [0, 1]),
    "sharp": (PowerLaw(3.0, 0.002), lambda s: (s + mp.mpf(0.002)) ** -3, [0, 0.002, 0.02, 1]),
    "spline": (
        SplineWeights(LOG_VALUES),
        lambda s: mp.exp(mp.mpf(float(CubicSpline(np.linspace(0, 1, 8), LOG_VALUES)(float(s))))),
        np.linspace(0, 1, 8).tolist(),
    ),
}


def integral(function, pieces, end=1.0):
    cuts = [p for p in pieces if p < end] + [end]
    with mp.workdps(20):
        return float(mp.quad(function, cuts))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("positions", "b", "_"), CASES.values(), ids=CASES.keys())
def test_weights_are_the_formula_and_sum_to_one(positions, b, _):
    n = 9
    weights = positions.weights(n)
    np.testing.assert_allclose(weights.sum(axis=1), [0] + [1] * (n - 1), rtol=1e-14)
    for j in range(2, n + 1):
        raw = np.array([float(b(mp.mpf(j - k) / n)) for k in range(1, j)])
        np.testing.assert_allclose(weights[j - 1, : j - 1], raw / raw.sum(), rtol=1e-12)
    assert jnp.all(jnp.triu(weights) == 0)


@pytest.mark.parametrize(("positions", "b", "pieces"), CASES.values(), ids=CASES.keys())
def test_graphon_is_the_formula(positions, b, pieces):
    for sigma, source in [(1.0, 0.3), (0.4, 0.4), (1.0, 1e-6), (0.013, 0.01)]:
        exact = float(b(mp.mpf(sigma - source))) / integral(b, pieces, sigma)
        got = float(positions.graphon(jnp.asarray(sigma), jnp.asarray(source)))
        assert got == pytest.approx(exact, rel=2e-12)
    assert positions.graphon(jnp.asarray(0.3), jnp.asarray(0.4)) == 0


@pytest.mark.parametrize(("positions", "b", "pieces"), CASES.values(), ids=CASES.keys())
def test_mean_distance_is_the_mean(positions, b, pieces):
    exact = integral(lambda s: s * b(s), pieces) / integral(b, pieces)
    assert float(positions.mean_distance) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("name", ["exponentials", "power", "spline"])
def test_finite_weights_converge_to_the_graphon(name):
    positions = CASES[name][0]
    gaps = []
    for n in (200, 400, 800):
        weights = n * positions.weights(n)[n - 1, n // 4 - 1]
        gaps.append(float(jnp.abs(weights - positions.graphon(jnp.asarray(1.0), jnp.asarray(0.25)))))
    np.testing.assert_allclose(np.log2(np.divide(gaps[:-1], gaps[1:])), 1, atol=0.1)


def test_one_exponential_is_alibi():
    for rate in (-300.0, 0.0, 7.0):
        one, alibi = ExponentialSum([2.0], [rate]), ALiBi(rate)
        np.testing.assert_allclose(one.weights(50), alibi.weights(50), rtol=1e-12, atol=1e-300)
        assert float(one.mean_distance) == pytest.approx(float(alibi.mean_distance), rel=1e-13)


def test_factors_are_the_terms():
    positions = CASES["exponentials"][0]
    log_factors, decay, growth = (np.asarray(x) for x in positions.factors(7))
    j = np.arange(1, 8)
    lag = j[:, None] - j[None, :]
    exponent = -decay[:, None, None] * (lag - 1) - growth[:, None, None] * (j - 1)[None, None, :]
    raw = np.tril(np.sum(np.exp(log_factors[:, :, None] + exponent), axis=0), -1)
    raw[1:] /= raw[1:].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(positions.weights(7), raw, rtol=1e-13)
    assert np.all(decay >= 0)
    assert np.all(growth >= 0)


def test_the_spline_is_scipys_and_tilts_exactly():
    spline, s = SplineWeights(LOG_VALUES), np.linspace(0, 1, 301)
    np.testing.assert_allclose(
        spline.log_weight(jnp.asarray(s)), CubicSpline(np.linspace(0, 1, 8), LOG_VALUES)(s), atol=1e-14
    )
    tilted = spline.tilted(jnp.asarray(3.0))
    np.testing.assert_allclose(
        tilted.log_weight(jnp.asarray(s)), spline.log_weight(jnp.asarray(s)) - 3 * s, atol=1e-13
    )
    assert tilted.mean_distance < spline.mean_distance


@pytest.mark.parametrize("name", ["exponentials", "power", "hyperbola", "spline"])
def test_derivatives_against_differences(name):
    positions = CASES[name][0]
    leaves, tree = jax.tree.flatten(positions)

    def values(leaves):
        built = jax.tree.unflatten(tree, leaves)
        graphon = built.graphon(jnp.asarray(0.8), jnp.asarray(0.33))
        return jnp.stack([built.mean_distance, graphon])

    for i, leaf in enumerate(leaves):
        direction = jnp.asarray(np.random.default_rng(i).normal(size=leaf.shape))

        def along(x, i=i, direction=direction):
            return values([v + x * direction if k == i else v for k, v in enumerate(leaves)])

        h = 1e-5
        differences = (along(h) - along(-h)) / (2 * h)
        tangent = jax.jvp(along, (0.0,), (1.0,))[1]
        np.testing.assert_allclose(tangent, differences, rtol=1e-7, atol=1e-9)
        reverse = jax.jacrev(along)(0.0)
        np.testing.assert_allclose(reverse, tangent, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("positions", "_b", "_pieces"), CASES.values(), ids=CASES.keys())
def test_single_precision_stays_single(positions, _b, _pieces):
    single = jax.tree.map(lambda x: x.astype(jnp.float32), eqx.filter(positions, eqx.is_array))
    sigma, source = jnp.float32(0.9), jnp.float32(0.2)
    for got, exact in (
        (single.graphon(sigma, source), positions.graphon(jnp.asarray(0.9), jnp.asarray(0.2))),
        (single.mean_distance, positions.mean_distance),
        (single.weights(5)[4, 1], positions.weights(5)[4, 1]),
    ):
        assert got.dtype == single.dtype == jnp.float32
        assert float(got) == pytest.approx(float(exact), rel=3e-5)


def test_known_weights_can_be_built_under_jit():
    @jax.jit
    def mean_distance(x):
        spline, power = SplineWeights(LOG_VALUES), PowerLaw(1.5, 0.05)
        return x * jnp.stack([spline.mean_distance, power.mean_distance])

    exact = [float(CASES[name][0].mean_distance) for name in ("spline", "power")]
    np.testing.assert_allclose(mean_distance(1.0), exact, rtol=1e-13)
