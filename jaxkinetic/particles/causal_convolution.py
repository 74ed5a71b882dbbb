"""The causal sum of any positional weight, for each mode at the cost of about one FFT over all tokens.

    y_j = sum_{k < j} b_{j - k} sum_n c_n sin(n (theta_j - theta_k))

Each mode needs one causal convolution of e^{-i n theta} with b. Lags within a block of `BLOCK` tokens go through a
triangular matrix; from then on `FAN` blocks make a larger one, within which every block acts on all later ones: one
transform a block forth and one back, products in between. There are log_FAN(N / BLOCK) such levels: three of them
reach 2^15 tokens, four 2^18. Measured from 2^12 to 2^18 tokens, it takes 1.2 to 1.8 times as long as a single
zero-padded FFT, and grows with N as that does.

That single FFT is not used because it rounds relative to the largest sum and not to each token's own: later tokens
leak into earlier ones. Measured at 2^14 tokens in single precision, relative to the sum of the token's own weights,
it errs by 1e-5 where b decays, by 1e-4 where b is constant and by 4e-2 where b grows e^8-fold; blocks, by 2e-8 to
1e-7 in each of these cases, and no token feels a later one, to the last bit.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import Angles

BLOCK = 64
FAN = 8


class SplitWeights(eqx.Module):
    """Weights b_d cut up for `convolve`.

    Attributes:
        triangle: b_{j-k} within a block, (BLOCK, BLOCK), zero for k >= j.
        spectra: for each size h of blocks the transforms of the lags that lead m blocks ahead, m = 1, 2, ...
    """

    triangle: Float[Array, "block block"]
    spectra: tuple[Complex[Array, "_ _"], ...]


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
    # Cut up once for all modes: the compiler does not move it out of the loop.
    split = split_weights(weights)

    def add_mode(state, coefficient):
        (c, s), total = state
        earlier_c, earlier_s = convolve(jnp.stack([c, s]), split)
        total = total + coefficient * (s * earlier_c - c * earlier_s)
        wave = jnp.stack([c * first[0] - s * first[1], s * first[0] + c * first[1]])
        return (wave, total), None

    (_, total), _ = jax.lax.scan(add_mode, (first, jnp.zeros_like(theta)), coefficients)
    return total


def causal_convolution(
    x: Float[Array, "pair token"], weights: Float[Array, " token"]
) -> Float[Array, "pair token"]:
    """Sums sum_{k < j} b_{j-k} x_k of two signals at once.

    Token j feels only tokens before it, to the last bit; b_0 must be 0.
    """
    return convolve(x, split_weights(weights))


def split_weights(weights: Float[Array, " token"]) -> SplitWeights:
    """Cut up the weights b_d at the lags d = 0..N-1, with b_0 = 0."""
    size = _padded(weights.shape[0])
    b = jnp.pad(weights, (0, size - weights.shape[0]))
    lag = np.arange(BLOCK)[None, :] - np.arange(BLOCK)[:, None]
    triangle = jnp.where(lag > 0, b[np.maximum(lag, 0)], 0)
    # A block of h tokens reaches the one m blocks ahead at lags (m - 1) h + 1 to (m + 1) h - 1.
    ahead = (jnp.stack([b[(m - 1) * h : (m + 1) * h] for m in range(1, fan)]) for h, fan in _levels(size))
    return SplitWeights(triangle, tuple(jnp.fft.fft(lags, axis=-1) for lags in ahead))


def convolve(x: Float[Array, "pair token"], weights: SplitWeights) -> Float[Array, "pair token"]:
    """As `causal_convolution`, with weights that are cut up already."""
    n_tokens = x.shape[-1]
    size = _padded(n_tokens)
    padded = jnp.pad(x, ((0, 0), (0, size - n_tokens)))
    near = jnp.matmul(padded.reshape(2, -1, BLOCK), weights.triangle, precision=jax.lax.Precision.HIGHEST)
    # Both signals are real, so that one complex transform carries them.
    signal, total = (jax.lax.complex(*pair) for pair in (padded, near.reshape(2, size)))
    for (h, fan), spectra in zip(_levels(size), weights.spectra, strict=True):
        total = total + _later_blocks(signal.reshape(-1, fan, h), spectra)
    return jnp.stack([jnp.real(total), jnp.imag(total)])[:, :n_tokens]


def _padded(n_tokens: int) -> int:
    size = BLOCK
    while size < n_tokens:
        size *= 2
    return size


def _levels(size: int) -> list[tuple[int, int]]:
    """Size h of the blocks at each level, and how many of them make one of the next."""
    levels, h = [], BLOCK
    while h < size:
        levels.append((h, min(FAN, size // h)))
        h *= levels[-1][1]
    return levels


def _later_blocks(
    blocks: Complex[Array, "group fan block"], spectra: Complex[Array, "ahead frequency"]
) -> Complex[Array, " all"]:
    """What the blocks of each group give to the later ones of the group."""
    fan, h = blocks.shape[1:]
    # Twice the length: what is kept, the second half, has wrapped nothing round.
    givers = jnp.fft.fft(blocks[:, :-1], 2 * h, axis=-1)
    takers = [sum(givers[:, j] * spectra[None, i - j - 1] for j in range(i)) for i in range(1, fan)]
    later = jnp.fft.ifft(jnp.stack(takers, axis=1), axis=-1)[..., h:]
    return jnp.pad(later, ((0, 0), (1, 0), (0, 0))).reshape(-1)
