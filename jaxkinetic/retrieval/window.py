"""The decoder's window h(u) = sum_{n >= 1} w_n cos(n u), soft or hard, and its mean over a law of the source.

The accuracy (1.4) or (1.5) is c (1 + 2 E h(theta_N(t) - theta_i(0))), with c = 1 / M for the hard decoder,
w_n = sin(pi n / M) / (pi n / M), and c = sqrt(pi / 2) / M for the soft one, w_n = e^{-pi^2 n^2 / (2 M^2)}.
"""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxkinetic.limit.closed_form import mode_weights, needed_modes

Accuracy = Literal["soft", "hard"]
_IMAGES = 2
# Of an angle, which is a few units in its last place.
_ROUNDINGS = 32


def level(accuracy: Accuracy, vocab_size: int) -> float:
    """Accuracy c of a last token uniform on the circle."""
    return (math.sqrt(math.pi / 2) if accuracy == "soft" else 1.0) / vocab_size


def window(u: Float[Array, "*shape"], vocab_size: int, accuracy: Accuracy) -> Float[Array, "*shape"]:
    """Evaluate h(u), by images of the Gaussian or by the indicator of |u| <= pi / M."""
    u = wrap(u)
    if accuracy == "hard":
        return (vocab_size * within_half_word(u, vocab_size).astype(u.dtype) - 1) / 2
    gauss = jnp.sum(jnp.exp(-((vocab_size * _images(u) / math.pi) ** 2) / 2), axis=-1)
    return (vocab_size / math.sqrt(math.pi / 2) * gauss - 1) / 2


def within_half_word(u: Float[Array, "*shape"], vocab_size: int) -> Bool[Array, "*shape"]:
    """Whether |u| <= pi / M, u wrapped: differences of codewords that are a half word, but for rounding, are."""
    return jnp.abs(u) <= math.pi / vocab_size + _ROUNDINGS * jnp.finfo(u.dtype).eps


def window_slope(u: Float[Array, "*shape"], vocab_size: int) -> Float[Array, "*shape"]:
    """Evaluate h'(u) of the soft decoder."""
    factor = (vocab_size / math.pi) ** 2
    x = _images(wrap(u))
    slope = -factor * jnp.sum(x * jnp.exp(-factor * x**2 / 2), axis=-1)
    return vocab_size / math.sqrt(2 * math.pi) * slope


def window_modes(vocab_size: int, accuracy: Accuracy, n_modes: int | None = None) -> Float[Array, " mode"]:
    """Coefficients w_n, n = 1..K; K is enough for double precision of the soft decoder if not given."""
    if accuracy == "soft":
        return mode_weights(vocab_size, n_modes or needed_modes(vocab_size))
    return jnp.sinc(jnp.arange(1, (n_modes or needed_modes(vocab_size)) + 1) / vocab_size)


def wrap(angle: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same angle in [-pi, pi]."""
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))


def _images(u):
    turns = 2 * math.pi * jnp.arange(-_IMAGES, _IMAGES + 1, dtype=u.dtype)
    return jnp.subtract.outer(u, turns)
