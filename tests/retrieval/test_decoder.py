import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import decode, hard_accuracy, soft_accuracy, soft_accuracy_fourier
from jaxkinetic.retrieval.window import window


def distance(a, b):
    return np.abs(np.angle(np.exp(1j * (a - b))))


@pytest.mark.parametrize("vocab_size", [2, 3, 8, 64])
def test_decoding_against_all_codewords(vocab_size):
    theta = np.random.default_rng(0).uniform(-30, 30, 500)
    codewords = 2 * np.pi * np.arange(vocab_size) / vocab_size
    nearest = np.argmin(distance(theta[:, None], codewords[None, :]), axis=1)
    np.testing.assert_array_equal(decode(jnp.asarray(theta), vocab_size), nearest)
    source = np.random.default_rng(1).integers(0, vocab_size, 500)
    got = hard_accuracy(jnp.asarray(theta), jnp.asarray(codewords[source]), vocab_size)
    assert float(got) == pytest.approx(np.mean(nearest == source), abs=1e-15)


def test_boundary_of_the_cell_counts():
    edge = jnp.asarray([np.pi / 8, -np.pi / 8, 2 * np.pi - np.pi / 8, np.pi / 8 + 1e-9])
    hits = [float(hard_accuracy(x[None], jnp.zeros(1), 8)) for x in edge]
    assert hits[:2] == [1, 1]
    assert hits[3] == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("vocab_size", [2, 3, 8, 64])
def test_angle_sum_equals_mode_sum(vocab_size, dtype):
    rng = np.random.default_rng(2)
    for last in (*rng.uniform(-100, 100, 40), 0.0, np.pi, -np.pi, 1e-9):
        pair = jnp.asarray(last, dtype), jnp.asarray(0.3, dtype)
        by_angles, by_modes = soft_accuracy(*pair, vocab_size), soft_accuracy_fourier(*pair, vocab_size)
        assert by_angles.dtype == by_modes.dtype == dtype
        assert abs(float(by_angles) - float(by_modes)) <= (1e-13 if dtype == np.float64 else 1e-5)


def test_soft_accuracy_as_written():
    last, source = 2.0, 5.5
    k = np.arange(-50, 51)
    exact = np.sum(np.exp(-(64 / (2 * np.pi**2)) * (last - source - 2 * np.pi * k) ** 2))
    assert float(soft_accuracy(jnp.asarray(last), jnp.asarray(source), 8)) == pytest.approx(exact, rel=1e-13)


def test_mean_is_over_all_prompts():
    last, source = jnp.asarray([[0.0, 0.1], [0.2, 3.0]]), jnp.zeros((2, 2))
    each = [float(soft_accuracy(x, jnp.asarray(0.0), 8)) for x in last.ravel()]
    assert float(soft_accuracy(last, source, 8)) == pytest.approx(np.mean(each), rel=1e-14)
    assert float(hard_accuracy(last, source, 8)) == 0.75


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vocab_size", [2, 3, 4, 5, 6, 8, 32])
def test_half_a_word_apart_is_within_it_however_it_is_rounded(vocab_size, dtype):
    """Prompts of 2 M words: (1.4) counts |u| = pi / M, of which rounding made a lottery."""
    words = jnp.asarray(2 * np.pi * np.arange(2 * vocab_size) / (2 * vocab_size), dtype)
    for shift in (1, -1):
        other = jnp.roll(words, shift)
        assert float(hard_accuracy(words, other, vocab_size)) == 1
        np.testing.assert_allclose(window(words - other, vocab_size, "hard"), (vocab_size - 1) / 2)
        assert float(hard_accuracy(words, other - shift * dtype(1e-3), vocab_size)) == 0


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize("score", [hard_accuracy, soft_accuracy, soft_accuracy_fourier])
def test_angles_that_are_no_numbers_are_refused(transform, score):
    good, bad = jnp.zeros(2), jnp.array([0.0, jnp.nan])
    for call, name in (
        (lambda x: decode(x, 4), "theta"),
        (lambda x: score(x, good, 4), "last"),
        (lambda x: score(good, x, 4), "source"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=f"Argument `{name}` must be finite"):
            jax.block_until_ready(transform(call)(bad))
