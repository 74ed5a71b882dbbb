"""Theorem 1.1: the empirical measure and the law of one token approach the mean field at their rates in N."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, Solve, simulate
from jaxkinetic.limit import solve_mean_field
from tests.limit.laws import CODEWORDS

MODEL = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
STEPS = Solve(solver=diffrax.Tsit5(), step=0.1)
TIME = 1.0


def ends(n_tokens, n_prompts, key):
    """Initial and final angles of prompts, (prompt, N) each."""

    def one(p):
        theta = CODEWORDS.sample(jax.random.fold_in(key, p), n_tokens)
        return theta, simulate(MODEL, theta, [TIME], STEPS).angles[0]

    return jax.jit(lambda p: jax.lax.map(one, p, batch_size=32))(jnp.arange(n_prompts))


@pytest.fixture(scope="module")
def field():
    return solve_mean_field(MODEL, CODEWORDS, [TIME])


@pytest.mark.slow
def test_empirical_measure_approaches_at_rate_one_half(field):
    """Root-mean-square of int e^{-i theta} sigma (mu_N - f), (1.12) with delta >= 1/2, over N = 64 to 4096."""
    x, w = np.polynomial.legendre.leggauss(16)
    sigma = (x + 1) / 2
    exact = jnp.sum(jnp.asarray(w / 2 * sigma) * field.modes(TIME, jnp.asarray(sigma))[:, 0])
    sizes, errors = [64, 256, 1024, 4096], []
    for n_tokens in sizes:
        _, angles = ends(n_tokens, 192, jax.random.key(n_tokens))
        position = jnp.arange(1, n_tokens + 1) / n_tokens
        found = jnp.mean(position[None, :] * jnp.exp(-1j * angles), axis=1)
        errors.append(float(jnp.sqrt(jnp.mean(jnp.abs(found - exact) ** 2))))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4, (slope, errors)


@pytest.mark.slow
def test_law_of_the_last_token_approaches_at_rate_one(field):
    """hat f_N(t, 1, 4) - hat f(t, 1, 4) over N = 16 to 256, seen through the noise by coupling.

    The characteristic of the limit that starts at theta_N(0) has exactly the law f(t, 1): it is a control
    variate with known mean, and what remains is E[e^{-4 i theta_N(t)} - e^{-4 i X(t)}].
    In mode 4, in which the codewords agree, the spread of order N^{-1/2} round X leaves the clearest mark.
    """
    atoms = field.characteristics(TIME, 1.0)
    sizes, errors, noise = [16, 32, 64, 128, 256], [], []
    for n_tokens in sizes:
        start, end = ends(n_tokens, 4096, jax.random.key(n_tokens))
        coupled = atoms[jnp.round(start[:, -1] / (jnp.pi / 2)).astype(int) % 4]
        values = jnp.exp(-4j * end[:, -1]) - jnp.exp(-4j * coupled)
        errors.append(complex(jnp.mean(values)))
        noise.append(float(jnp.std(values)) / 64)
    weights = np.abs(errors) / np.array(noise)
    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(np.abs(errors)), 1, w=weights, cov="unscaled")
    # The band means something only where the noise is well inside it.
    assert np.sqrt(covariance[0, 0]) < 0.07, (errors, noise)
    assert -1.2 < slope < -0.8, (slope, errors, noise)
