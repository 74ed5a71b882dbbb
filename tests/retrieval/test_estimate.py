"""Estimates from particles against expectations that are sums over every prompt of three tokens."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.retrieval.window import window_modes
from tests.limit.laws import CODEWORDS, SMOOTH, codeword_probabilities, smooth_modes

MODEL = jk.CausalAttention(jk.ExpCosine(1.2), jk.ALiBi(0.7))
TIME, WORDS, KEY = 0.8, 4, jax.random.key(3)
UNIFORM = jk.UniformPrompts()


def exact(law):
    """S_3 at both sources: every prompt of three tokens on a grid, or of all codewords, weighted by its law."""
    if law is CODEWORDS:
        angles = np.asarray(law.atoms)
        weights = [np.asarray(codeword_probabilities(j / 3)) for j in (1, 2, 3)]
    else:
        angles = 2 * np.pi * np.arange(48) / 48
        weights = [
            np.full(48, 1 / 48)
            if law is UNIFORM
            else np.asarray(
                1 + 2 * np.real(np.exp(1j * np.outer(angles, [1, 2])) @ np.asarray(smooth_modes(j / 3)))
            )
            / 48
            for j in (1, 2, 3)
        ]
    grid = np.array(list(itertools.product(angles, repeat=3)))
    p = np.multiply.outer(np.multiply.outer(weights[0], weights[1]), weights[2]).ravel()
    run = jax.jit(jax.vmap(lambda x: jk.simulate(MODEL, x, [TIME], drift=jk.pairwise_drift).angles[0, -1]))
    last = np.concatenate([np.asarray(run(jnp.asarray(part))) for part in np.array_split(grid, 32)])
    n = np.arange(1, 20)
    w = np.asarray(window_modes(WORDS, "soft", n.size))
    ends = np.exp(1j * np.outer(last, n))
    values = []
    for i in (0, 1):
        phi = np.exp(-1j * np.outer(grid[:, i], n))
        covariance = p @ (ends * phi) - (p @ ends) * (p @ phi)
        values.append(3 * np.sum(w * np.real(covariance)))
    return np.array(values)


@pytest.mark.parametrize(
    ("law", "estimator", "n_prompts", "plain_error"),
    [
        (UNIFORM, "naive", 32768, 0.03),
        (UNIFORM, "glauber", 16384, 0.03),
        (UNIFORM, "adjoint", 16384, 0.02),
        (SMOOTH, "naive", 32768, 0.03),
        (SMOOTH, "glauber", 16384, 0.03),
        (SMOOTH, "adjoint", 16384, 0.03),
        (CODEWORDS, "naive", 32768, 0.03),
        (CODEWORDS, "glauber", 16384, 0.03),
    ],
)
@pytest.mark.slow
def test_every_estimator_is_unbiased(law, estimator, n_prompts, plain_error):
    """With and without control variate, within 4 standard errors that would show a bias of 3 per cent."""
    truth = exact(law)
    for control in (False, True):
        found = jk.estimate_profile(
            MODEL,
            TIME,
            WORDS,
            3,
            n_prompts=n_prompts,
            key=KEY,
            prompts=law,
            estimator=estimator,
            control_variate=control,
            sources=[0.3, 0.6],
        )
        assert found.control_variate is control
        assert found.estimator == estimator
        assert np.all(found.standard_error < plain_error * max(1.0, np.abs(truth).max())), found.standard_error
        assert np.all(np.abs(found.values - truth) < 4 * found.standard_error), (found.values, truth)


@pytest.mark.slow
def test_adjoint_of_uniform_prompts_against_the_sum_over_prompts():
    truth = exact(UNIFORM)
    for control in (False, True):
        found = jk.estimate_profile(MODEL, TIME, WORDS, 3, n_prompts=4096, key=KEY, control_variate=control)
        np.testing.assert_allclose(found.sources, [1 / 3, 2 / 3])
        assert np.all(np.abs(found.values - truth) < 4 * found.standard_error), (found.values, truth)
        assert np.all(found.standard_error < 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["glauber", "adjoint"])
def test_hard_accuracy_is_that_of_the_decoder(estimator):
    """2 c S / N is the covariance part of (1.4): by how much hits exceed one in M, uniform prompts."""
    n_prompts = 1 << 16
    found = jk.estimate_profile(
        MODEL,
        TIME,
        WORDS,
        3,
        n_prompts=n_prompts,
        key=KEY,
        estimator=estimator,
        sources=[0.3, 0.6],
        accuracy="hard",
    )
    starts = jax.vmap(lambda p: UNIFORM.sample(jax.random.fold_in(jax.random.key(8), p), 3))(jnp.arange(n_prompts))
    ends = jax.jit(jax.vmap(lambda x: jk.simulate(MODEL, x, [TIME], jk.Solve(rtol=1e-6)).angles[0, -1]))(starts)
    for i in (0, 1):
        hits = float(jk.hard_accuracy(ends, starts[:, i], WORDS))
        error = np.hypot(np.sqrt(hits * (1 - hits) / n_prompts), found.standard_error[i] / (2 * 3))
        assert abs(hits - 1 / WORDS - found.retrieval()[i]) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize(("n_tokens", "plain", "controlled"), [(64, 5e2, 3e3), (256, 8e3, 2e5), (1024, 1e5, 1e7)])
def test_variance_falls_as_far_as_promised(n_tokens, plain, controlled):
    """Against naive at beta = lam = t = 1, M = 8, median over the sources from 0.1 to 0.9."""
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    middle = slice(n_tokens // 10, 9 * n_tokens // 10)
    cases: tuple[tuple[str, bool], ...] = (("naive", False), ("adjoint", False), ("adjoint", True))
    variance = [
        np.median(
            jk.estimate_profile(
                model, 1.0, 8, n_tokens, n_prompts=128, key=KEY, estimator=estimator, control_variate=control,
                n_steps=3,
            ).standard_error[middle] ** 2
        )
        for estimator, control in cases
    ]  # fmt: skip
    assert variance[0] / variance[1] >= plain
    assert variance[0] / variance[2] >= controlled


@pytest.mark.parametrize(("estimator", "n_prompts"), [("naive", 2**15), ("glauber", 4096), ("adjoint", 2048)])
def test_profile_of_two_tokens_is_that_of_a_double_integral(estimator, n_prompts):
    """Two uniform tokens in closed form, tan(d / 2) decaying; each estimator without its control."""
    model = jk.CausalAttention(jk.FourierKernel([0.9]), jk.ALiBi(1.0))
    n = 4096
    start = 2 * np.pi * (np.arange(n) + 0.5) / n
    # From the first token at zero the second ends at this angle; the mean over both is that over their distance.
    end = 2 * np.arctan(np.tan(start / 2) * np.exp(-2 * 0.9 * TIME))
    modes = np.arange(1, 20)
    exact = 2 * np.asarray(window_modes(WORDS, "soft", modes.size)) @ np.cos(np.outer(modes, end)).mean(axis=1)
    found = jk.estimate_profile(
        model,
        TIME,
        WORDS,
        2,
        n_prompts=n_prompts,
        key=KEY,
        estimator=estimator,
        control_variate=False,
        sources=[0.5],
    )
    assert found.standard_error[0] < 0.04 * exact
    assert abs(found.values[0] - exact) < 4 * found.standard_error[0]


# Arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["naive", "glauber", "adjoint"])
def test_prompts_at_once_change_nothing(estimator):
    """One prompt at a time, and all of them."""
    one, many = (
        jk.estimate_profile(
            MODEL,
            TIME,
            WORDS,
            12,
            n_prompts=96,
            key=KEY,
            prompts=UNIFORM,
            estimator=estimator,
            sources=[0.3, 0.6],
            n_steps=4,
            memory=memory,
        )
        for memory in (1.0, 2.0**30)
    )
    np.testing.assert_allclose(one.values, many.values, rtol=1e-12)
    np.testing.assert_allclose(one.standard_error, many.standard_error, rtol=1e-12)


def test_auto_takes_what_is_valid_and_says_which():
    def chosen(law, **more):
        return jk.estimate_profile(MODEL, 0.3, 3, 4, n_prompts=32, key=KEY, prompts=law, n_steps=2, **more)

    assert chosen(UNIFORM).estimator == "adjoint"
    codewords = chosen(CODEWORDS, sources=[0.3])
    assert (codewords.estimator, codewords.control_variate) == ("glauber", True)
    clusters = chosen(jk.ClusterPrompts([0.5, 2.0], 0.1))
    assert (clusters.estimator, clusters.control_variate) == ("glauber", False)


@pytest.mark.parametrize(("accuracy", "scale"), [("soft", np.sqrt(2 * np.pi)), ("hard", 2.0)])
def test_retrieval_is_the_profile_in_units_of_the_decoder(accuracy, scale):
    """2 c / N of the profile, c = sqrt(pi / 2) / M of (1.6), and 1 / M of the decoder (1.4)."""
    found = jk.estimate_profile(
        MODEL, TIME, WORDS, 6, n_prompts=32, key=KEY, accuracy=accuracy, n_steps=4, control_variate=False
    )
    np.testing.assert_allclose(found.retrieval(), scale / (WORDS * 6) * found.values, rtol=1e-12)


def test_constant_steps_are_found_and_their_error_is_told():
    found = jk.estimate_profile(MODEL, 3.0, 4, 8, n_prompts=1024, key=KEY)
    fixed = jk.estimate_profile(MODEL, 3.0, 4, 8, n_prompts=1024, key=KEY, n_steps=2 * found.n_steps)
    difference = np.sqrt(np.mean((found.values - fixed.values) ** 2))
    assert found.step_error < 0.05 * found.standard_error.max()
    assert difference <= 2 * found.step_error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": 0.0}, "`time` must be positive"),
        ({"vocab_size": 1}, "`vocab_size` must be at least 2"),
        ({"n_tokens": 1}, "`n_tokens` must be at least 2"),
        ({"n_prompts": 0}, "`n_prompts` must be at least 1"),
        ({"estimator": "magic"}, "`estimator` must be one of auto, naive, glauber, adjoint, but is 'magic'"),
        ({"prompts": CODEWORDS, "estimator": "adjoint"}, "`estimator` must not be 'adjoint' for CodewordPrompts"),
        ({"prompts": SMOOTH, "estimator": "adjoint", "accuracy": "hard"}, "`estimator` must not be 'adjoint'"),
        ({"prompts": jk.DensityPrompts([0.5]), "estimator": "adjoint"}, "density that falls to"),
        ({"accuracy": "firm"}, "`accuracy` must be one of soft, hard, but is 'firm'"),
        ({"estimator": "glauber", "accuracy": "hard", "control_variate": True}, "`control_variate` must be False"),
        ({"prompts": jk.ClusterPrompts([0.5], 0.1), "control_variate": True}, "`control_variate` must be False"),
        ({"sources": [0.0]}, r"`sources` must lie in \(0, 1\)"),
        ({"sources": [0.2, 0.21]}, "0.2 and 0.21 both name token 2 of N = 8"),
        ({"sources": [0.1, 0.95]}, "0.95 names the last of N = 8"),
        ({"sources": np.linspace(0.1, 0.8, 8)}, "N = 8 is too small for 8 `sources`"),
        ({"sources": [0.99]}, "0.99 names the last of N = 8"),
        ({"sources": []}, "`sources` must be a non-empty one-dimensional array"),
        ({"prompts": "uniform"}, "`prompts` must be a PromptLaw"),
        ({"n_steps": 0}, "`n_steps` must be at least 1"),
        ({"n_steps": 1000}, "`n_steps` must be at most 128"),
        ({"first": 5}, "`first` must be a multiple of 32"),
        ({"devices": []}, "`devices` must hold at least one device"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_bad_arguments_are_refused(change, message):
    arguments = {"time": 1.0, "vocab_size": 4, "n_tokens": 8, "n_prompts": 32, "key": KEY, "n_steps": 2} | change
    with pytest.raises(ValueError, match=message):
        jk.estimate_profile(MODEL, **arguments)
