"""How to add a law of the prompts: a class outside the package, from simulation to the pictures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

import jaxkinetic as jk
from jaxkinetic import plotting
from jaxkinetic.model import PromptLaw


class DriftingPrompts(PromptLaw):
    """Tokens normally distributed round an angle that turns with position: theta ~ N(turn sigma, width^2)."""

    turn: Array = eqx.field(converter=jnp.asarray)
    width: Array = eqx.field(converter=jnp.asarray)

    def sample(self, key: PRNGKeyArray, n_tokens: int) -> Float[Array, " token"]:
        sigma = jnp.arange(1, n_tokens + 1) / n_tokens
        return self.turn * sigma + self.width * jax.random.normal(key, (n_tokens,))

    def fourier(self, sigma: Float[Array, ""], n_modes: int) -> Complex[Array, " mode"]:
        n = jnp.arange(1, n_modes + 1)
        return jnp.exp(-1j * n * self.turn * sigma - (n * self.width) ** 2 / 2)


MODEL = jk.CausalAttention(jk.ExpCosine(0.5), jk.ALiBi(1.0))
LAW = DriftingPrompts(1.0, 1.2)
# The same law by a class of the package: modes beyond the eighth are below 1e-20.
SAME = jk.DensityPrompts(lambda s: jnp.exp(-1j * jnp.arange(1, 9) * s - (jnp.arange(1, 9) * 1.2) ** 2 / 2))


def test_samples_have_the_modes_of_the_law():
    prompts = jax.vmap(lambda key: LAW.sample(key, 4))(jax.random.split(jax.random.key(0), 4096))
    for j in range(4):
        found = np.exp(-1j * np.outer(prompts[:, j], np.arange(1, 4))).mean(axis=0)
        np.testing.assert_allclose(found, LAW.fourier(jnp.asarray((j + 1) / 4), 3), atol=4 / np.sqrt(4096))
    assert plotting.plot_snapshots(jk.simulate(MODEL, prompts[0], [0.0, 0.5])).axes


def test_profile_is_that_of_the_same_law():
    sources = [0.3, 0.7]
    found = jk.retrieval_profile(MODEL, 0.5, 4, sources=sources, prompts=LAW)
    same = jk.retrieval_profile(MODEL, 0.5, 4, sources=sources, prompts=SAME)
    np.testing.assert_allclose(found.values, same.values, rtol=1e-9)
    np.testing.assert_allclose(found.chance, same.chance, rtol=1e-9)


def test_estimate_agrees_with_the_profile():
    sources = [0.25, 0.75]
    found = jk.estimate_profile(
        MODEL, 0.5, 4, n_tokens=32, n_prompts=256, key=jax.random.key(1), prompts=LAW, sources=sources, n_steps=2
    )
    limit = np.asarray(jk.law_profile(MODEL, LAW, 0.5, 4, sources=sources).values)
    assert found.control_variate
    # Prompts of 32 tokens are a few per cent from the limit.
    assert np.all(np.abs(found.values - limit) < 0.06 * limit + 3 * found.standard_error)
    assert np.all(found.standard_error < 0.03 * limit)
    assert plotting.plot_estimate(found).lines


def test_limit_is_drawn():
    assert plotting.plot_limit(jk.solve_correlations(MODEL, LAW, [0.25, 0.5], [0.3, 0.7])).axes
