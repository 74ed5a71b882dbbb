import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.sums.recurrence import causal_sum, propagate, weight_totals

SERIES = jnp.asarray([[0.7, -0.2, 0.1], [0.3, 0.5, -0.4]])
PARITIES = ("even", "odd")


def problem(n_tokens, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-4, 4, n_tokens)), jnp.asarray(rng.normal(size=n_tokens))


def dense(theta, series, exponents, parities=PARITIES):
    """The matrices W_{jk} h(theta_j - theta_k), in NumPy."""
    theta, series = np.asarray(theta), np.asarray(series)
    decay, growth = (float(e) for e in exponents)
    j = np.arange(1, theta.size + 1)
    lag = j[:, None] - 1 - j[None, :]
    weights = np.where(lag >= 0, np.exp(-decay * np.maximum(lag, 0) - growth * (j[None, :] - 1)), 0)
    n = np.arange(1, series.shape[1] + 1)
    x = (theta[:, None] - theta[None, :])[..., None] * n[None, None, :]
    return np.stack(
        [
            weights * ((np.cos(x) if parity == "even" else np.sin(x)) @ c)
            for c, parity in zip(series, parities, strict=True)
        ]
    )


EXPONENTS = [(0.0, 0.0), (0.02, 0.0), (0.0, 0.05), (3.0, 0.0), (0.01, 0.02)]


@pytest.mark.parametrize("n_tokens", [2, 33, 64, 65, 200, 2100])
@pytest.mark.parametrize("exponents", EXPONENTS)
def test_sums_against_dense_matrices(n_tokens, exponents):
    theta, source = problem(n_tokens)
    exponents = jnp.asarray(exponents[0]), jnp.asarray(exponents[1])
    matrices = dense(theta, SERIES, exponents)
    got = jax.jit(causal_sum, static_argnums=3)(theta, SERIES, exponents, PARITIES)
    np.testing.assert_allclose(got, matrices.sum(axis=2), rtol=0, atol=1e-13 * np.abs(matrices).sum(axis=2).max())
    got = propagate(theta, SERIES, exponents, source, PARITIES)
    scale = (np.abs(matrices) @ np.abs(np.asarray(source))).max()
    np.testing.assert_allclose(got, matrices @ np.asarray(source), rtol=0, atol=1e-13 * scale)


def test_weight_totals():
    exponents = jnp.asarray(0.02), jnp.asarray(0.01)
    matrix = dense(jnp.zeros(100), jnp.ones((1, 1)), exponents, ("even",))[0]
    np.testing.assert_allclose(weight_totals(100, exponents), matrix.sum(axis=1), rtol=1e-13)


@pytest.mark.parametrize("exponents", EXPONENTS)
@pytest.mark.parametrize("n_tokens", [20, 200])
def test_transpose_is_the_adjoint(n_tokens, exponents):
    theta, source = problem(n_tokens)
    exponents = jnp.asarray(exponents[0]), jnp.asarray(exponents[1])
    u = jnp.asarray(np.random.default_rng(3).normal(size=(2, n_tokens)))

    def forward(s):
        return propagate(theta, SERIES, exponents, s, PARITIES)

    value, transpose = jax.vjp(forward, source)
    (back,) = transpose(u)
    left, right = jnp.vdot(u, value), jnp.vdot(back, source)
    assert float(left) == pytest.approx(float(right), rel=1e-12)
    np.testing.assert_allclose(back, np.einsum("hjk,hj->k", dense(theta, SERIES, exponents), u), atol=1e-12)
    # the transpose of the transpose is the sum again
    (again,) = jax.linear_transpose(lambda u: transpose(u)[0], u)(source)
    np.testing.assert_allclose(again, value, rtol=0, atol=1e-13 * float(jnp.max(jnp.abs(value))))


@pytest.mark.parametrize("mapped", list(itertools.product([False, True], repeat=5))[1:])
def test_batching_over_every_subset_of_arguments(mapped):
    rng = np.random.default_rng(5)
    shapes = [(40,), (2, 3), (), (), (40,)]
    operands = [
        jnp.asarray(rng.uniform(0, 0.5, (3, *shape) if m else shape))
        for shape, m in zip(shapes, mapped, strict=True)
    ]
    axes = tuple(0 if m else None for m in mapped)

    def one(theta, series, decay, growth, source):
        return propagate(theta, series, (decay, growth), source, PARITIES)

    batched = jax.vmap(one, in_axes=axes)(*operands)
    slopes = jax.vmap(jax.grad(lambda *x: jnp.sum(one(*x) ** 2), argnums=(0, 1, 2, 3, 4)), in_axes=axes)(*operands)
    for i in range(3):
        lane = [x[i] if m else x for x, m in zip(operands, mapped, strict=True)]
        np.testing.assert_allclose(batched[i], one(*lane), rtol=1e-12, atol=1e-14)
        expected = jax.grad(lambda *x: jnp.sum(one(*x) ** 2), argnums=(0, 1, 2, 3, 4))(*lane)
        for got, exact in zip(slopes, expected, strict=True):
            np.testing.assert_allclose(got[i], exact, rtol=1e-10, atol=1e-11)


def test_nested_batches_and_inner_axes():
    theta = jnp.asarray(np.random.default_rng(0).uniform(0, 6, (40, 2)))
    source = jnp.asarray(np.random.default_rng(1).normal(size=(3, 40)))
    exponents = jnp.asarray(0.1), jnp.asarray(0.0)

    def one(x, s):
        return propagate(x, SERIES, exponents, s, PARITIES)

    grid = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(1, None))(theta, source)
    for i, j in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(grid[i, j], one(theta[:, i], source[j]), rtol=1e-12, atol=1e-14)


def test_tangents_of_every_argument_against_differences():
    theta, source = problem(70)
    start = (theta, SERIES, jnp.asarray(0.03), jnp.asarray(0.01), source)
    rng, h = np.random.default_rng(2), 1e-6
    direction = tuple(jnp.asarray(rng.normal(size=x.shape) * (0.01 if x.ndim == 0 else 1)) for x in start)
    functions = (
        lambda x, c, d, g, s: propagate(x, c, (d, g), s, PARITIES),
        lambda x, c, d, g, s: causal_sum(x, c, (d, g), PARITIES) + 0 * s[None, :],
    )
    for function in functions:
        moved = [function(*(x + sign * h * v for x, v in zip(start, direction, strict=True))) for sign in (1, -1)]
        tangent = jax.jvp(function, start, direction)[1]
        difference = (moved[0] - moved[1]) / (2 * h)
        np.testing.assert_allclose(tangent, difference, rtol=0, atol=2e-8 * float(jnp.max(jnp.abs(difference))))
