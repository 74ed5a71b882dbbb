"""Laws of the prompts that several tests solve."""

import jax.numpy as jnp

from jaxkinetic import CodewordPrompts, DensityPrompts


def smooth_modes(sigma, strength=1.0):
    """f_o = 1 + 0.6 cos(theta - 2 sigma) + 0.2 sigma sin(2 theta)."""
    return strength * jnp.stack([0.3 * jnp.exp(-2j * sigma), -0.1j * sigma])


def codeword_probabilities(sigma, tilt=1.0):
    """p = (0.4 - 0.2 s, 0.3, 0.2 - 0.1 s, 0.1 + 0.3 s)."""
    constant = jnp.array([0.4, 0.3, 0.2, 0.1])
    return constant + tilt * sigma * jnp.array([-0.2, 0.0, -0.1, 0.3])


SMOOTH = DensityPrompts(smooth_modes)
CODEWORDS = CodewordPrompts(codeword_probabilities)
