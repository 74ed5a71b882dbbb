"""Causal averages under any positional weight b, for each mode at the cost of about one FFT over all tokens.

    y_j = sum_{k < j} omega_{jk} h(theta_j - theta_k),    omega_{jk} = b_{j-k} / B_j,    B_j = b_1 + ... + b_{j-1},

for trigonometric series h. Each mode needs one causal convolution of e^{-i n theta} with b.

An FFT rounds relative to the largest weight among its lags, while token j must be right relative to its own total
B_j. So no transform may hold a lag that a token which it serves does not reach. Lags are cut accordingly:

- within a block of `BLOCK` tokens, a triangular matrix;
- from the first block to all later tokens, whose longest lags these are, a matrix as well;
- otherwise blocks of h tokens act on later blocks by transforms, at levels h = BLOCK, BLOCK FAN, BLOCK FAN^2, ...
  At each level, blocks of one group of FAN act on the later ones of the group; only the blocks 1, ..., FAN - 1 of
  the first group act on all later blocks, since those of higher levels must not hold the first block's lags.

Three levels reach 2^15 tokens, four 2^18. Weights enter by their logarithms, so that they may span any range.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import Angles

BLOCK = 64
FAN = 8


class Level(NamedTuple):
    """Lags between blocks of h tokens, by the transforms of their weights over those of the receiving block.

    Attributes:
        from_first: from block j of the first group, j = 1, ..., FAN - 1, to every block i, zero for i <= j.
        in_group: from block j of a group to its block i, zero for i <= j.
        in_group_scale: factor of the latter for every block of the later groups.
        scale: factor of each token's sum.
    """

    from_first: Complex[Array, "giver blocks frequency"]
    in_group: Complex[Array, "fan fan frequency"]
    in_group_scale: Float[Array, "group fan"]
    scale: Float[Array, " token"]


class SplitWeights(NamedTuple):
    """Normalised weights, cut up for `convolve`.

    Attributes:
        near: omega_{jk} within a block over ``near_scale``, (BLOCK, BLOCK), row k, column j.
        near_scale: factor of each token's sum within its block.
        first: omega_{jk} of the first block's tokens k for all tokens beyond it, (BLOCK, N - BLOCK).
        levels: lags between blocks, level by level.
    """

    near: Float[Array, "block block"]
    near_scale: Float[Array, " token"]
    first: Float[Array, "block later"]
    levels: tuple[Level, ...]


def convolved_average(
    theta: Angles,
    series: Float[Array, "kernel mode"],
    log_weights: Float[Array, " token"],
    parities: tuple[str, ...],
) -> Float[Array, "kernel token"]:
    """Average trigonometric series over all earlier tokens, sum_{k<j} omega_{jk} h(theta_j - theta_k).

    Args:
        theta: angles in radians, (N,).
        series: coefficients c_n of each h, (H, K).
        log_weights: log b_d at the lags d = 0..N-1; the one at 0 is not used.
        parities: for each h ``"even"``, sum_n c_n cos(n x), or ``"odd"``, sum_n c_n sin(n x).

    Returns:
        One average per series and token, (H, N). Differentiable in all arguments, in forward and reverse mode.
    """
    first = jnp.stack([jnp.cos(theta), jnp.sin(theta)])
    # Cut up once for all modes: the compiler does not move it out of the loop.
    weights = split_weights(log_weights)

    def add_mode(state, coefficients):
        (c, s), totals = state
        earlier_c, earlier_s = convolve(jnp.stack([c, s]), weights)
        values = {"even": c * earlier_c + s * earlier_s, "odd": s * earlier_c - c * earlier_s}
        totals = tuple(
            total + a * values[parity] for total, a, parity in zip(totals, coefficients, parities, strict=True)
        )
        wave = jnp.stack([c * first[0] - s * first[1], s * first[0] + c * first[1]])
        return (wave, totals), None

    start = (first, (jnp.zeros_like(theta),) * len(parities))
    (_, totals), _ = jax.lax.scan(add_mode, start, series.T)
    return jnp.stack(totals)


def causal_convolution(
    x: Float[Array, "pair token"], log_weights: Float[Array, " token"]
) -> Float[Array, "pair token"]:
    """Averages sum_{k < j} omega_{jk} x_k of two signals at once.

    Token j feels only tokens before it, to the last bit.
    """
    return convolve(x, split_weights(log_weights))


def split_weights(log_weights: Float[Array, " token"]) -> SplitWeights:
    """Normalise and cut up the weights b_d, given by log b_d at the lags d = 0..N-1."""
    n_tokens, size = log_weights.shape[0], _padded(log_weights.shape[0])
    # Lag 0 carries no weight; lags past the prompt only reach tokens past it.
    log_b = jnp.pad(log_weights[1:], (1, size - n_tokens), mode="edge")
    log_b = log_b - jax.lax.stop_gradient(jnp.max(log_b))
    log_totals = jnp.concatenate([log_b[:1], jax.lax.cumlogsumexp(log_b[1:])])
    largest = jax.lax.stop_gradient(jax.lax.cummax(log_b))
    place = np.arange(BLOCK)
    lag = place[None, :] - place[:, None]
    near = jnp.where(lag > 0, jnp.exp(log_b[np.maximum(lag, 0)] - largest[None, :BLOCK]), 0)
    near_scale = jnp.exp(jnp.tile(largest[:BLOCK], size // BLOCK) - log_totals)
    later = np.arange(BLOCK, size)
    first = jnp.exp(log_b[later[None, :] - place[:, None]] - log_totals[None, later])
    levels = tuple(_level(log_b, largest, log_totals, h, fan) for h, fan in _levels(size))
    return SplitWeights(near, near_scale, first, levels)


def _level(
    log_b: Float[Array, " token"],
    largest: Float[Array, " token"],
    log_totals: Float[Array, " token"],
    h: int,
    fan: int,
) -> Level:
    n_blocks = log_b.shape[0] // h
    blocks = log_b.reshape(n_blocks, h)
    # A block that acts m blocks ahead does so at the lags (m - 1) h + 1 to (m + 1) h - 1.
    lags = jnp.concatenate([blocks[:-1], blocks[1:]], axis=1)
    log_scale = jax.lax.stop_gradient(jnp.max(lags, axis=1))
    spectra = jnp.fft.fft(jnp.exp(lags - log_scale[:, None]).at[0, 0].set(0.0), axis=-1)
    # The largest weight up to i blocks ahead: no more than the total of any token that lies so far from the first.
    bound = jnp.concatenate([largest[:1], largest[h - 1 :: h][:-1]])

    def between(givers: np.ndarray, takers: np.ndarray) -> Array:
        ahead = takers[None, :] - givers[:, None] - 1
        share = jnp.exp(jnp.where(ahead < 0, -jnp.inf, log_scale[ahead] - bound[None, takers]))
        return spectra[ahead] * share[:, :, None]

    group = np.arange(fan)
    return Level(
        between(group[1:], np.arange(n_blocks)),
        between(group, group),
        jnp.exp(bound[None, :fan] - bound[fan:].reshape(-1, fan)),
        jnp.exp(jnp.repeat(bound, h) - log_totals),
    )


def convolve(x: Float[Array, "pair token"], weights: SplitWeights) -> Float[Array, "pair token"]:
    """As `causal_convolution`, with weights that are cut up already."""
    n_tokens = x.shape[-1]
    size = _padded(n_tokens)
    padded = jnp.pad(x, ((0, 0), (0, size - n_tokens)))
    near = _matmul(padded.reshape(2, -1, BLOCK), weights.near).reshape(2, size) * weights.near_scale[None]
    first = jnp.pad(_matmul(padded[:, :BLOCK], weights.first), ((0, 0), (BLOCK, 0)))
    # Both signals are real, so that one complex transform carries them.
    signal, total = (jax.lax.complex(*pair) for pair in (padded, near + first))
    for (h, fan), level in zip(_levels(size), weights.levels, strict=True):
        total = total + level.scale * _between_blocks(signal.reshape(-1, h), fan, level)
    return jnp.stack([jnp.real(total), jnp.imag(total)])[:, :n_tokens]


def _between_blocks(blocks: Complex[Array, "blocks h"], fan: int, level: Level) -> Complex[Array, " token"]:
    """What blocks give to later ones of their group, and those of the first group to all later ones."""
    h = blocks.shape[1]
    # Twice the length: what is kept, the second half, has wrapped nothing round.
    givers = jnp.fft.fft(blocks, 2 * h, axis=-1)
    taken = jnp.sum(givers[1:fan, None, :] * level.from_first, axis=0)
    if blocks.shape[0] > fan:
        groups = givers[fan:].reshape(-1, fan, 1, 2 * h)
        inside = jnp.sum(groups * level.in_group[None], axis=1) * level.in_group_scale[:, :, None]
        taken = taken.at[fan:].add(inside.reshape(-1, 2 * h))
    return jnp.fft.ifft(taken, axis=-1)[:, h:].reshape(-1)


def _matmul(a: Array, b: Array) -> Array:
    # On accelerators the default would round the factors to bfloat16 or TF32.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


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
