"""How to add positional weights: a class outside the package, from simulation to the pictures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxkinetic as jk
from jaxkinetic import plotting


class LinearDecay(jk.PositionalWeights):
    """b(s) = 1 - c s, for 0 <= c < 1."""

    c: Array = eqx.field(converter=jnp.asarray)

    def log_weight(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.log1p(-self.c * distance)

    def log_mass(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.log(sigma * (1 - self.c * sigma / 2))

    @property
    def mean_distance(self) -> Array:
        return (1 / 2 - self.c / 3) / (1 - self.c / 2)


MODEL = jk.CausalAttention(jk.ExpCosine(1.0), LinearDecay(0.8))
RATES = np.asarray(MODEL.kernel.growth_rates())


def graphon(sigma, source):
    """k(sigma, sigma') (1.9) as NumPy has it."""
    return (1 - 0.8 * (sigma - source)) / (sigma - 0.4 * sigma**2)


def second_kernel(source):
    """int k(1, s) k(s, sigma_0) ds by Gauss quadrature, for sources where the integrand is smooth."""
    x, weights = np.polynomial.legendre.leggauss(40)
    s = source + (1 - source) * (x + 1) / 2
    return (1 - source) / 2 * np.sum(weights * graphon(1.0, s) * graphon(s, source))


def test_particles_feel_the_weights():
    theta = jk.UniformPrompts().sample(jax.random.key(0), 33)
    np.testing.assert_allclose(jk.spectral_drift(MODEL, theta), jk.pairwise_drift(MODEL, theta), atol=1e-13)
    # The second token sees the first alone, the third both.
    b = 1 - 0.8 * np.arange(3) / 33
    np.testing.assert_allclose(
        MODEL.positions.weights(33)[2, :2], np.array([b[2], b[1]]) / (b[1] + b[2]), rtol=1e-13
    )
    assert plotting.plot_snapshots(jk.simulate(MODEL, theta, [0.0, 1.0])).axes


def test_profile_is_the_series_of_the_iterated_kernels():
    """S_t = sum_m h_m t^{m+1} / (m+1)! sum_n w_n a_n^{m+1}, of which two terms are left at t = 0.01."""
    sources, time = np.array([0.2, 0.5, 0.9]), 0.01
    n = np.arange(1, RATES.size + 1)
    weights = np.exp(-((np.pi * n / 8) ** 2) / 2)
    first = time * np.sum(weights * RATES) * graphon(1.0, sources)
    second = time**2 / 2 * np.sum(weights * RATES**2) * np.array([second_kernel(s) for s in sources])
    profile = jk.retrieval_profile(MODEL, time, 8, sources=sources)
    np.testing.assert_allclose(profile.values, first + second, rtol=3e-5)
    assert np.all(second > 3e-4 * first)


def test_estimate_agrees_with_the_profile():
    found = jk.estimate_profile(MODEL, 1.0, 8, n_tokens=32, n_prompts=512, key=jax.random.key(1), n_steps=2)
    limit = np.asarray(jk.retrieval_profile(MODEL, 1.0, 8, sources=found.sources).values)
    middle = (found.sources > 0.2) & (found.sources < 0.8)
    assert found.control_variate
    # Prompts of 32 tokens are a few per cent from the limit.
    assert abs(np.mean(found.values[middle] / limit[middle]) - 1) < 0.08
    assert np.all(found.standard_error[middle] < 0.05 * limit[middle])
    assert plotting.plot_estimate(found).lines
    assert plotting.plot_profile_line(MODEL, 1.0, 8).lines
    assert plotting.plot_weights(MODEL.positions).lines
