import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ClusterPrompts, CodewordPrompts, DensityPrompts, UniformPrompts

N, PROMPTS, MODES = 6, 40_000, 4

LAWS = {
    "uniform": UniformPrompts(),
    "codewords": CodewordPrompts(lambda s: jnp.stack([0.5 * (1 - s), 0.2 + 0.3 * s, 0.3 + 0.2 * s])),
    "constant codewords": CodewordPrompts([0.7, 0.1, 0.2, 0.0]),
    "density": DensityPrompts(lambda s: jnp.stack([0.3 * s, 0.1j * s, 0.05 + 0.02j])),
    "constant density": DensityPrompts([0.4 - 0.1j]),
    "clusters": ClusterPrompts([0.5, 2.0, -1.0, 3.0], 0.3),
}


@functools.cache
def samples(name):
    keys = jax.random.split(jax.random.key(7), PROMPTS)
    return np.asarray(jax.jit(jax.vmap(lambda key: LAWS[name].sample(key, N)))(keys))


# 40,000 prompts: a standard error of a mode is at most 0.005; four of them leave no room for a bias of 0.02.
@pytest.mark.parametrize("name", LAWS)
def test_samples_have_the_modes_of_their_law(name):
    n = np.arange(1, MODES + 1)
    waves = np.exp(-1j * samples(name)[:, :, None] * n[None, None, :])
    for j in range(1, N + 1):
        exact = np.asarray(LAWS[name].fourier(jnp.asarray(j / N), MODES))
        assert np.abs(waves[:, j - 1].mean(axis=0) - exact).max() < 4.5 / np.sqrt(PROMPTS)


@pytest.mark.parametrize("name", LAWS)
def test_tokens_are_independent(name):
    waves = np.exp(1j * samples(name))
    centred = waves - waves.mean(axis=0)
    covariance = np.abs(centred.T @ centred.conj()) / PROMPTS
    assert np.max(covariance[~np.eye(N, dtype=bool)]) < 4.5 / np.sqrt(PROMPTS)


@pytest.mark.parametrize("name", LAWS)
def test_one_key_gives_one_prompt(name):
    law, key = LAWS[name], jax.random.key(3)
    np.testing.assert_array_equal(law.sample(key, 10), law.sample(key, 10))
    assert jnp.any(law.sample(key, 100) != law.sample(jax.random.key(4), 100))
    assert law.sample(key, 10).shape == (10,)


@pytest.mark.parametrize("name", ["density", "constant density"])
def test_modes_are_integrals_of_the_density(name):
    law, theta = LAWS[name], np.arange(64) * 2 * np.pi / 64
    for sigma in (0.1, 1.0):
        density = np.asarray(law.density(jnp.asarray(sigma), jnp.asarray(theta)))
        modes = [np.mean(density * np.exp(-1j * n * theta)) for n in range(1, 6)]
        np.testing.assert_allclose(law.fourier(jnp.asarray(sigma), 5), modes, rtol=0, atol=1e-15)
        assert density.mean() == pytest.approx(1, abs=1e-15)


def test_density_samples_follow_the_distribution_function():
    law = LAWS["constant density"]
    grid = np.linspace(0, 2 * np.pi, 4001)
    density = np.asarray(law.density(jnp.asarray(0.5), jnp.asarray((grid[1:] + grid[:-1]) / 2)))
    distribution = np.concatenate([[0], np.cumsum(density) / density.size])
    drawn = np.sort(samples("constant density").ravel())
    gap = np.abs(np.interp(drawn, grid, distribution) - np.arange(drawn.size) / drawn.size).max()
    assert gap < 2 / np.sqrt(drawn.size)  # Kolmogorov-Smirnov at a thousandth of a percent


def test_codewords_sit_on_the_circle():
    law = LAWS["constant codewords"]
    assert law.vocab_size == 4
    np.testing.assert_allclose(law.atoms, [0, np.pi / 2, np.pi, 3 * np.pi / 2], rtol=1e-15)
    drawn = samples("constant codewords")
    share = (np.abs(drawn[..., None] - np.asarray(law.atoms)[None, None, :]) < 1e-12).mean(axis=(0, 1))
    np.testing.assert_allclose(share, [0.7, 0.1, 0.2, 0.0], rtol=0, atol=4.5 * 0.5 / np.sqrt(drawn.size))
    assert share[3] == 0


@pytest.mark.parametrize(("n_tokens", "n_clusters"), [(64, 4), (4, 3), (7, 5), (49, 49), (100, 100), (5, 9)])
def test_a_cluster_prompt_and_its_law_agree_on_the_centres(n_tokens, n_clusters):
    centers = jnp.arange(n_clusters) * 0.03
    law = ClusterPrompts(centers, 1e-9)
    for j, angle in enumerate(law.sample(jax.random.key(0), n_tokens), start=1):
        mode = law.fourier(jnp.asarray(j / n_tokens), 1)[0]
        assert float(-jnp.angle(mode)) == pytest.approx(float(angle), abs=1e-7)
