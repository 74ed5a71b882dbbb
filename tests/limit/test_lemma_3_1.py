"""Lemma 3.1: sensitivities (3.5) and covariances (3.3) are of order 1 / i, and grow slowly with log(i / k)."""

from functools import cache

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, Solve, UniformPrompts, simulate
from jaxkinetic.limit import solve_correlations, solve_mean_field
from jaxkinetic.limit.bessel import entire_bessel
from jaxkinetic.limit.closed_form import volterra_hardy
from tests.limit.laws import CODEWORDS, SMOOTH, codeword_probabilities

pytestmark = pytest.mark.slow

MODEL = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
STEPS = Solve(solver=diffrax.Tsit5(), step=0.1)
TIME = 1.0


LAWS = {"uniform": UniformPrompts(), "smooth": SMOOTH}


@cache
def sensitivities(law, n_tokens, n_prompts, beta=1.0):
    """d theta_N(t) / d theta_k(0) for every k, (prompt, N): one reverse pass a prompt."""

    model = CausalAttention(ExpCosine(beta), ALiBi(1.0))

    def one(p):
        theta = LAWS[law].sample(jax.random.fold_in(jax.random.key(n_tokens), p), n_tokens)
        return jax.grad(lambda start: simulate(model, start, [TIME], STEPS).angles[0, -1])(theta)

    return np.asarray(jax.jit(lambda p: jax.lax.map(one, p, batch_size=32))(jnp.arange(n_prompts)))


def root_mean_square(values):
    """Root of the mean square over the first axis, and its standard error."""
    squares = values**2
    found = np.sqrt(squares.mean(axis=0))
    return found, squares.std(axis=0) / np.sqrt(len(values)) / (2 * found)


def predicted(source):
    """N times the root mean square of d theta_N / d theta_k for uniform prompts, in the limit.

    To leading order it is 2 sum_n g_{a_n}(1; sigma_0) cos(n (theta_N - theta_k)), with the profile g of (1.23).
    """
    g = jax.vmap(volterra_hardy, (0, None, None, None, None))
    one = jnp.ones(())
    return float(
        jnp.sqrt(2 * jnp.sum(g(MODEL.kernel.growth_rates(), TIME * one, one, source * one, MODEL.positions) ** 2))
    )


def fitted_slope(sizes, values, errors):
    """Weighted least-squares slope in log-log, and its standard error."""
    weights = np.asarray(values) / np.asarray(errors)
    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(values), 1, w=weights, cov="unscaled")
    return slope, np.sqrt(covariance[0, 0])


# Sensitivities (3.5) ------------------------------------------------------------------------------------

SIZES = {32: 1024, 64: 1024, 128: 512, 256: 512}


