"""Fourier modes on the circle as real arrays, and products on a grid fine enough to have no aliasing.

A real density against d theta / 2 pi is its mean plus modes n = 1..K; the others are their conjugates.
Solvers carry real arrays with an axis (real part, imaginary part) before that of the modes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import round_up


def pack(modes: Complex[Array, "*shape mode"]) -> Float[Array, "*shape 2 mode"]:
    """Stack real and imaginary parts."""
    return jnp.stack([modes.real, modes.imag], axis=-2)


def unpack(parts: Float[Array, "*shape 2 mode"]) -> Complex[Array, "*shape mode"]:
    """Join real and imaginary parts."""
    return jax.lax.complex(parts[..., 0, :], parts[..., 1, :])


def grid_size(*bandwidths: int) -> int:
    """Number of angles on which products of series with these numbers of modes suffer no aliasing."""
    return round_up(sum(bandwidths) + 1, 16)


def synthesize(modes: Complex[Array, "*shape mode"], size: int, mean: float = 0.0) -> Float[Array, "*shape {size}"]:
    """Values mean + 2 Re sum_n c_n e^{i n theta} at ``size`` equispaced angles from 0 on."""
    if 8 * modes.shape[-1] <= size:
        # Sum few modes directly: a transform would be padded with zeros for the most part.
        phase = 2 * np.pi / size * np.outer(np.arange(1, modes.shape[-1] + 1), np.arange(size))
        cos, sin = (jnp.asarray(2 * wave(phase), modes.real.dtype) for wave in (np.cos, np.sin))
        return mean + jnp.matmul(modes.real, cos) - jnp.matmul(modes.imag, sin)
    spectrum = jnp.concatenate([jnp.full_like(modes[..., :1], mean), modes], axis=-1)
    return jnp.fft.irfft(spectrum, n=size, norm="forward")


def analyze(values: Float[Array, "*shape angle"], n_modes: int) -> Complex[Array, "*shape {n_modes}"]:
    """Modes n = 1..K of values at equispaced angles from 0 on."""
    return jnp.fft.rfft(values, norm="forward")[..., 1 : n_modes + 1]


def resize(modes: Complex[Array, "*shape mode"], n_modes: int) -> Complex[Array, "*shape {n_modes}"]:
    """Cut, or fill with zeros, to n = 1..n_modes."""
    modes = modes[..., :n_modes]
    return jnp.pad(modes, [(0, 0)] * (modes.ndim - 1) + [(0, n_modes - modes.shape[-1])])


def tail(modes: Complex[Array, "*shape mode"]) -> Float[Array, ""]:
    """Largest modulus among the last modes: an estimate of the truncation error."""
    n_modes = modes.shape[-1]
    return jnp.max(jnp.abs(modes[..., n_modes - max(2, n_modes // 16) :]))
