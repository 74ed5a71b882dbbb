"""The causal sum of any positional weight, in O(N log^2 N) for each mode.

    y_j = sum_{k < j} b_{j - k} sum_n c_n sin(n (theta_j - theta_k))

Each mode needs one causal convolution of e^{-i n theta} with b. Lags within a block of `BLOCK` tokens go through a
triangular matrix; from then on blocks double: the first half of a block acts on its second half by one FFT. A plain
FFT over all tokens would let later tokens leak into earlier ones by rounding, and, where b grows, drown them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Angles

BLOCK = 32


def convolved_sines(
    theta: Angles, coefficients: Float[Array, " mode"], weights: Float[Array, " token"]
) -> Float[Array, " token"]:
    """Sum a sine series over all earlier tokens, sum_{k<j} b_{j-k} sum_n c_n sin(n (theta_j - theta_k)).

    Args:
        theta: angles in radians, (N,).
        coefficients: c_n, n = 1..K.
        weights: b_d at the lags d = 0..N-1, with b_0 = 0.

    Returns:
        One sum per token, (N,). Differentiable in all arguments, in forward and reverse mode.
    """
    first = jnp.stack([jnp.cos(theta), jnp.sin(theta)])

    def add_mode(state, coefficient):
        (c, s), total = state
        earlier_c, earlier_s = causal_convolution(jnp.stack([c, s]), weights)
        total = total + coefficient * (s * earlier_c - c * earlier_s)
        wave = jnp.stack([c * first[0] - s * first[1], s * first[0] + c * first[1]])
        return (wave, total), None

    (_, total), _ = jax.lax.scan(add_mode, (first, jnp.zeros_like(theta)), coefficients)
    return total


def causal_convolution(
    x: Float[Array, "pair token"], weights: Float[Array, " token"]
) -> Float[Array, "pair token"]:
    """Sums sum_{k < j} b_{j-k} x_k of two signals at once.

    Token j feels only tokens before it, to the last bit, and lags below 2 j; b_0 must be 0.
    """
    n_tokens = x.shape[-1]
    size = BLOCK
    while size < n_tokens:
        size *= 2
    padded = jnp.pad(x, ((0, 0), (0, size - n_tokens)))
    b = jnp.pad(weights, (0, size - n_tokens))
    lag = np.arange(BLOCK)[None, :] - np.arange(BLOCK)[:, None]
    triangle = jnp.where(lag > 0, b[np.maximum(lag, 0)], 0)
    blocks = padded.reshape(2, -1, BLOCK)
    total = jnp.matmul(blocks, triangle, precision=jax.lax.Precision.HIGHEST).reshape(2, size)
    half = BLOCK
    while 2 * half <= size:
        total = total + _second_halves(padded, b, half)
        half *= 2
    return total[:, :n_tokens]


def _second_halves(x: Array, b: Array, half: int) -> Array:
    """What the first half of every block of 2 half tokens gives to its second half; zero in the first."""
    # Both signals are real, so that one complex transform carries them.
    blocks = x.reshape(2, -1, 2, half)[:, :, 0]
    signal = jax.lax.complex(blocks[0], blocks[1])
    length = 2 * half
    # Outputs half..length-1 need lags 1..length-1, and wrap nothing round.
    spectrum = jnp.fft.fft(b[:length])
    product = jnp.fft.fft(signal, length, axis=-1) * spectrum[None, :]
    later = jnp.fft.ifft(product, axis=-1)[:, half:]
    halves = jnp.stack([jnp.zeros_like(later), later], axis=1).reshape(-1)
    return jnp.stack([jnp.real(halves), jnp.imag(halves)])