@pytest.mark.parametrize("law", LAWS)
def test_sensitivities_fall_as_one_over_i(law):
    """At k = i / 4 and k = i / 2."""
    for ratio in (4, 2):
        found = [root_mean_square(sensitivities(law, n, p)[:, n // ratio - 1]) for n, p in SIZES.items()]
        slope, error = fitted_slope(list(SIZES), *zip(*found, strict=True))
        assert error < 0.025
        assert abs(slope + 1) < 0.1, (ratio, slope, error)


def test_sensitivities_of_uniform_prompts_are_those_of_the_limit():
    """From k = i / 2 down to k = i / 32 they grow by half, as (1.23) does with log(i / k).

    (1.23) grows as a Bessel function of sqrt(a t log(i / k)), which is the growth that (3.5) allows.
    """
    n_tokens = 256
    found, error = root_mean_square(n_tokens * sensitivities("uniform", n_tokens, SIZES[n_tokens]))
    for k in (8, 16, 32, 64, 128):
        assert error[k - 1] < 0.05 * found[k - 1]
        # What the limit leaves out is of order 1 / k.
        assert abs(found[k - 1] - predicted(k / n_tokens)) < 4 * error[k - 1] + found[k - 1] / k, k


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_sensitivities_stay_below_the_bound_for_every_prompt(beta):
    """(i - 1) |d theta_i / d theta_k| <= c L t e^{L t} Phi_1(c L t H), the proof of (3.5) with its constants.

    L bounds |w''|, c bounds (i - 1) omega_ij, H = sum_{m = k}^{i - 2} 1 / m is log(i / k) and a little, and
    Phi_1(z) = sum_r z^r / (r! (r + 1)!) <= e^{2 sqrt(z)} collects the chains k < j_r < ... < j_1 < i. For
    small beta the bound is close: some sensitivity comes within a factor of two.
    """
    n_tokens = 128
    values = sensitivities("uniform", n_tokens, SIZES[n_tokens], beta)
    found = np.abs((n_tokens - 1) * values[:, :-1]).max(axis=0)
    angle = np.linspace(0, np.pi, 2001)
    w2 = np.exp(beta * np.cos(angle)) * beta * (beta * np.sin(angle) ** 2 - np.cos(angle))
    weights = np.asarray(MODEL.positions.weights(n_tokens))
    rate = np.max(np.arange(n_tokens)[:, None] * weights) * np.abs(w2).max() * TIME
    harmonic = np.concatenate([np.cumsum((1 / np.arange(1, n_tokens - 1))[::-1])[::-1], [0.0]])
    chains = np.asarray(entire_bessel(1, jnp.asarray(rate * harmonic)))
    bound = rate * np.exp(np.abs(w2).max() * TIME) * chains
    assert np.all(found <= bound)
    if beta < 0.5:
        assert np.max(found / bound) > 0.5


# Covariances (3.3) --------------------------------------------------------------------------------------


@cache
def covariances(n_tokens, n_prompts, ratio=4):
    """Re Cov(e^{i theta_N(t)}, e^{i theta_j(t')}) at j = N / ratio for t' = t and t' = 0: means, standard errors.

    The covariance given all other tokens is a sum over the four words of token j, and needs four runs; what is
    left is that of the conditional means. From the mean of token N the characteristic that starts where it does
    may be taken: it depends on theta_N(0) alone, which token j < N does not see. The noise is then of the order
    of the covariance itself.
    """
    field = solve_mean_field(MODEL, CODEWORDS, [TIME])
    j, words = n_tokens // ratio - 1, CODEWORDS.atoms
    p = codeword_probabilities(jnp.asarray((j + 1) / n_tokens))
    atoms = field.characteristics(TIME, 1.0)

    def one(prompt):
        theta = CODEWORDS.sample(jax.random.fold_in(jax.random.key(n_tokens), prompt), n_tokens)
        end = jax.vmap(lambda word: simulate(MODEL, theta.at[j].set(word), [TIME], STEPS).angles[0])(words)
        word = jnp.round(theta[-1] / (jnp.pi / 2)).astype(int) % 4
        last = jnp.exp(1j * end[:, -1]) - jnp.exp(1j * atoms[word])
        now, start = jnp.exp(-1j * end[:, j]), jnp.exp(-1j * words)
        mean_last, mean_now = p @ last, p @ now
        given = (p * (last - mean_last)) @ jnp.stack([now, start], axis=1)
        return given, mean_last, mean_now

    given, last, now = jax.jit(lambda q: jax.lax.map(one, q, batch_size=32))(jnp.arange(n_prompts))
    means = jnp.stack([(last - last.mean()) * (now - now.mean()), jnp.zeros_like(now)], axis=1)
    values = np.asarray((given + means).real)
    return values.mean(axis=0), values.std(axis=0) / np.sqrt(n_prompts)


PROMPTS = {16: 4096, 32: 2048, 64: 2048, 128: 1024, 256: 1024}


@pytest.mark.parametrize("later", [True, False], ids=["both at t", "one at 0"])
def test_covariances_fall_as_one_over_i(later):
    found = [[part[0 if later else 1] for part in covariances(n, p)] for n, p in PROMPTS.items()]
    slope, error = fitted_slope(list(PROMPTS), *zip(*found, strict=True))
    assert error < 0.02
    assert abs(slope + 1) < 0.1, (slope, error)


def test_covariances_with_the_start_are_those_of_the_limit():
    """With (1.18), and the distance to it a few times 1 / N."""
    exact = float(solve_correlations(MODEL, CODEWORDS, [TIME], 0.25).cross(TIME, 1.0, 1)[0].real)
    for n_tokens, n_prompts in PROMPTS.items():
        mean, error = covariances(n_tokens, n_prompts)
        assert n_tokens * error[1] < 0.005 * exact
        assert abs(n_tokens * mean[1] - exact) < 4 * n_tokens * error[1] + exact / n_tokens


def test_covariances_grow_slowly_with_the_distance():
    """At fixed i, from j = i / 2 down to j = i / 64: (3.3) allows e^{sqrt(C t log(i / j))}, no power of i / j.

    Those with the start are (1.18) at sigma_0 = j / i, to a part of 1 / j. Those of both at t grow by two thirds,
    where (i / j)^{1/2} would be 5.7 times as much.
    """
    n_tokens = 128
    grown = {}
    for ratio in (2, 4, 8, 16, 32, 64):
        mean, error = covariances(n_tokens, 1024, ratio)
        exact = float(solve_correlations(MODEL, CODEWORDS, [TIME], 1 / ratio).cross(TIME, 1.0, 1)[0].real)
        assert n_tokens * error[1] < 0.015 * exact
        assert abs(n_tokens * mean[1] - exact) < 4 * n_tokens * error[1] + 0.2 * exact * ratio / n_tokens, ratio
        grown[ratio] = n_tokens * mean[0], n_tokens * error[0]
    growth = grown[64][0] / grown[2][0]
    assert grown[64][1] / grown[64][0] < 0.08
    assert 1.2 < growth < 2.1, grown
