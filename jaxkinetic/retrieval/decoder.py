"""The decoder: nearest codeword, hard accuracy (1.4), soft accuracy (1.5) and its Fourier form (1.6)."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import check_at_least, check_finite
from jaxkinetic.limit.closed_form import mode_weights, needed_modes
from jaxkinetic.retrieval.window import within_half_word, wrap


def decode(theta: Float[Array, "*shape"], vocab_size: int) -> Int[Array, "*shape"]:
    """Return the codeword m in 0..M-1 whose angle 2 pi m / M is nearest to theta on the circle.

    Args:
        theta: angles in radians.
        vocab_size: vocabulary size M >= 2.

    Example:
        >>> jk.decode(jnp.array([0.1, 3.0, -0.1]), 4).tolist()
        [0, 2, 0]
    """
    check_at_least("vocab_size", vocab_size, 2)
    check_sensible(vocab_size=vocab_size)
    theta = check_finite("theta", theta)
    return jnp.round(theta * vocab_size / (2 * math.pi)).astype(int) % vocab_size


def hard_accuracy(
    last: Float[Array, "*shape"], source: Float[Array, "*shape"], vocab_size: int
) -> Float[Array, ""]:
    """Fraction of prompts whose last token ends within pi / M of the source's codeword (1.4).

    Args:
        last: final angles theta_N(t), radians, any shape of prompts.
        source: initial angles theta_{i*}(0) of the same prompts.
        vocab_size: vocabulary size M >= 2.

    Example:
        >>> last, source = jnp.array([0.1, 1.5, 3.0]), jnp.array([0.0, 0.0, jnp.pi])
        >>> print(f"{jk.hard_accuracy(last, source, 4):.3f}")
        0.667
    """
    check_at_least("vocab_size", vocab_size, 2)
    check_sensible(vocab_size=vocab_size)
    last, source = check_finite("last", last), check_finite("source", source)
    u = wrap(last - source)
    return jnp.mean(within_half_word(u, vocab_size).astype(u.dtype))


def soft_accuracy(
    last: Float[Array, "*shape"], source: Float[Array, "*shape"], vocab_size: int
) -> Float[Array, ""]:
    """Mean periodic Gaussian of the distance to the source (1.5), summed over the images of the circle.

    E sum_k exp(-(M^2 / 2 pi^2) (theta_N(t) - theta_{i*}(0) - 2 pi k)^2)

    Args:
        last: final angles theta_N(t), radians, any shape of prompts.
        source: initial angles theta_{i*}(0) of the same prompts.
        vocab_size: vocabulary size M >= 2.

    Example:
        >>> last, source = jnp.array([0.1, 1.5, 3.0]), jnp.array([0.0, 0.0, jnp.pi])
        >>> print(f"{jk.soft_accuracy(last, source, 4):.4f}")
        0.7124
    """
    check_at_least("vocab_size", vocab_size, 2)
    check_sensible(vocab_size=vocab_size)
    last, source = check_finite("last", last), check_finite("source", source)
    images = 2 * math.pi * jnp.arange(-6, 7)
    distance = jnp.subtract.outer(wrap(last - source), images)
    return jnp.mean(jnp.sum(jnp.exp(-((vocab_size * distance / math.pi) ** 2) / 2), axis=-1))


def soft_accuracy_fourier(
    last: Float[Array, "*shape"], source: Float[Array, "*shape"], vocab_size: int
) -> Float[Array, ""]:
    """The same soft accuracy by Fourier modes (1.6).

    (sqrt(pi / 2) / M) (1 + 2 sum_{n >= 1} e^{-pi^2 n^2 / 2 M^2} E cos(n (theta_N(t) - theta_{i*}(0))))

    Example:
        >>> last, source = jnp.array([0.1, 1.5, 3.0]), jnp.array([0.0, 0.0, jnp.pi])
        >>> print(f"{jk.soft_accuracy_fourier(last, source, 4):.4f}")
        0.7124
    """
    check_at_least("vocab_size", vocab_size, 2)
    check_sensible(vocab_size=vocab_size)
    last, source = check_finite("last", last), check_finite("source", source)
    weights = mode_weights(vocab_size, needed_modes(vocab_size))
    n = jnp.arange(1, weights.size + 1)
    # Wrapped first: n times a large angle would lose digits.
    waves = jnp.cos(jnp.multiply.outer(wrap(last - source), n)) @ weights
    return math.sqrt(math.pi / 2) / vocab_size * jnp.mean(1 + 2 * waves)
