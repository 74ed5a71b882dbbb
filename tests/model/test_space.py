"""Spaces: tangents, retractions and distances against closed forms, uniform laws against their moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk

SPACES = [jk.Circle(), jk.Sphere(2), jk.Sphere(3), jk.Sphere(7)]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_step_along_a_tangent_covers_its_length(space):
    """A small step moves a token by as much, to second order on a sphere: |d - h| = h^3 / 3."""
    x = space.uniform(jax.random.key(0), 50)
    v = space.to_tangent(x, jax.random.normal(jax.random.key(1), x.shape))
    if x.ndim == 2:
        np.testing.assert_allclose(jnp.sum(x * v, axis=1), 0, atol=1e-14)
        np.testing.assert_allclose(space.to_tangent(x, v), v, atol=1e-14)
        v = v / jnp.linalg.norm(v, axis=1, keepdims=True)
    else:
        v = jnp.sign(v)
    h = 1e-3
    moved = space.check("x", space.retract(x, h * v))
    np.testing.assert_allclose(space.distance(x, moved), h, rtol=1e-6)
    np.testing.assert_allclose(space.distance(moved, x), space.distance(x, moved), rtol=1e-12)


def test_distances_are_right_to_rounding_near_zero_and_near_pi():
    for angle in (1e-12, 1e-8, 0.3, 3.0, np.pi - 1e-9, np.pi):
        x = jnp.array([[1.0, 0.0, 0.0]])
        y = jnp.array([[np.cos(angle), np.sin(angle), 0.0]])
        np.testing.assert_allclose(jk.Sphere(3).distance(x, y), angle, rtol=1e-12)
        for turns in (0, 1, -3):
            there = jnp.array([0.4 + angle + 2 * np.pi * turns])
            np.testing.assert_allclose(jk.Circle().distance(jnp.array([0.4]), there), angle, rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("dimension", [2, 3, 5])
def test_uniform_tokens_have_the_moments_of_a_sphere(dimension):
    """E x = 0, E x_i x_j = delta / d, E x_1^4 = 3 / (d (d + 2)), within five standard errors."""
    n = 40_000
    x = np.asarray(jk.Sphere(dimension).uniform(jax.random.key(2), n))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-14)
    fourth = 3 / (dimension * (dimension + 2))
    assert np.all(np.abs(x.mean(axis=0)) < 5 / np.sqrt(dimension * n))
    second = x.T @ x / n - np.eye(dimension) / dimension
    assert np.all(np.abs(second) < 5 * np.sqrt(fourth / n))
    assert abs((x[:, 0] ** 4).mean() - fourth) < 5 * (x[:, 0] ** 4).std() / np.sqrt(n)


class North(jk.Layer):
    """Every token of a sphere moves along the gradient of its first coordinate, x' = P_x e_1."""

    @property
    def space(self):
        return jk.Sphere(3)

    def velocity(self, tokens):
        return self.space.to_tangent(tokens, jnp.zeros_like(tokens).at[:, 0].set(1.0))


def test_a_layer_on_a_sphere_is_simulated_alone_and_in_a_sum():
    """tan(phi / 2) falls as e^{-t}, phi the angle to the pole."""
    x, times = jk.Sphere(3).uniform(jax.random.key(3), 6), [0.0, 0.7, 2.0]
    pole = jnp.zeros_like(x).at[:, 0].set(1.0)
    for layer, speed in ((North(), 1.0), (jk.Sum([North(), North()], shares=[0.5, -2.0]), -1.5)):
        found = jk.simulate(layer, x, times)
        assert found.tokens.shape == (3, 6, 3)
        np.testing.assert_allclose(jnp.linalg.norm(found.tokens, axis=-1), 1, rtol=1e-14)
        phi = jk.Sphere(3).distance(found.tokens, pole[None])
        expected = 2 * np.arctan(np.tan(phi[0] / 2) * np.exp(-speed * np.array(times))[:, None])
        np.testing.assert_allclose(phi, expected, rtol=1e-7)
    with pytest.raises(ValueError, match=r"no angles: use `\.tokens`"):
        _ = found.angles


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jk.simulate(North(), jnp.ones((4, 2)), [1.0]), r"`x0` must have shape \(n_tokens, 3\), but has"),
        (lambda: jk.simulate(North(), jnp.ones((4, 3)), [1.0]), "`x0` must hold vectors of length 1"),
        (lambda: jk.simulate(North(), jnp.eye(3)[:1], [1.0]), "`x0` must hold at least 2 tokens, but holds 1"),
        (lambda: jk.simulate(North(), jnp.eye(3, dtype=int), [1.0]), "`x0` must be real floating-point"),
        (lambda: jk.simulate(jk.CausalAttention(), jnp.eye(3), [1.0]), r"`x0` must have shape \(n_tokens,\)"),
        (lambda: jk.Sum([North(), jk.CausalAttention()]), "`layers` must move tokens of one space, but has"),
        (lambda: jk.Sphere(1), "`dimension` must be at least 2, but is 1"),
        (
            lambda: jk.estimate_profile(North(), 1.0, 4, 8, n_prompts=32, key=jax.random.key(0)),
            "`model` must move tokens on the circle",
        ),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_what_is_no_prompt_of_a_space_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_traced_tokens_off_the_sphere_are_an_error():
    run = jax.jit(lambda x: jk.simulate(North(), x, [1.0]).tokens)
    assert run(jnp.eye(3)).shape == (1, 3, 3)
    with pytest.raises(Exception, match="must hold vectors of length 1"):
        run(2 * jnp.eye(3))
