"""Chance and retrieval of any law: uniform prompts, codewords in closed form, smooth laws by hand."""

import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, CodewordPrompts, ExpCosine, Solve, UniformPrompts, retrieval_profile
from jaxkinetic.limit import Resolution, solve_correlations, solve_mean_field
from jaxkinetic.limit.closed_form import mode_weights, needed_modes
from jaxkinetic.retrieval.law_profile import law_profile, uniform_codeword_correction
from tests.limit.laws import CODEWORDS, SMOOTH, codeword_probabilities

MODEL = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
SOURCES = jnp.array([0.1, 0.5, 0.9])


def test_uniform_prompts_give_the_closed_form():
    size = Resolution(17, source_nodes=33, modes=32)
    profile = law_profile(MODEL, UniformPrompts(), 1.0, 4, sources=SOURCES, resolution=size)
    exact = retrieval_profile(MODEL, 1.0, 4, SOURCES)
    np.testing.assert_allclose(profile.values, exact.values, rtol=1e-10)
    np.testing.assert_allclose(profile.chance, np.sqrt(np.pi / 2) / 4, rtol=1e-12)
    np.testing.assert_allclose(profile.soft_accuracy(64), exact.soft_accuracy(64), rtol=1e-12)


def test_sources_a_few_at_a_time_are_those_all_at_once(monkeypatch):
    """Five sources, two at a time, in the order in which they were given."""
    size = Resolution(17, source_nodes=33, modes=32)
    sources = jnp.array([0.7, 0.1, 0.9, 0.3, 0.5])
    n_modes = needed_modes(4)
    # The function has the name of its module.
    monkeypatch.setattr(sys.modules[law_profile.__module__], "_ROWS", 2 * n_modes)
    profile = law_profile(MODEL, UniformPrompts(), 1.0, 4, sources=sources, resolution=size)
    np.testing.assert_allclose(profile.values, retrieval_profile(MODEL, 1.0, 4, sources).values, rtol=1e-10)
    np.testing.assert_array_equal(profile.sources, sources)


@pytest.mark.parametrize(("vocab_size", "beta"), [(2, 2.0), (3, 0.5), (8, 2.0)])
def test_uniform_codewords_give_their_closed_form(vocab_size, beta):
    model = CausalAttention(ExpCosine(beta), ALiBi(1.0))
    law = CodewordPrompts(np.full(vocab_size, 1 / vocab_size))
    profile = law_profile(model, law, 1.0, vocab_size, sources=SOURCES)
    exact = jax.vmap(lambda s: uniform_codeword_correction(model, jnp.ones(()), vocab_size, s))(SOURCES)
    np.testing.assert_allclose(profile.values, exact, rtol=1e-9, atol=1e-12)


def test_uniform_codewords_at_rest():
    """The law is stationary, so that chance sees its modes n = 0 mod M: w_M and so on."""
    profile = law_profile(MODEL, CodewordPrompts([0.25] * 4), 1.0, 4, sources=SOURCES)
    n = jnp.arange(1, 13)
    exact = np.sqrt(np.pi / 2) / 4 * (1 + 2 * jnp.sum(mode_weights(4, 12) * (n % 4 == 0)))
    np.testing.assert_allclose(profile.chance, exact, rtol=1e-12)


def test_fine_codewords_do_not_become_the_circle():
    """The bump (1.5) is as wide as the spacing of the codewords, however many there are.

    Modes n = +-1 mod M keep a share e^{-pi^2 / 2} (2 - 2 pi^2) n c_n of the circle's, here for small t.
    """
    time, source = jnp.asarray(1e-4), jnp.asarray(0.5)
    gaps = []
    for vocab_size in (16, 32, 64):
        circle = retrieval_profile(MODEL, time, vocab_size, source[None]).values[0]
        gaps.append(float(uniform_codeword_correction(MODEL, time, vocab_size, source) / circle - 1))
    assert gaps[-1] == pytest.approx(gaps[-2], abs=0.01)
    assert -0.3 < gaps[-1] < -0.1


@pytest.mark.parametrize("law", [SMOOTH, CODEWORDS])
def test_two_parts_add_up_from_marginals_and_covariances(law):
    size = Resolution(33, source_nodes=33, modes=96)
    profile = law_profile(MODEL, law, 1.0, 4, sources=SOURCES[1:], resolution=size)
    field = solve_mean_field(MODEL, law, [1.0], resolution=size)
    n_modes = 13
    modes = tuple(range(1, n_modes + 1))
    found = solve_correlations(MODEL, law, [1.0], SOURCES[1:], observable_mode=modes, resolution=size)
    cross = found.cross(1.0, 1.0)
    weights = mode_weights(4, n_modes)
    for i, source in enumerate(SOURCES[1:]):
        retrieval = sum(weights[n - 1] * cross[n - 1, i, n - 1].real for n in modes)
        assert profile.values[i] == pytest.approx(float(retrieval), rel=1e-9)
        product = jnp.conj(field.modes(1.0, 1.0)[:n_modes]) * law.fourier(source, n_modes)
        chance = np.sqrt(np.pi / 2) / 4 * (1 + 2 * jnp.sum(weights * product.real))
        assert profile.chance[i] == pytest.approx(float(chance), rel=1e-9)


def test_the_public_door_leads_here():
    """`retrieval_profile` with a law that is not uniform, against the closed form of uniform codewords."""
    law = CodewordPrompts([1 / 3] * 3)
    profile = retrieval_profile(MODEL, 1.0, 3, SOURCES, prompts=law)
    exact = jax.vmap(lambda s: uniform_codeword_correction(MODEL, jnp.ones(()), 3, s))(SOURCES)
    np.testing.assert_allclose(profile.values, exact, rtol=1e-9)


def test_gradients_in_beta_lam_and_the_law():
    """Of chance and of retrieval, in both modes, against differences of the same constant steps."""
    size = Resolution(17, source_nodes=17, modes=16, tolerance=1e-4)

    def observed(parameters, adjoint):
        beta, lam, tilt = parameters
        model = CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(lam))
        law = CodewordPrompts(lambda s: codeword_probabilities(s, tilt))
        options = Solve(solver=diffrax.Tsit5(), step=0.1, adjoint=adjoint)
        profile = law_profile(model, law, 0.5, 4, sources=jnp.array([0.4]), resolution=size, options=options)
        return jnp.stack([profile.chance[0], profile.values[0]])

    at, step = jnp.array([1.1, 0.6, 0.9]), 1e-4
    value = jax.jit(lambda p: observed(p, diffrax.RecursiveCheckpointAdjoint()))
    differences = np.stack([(value(at + d) - value(at - d)) / (2 * step) for d in step * jnp.eye(3)], axis=1)
    forward = jax.jit(jax.jacfwd(lambda p: observed(p, diffrax.ForwardMode())))(at)
    np.testing.assert_allclose(forward, differences, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacrev(value))(at), forward, rtol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 1}, "`vocab_size` must be at least 2"),
        ({"time": -1.0}, "`time` must be non-negative"),
        ({"sources": 0.3}, "`sources` must be a non-empty one-dimensional"),
        ({"sources": [0.3, 1.0]}, r"`sources` must lie in \(0, 1\)"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_bad_arguments_are_refused(change, message):
    arguments = {"model": MODEL, "prompts": CODEWORDS, "time": 1.0, "vocab_size": 4, "sources": SOURCES} | change
    with pytest.raises(ValueError, match=message):
        law_profile(**arguments)
