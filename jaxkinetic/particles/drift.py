"""The velocity of (1.1): in linear time through Fourier modes, and over all pairs as the reference."""

import jax
import jax.numpy as jnp

from jaxkinetic._types import Angles, check_angles, is_concrete
from jaxkinetic.model import CausalAttention
from jaxkinetic.particles.causal_sum import causal_sum, weight_totals


def spectral_drift(model: CausalAttention, theta: Angles) -> Angles:
    """Velocity of every token in O(N K), from w'(x) = -2 sum_n n w^(n) sin(n x).

    v_j = sum_{k < j} omega_{jk} w'(theta_j - theta_k), and v_1 = 0.

    Args:
        model: kernel and positional weights.
        theta: angles in radians, (N,). For many prompts use `jax.vmap`.

    Returns:
        Velocities d theta_j / dt of (1.1), (N,). Differentiable in theta, beta and lam, in forward and
        reverse mode.

    Raises:
        RuntimeError: if beta is traced and the kernel's modes do not resolve it.
    """
    check_angles("theta", theta)
    if not is_concrete(*jax.tree.leaves(model.kernel)):
        theta = model.check_resolved(theta)
    return velocity(model, theta)


def velocity(model: CausalAttention, theta: Angles) -> Angles:
    """The same as `spectral_drift` without its checks, for inner loops whose door has made them."""
    n = jnp.arange(1, model.kernel.n_modes + 1)
    series = (-2 * n * model.kernel.coefficients()).astype(theta.dtype)
    decay, growth = model.positions.exponents(theta.shape[0])
    exponents = decay.astype(theta.dtype), growth.astype(theta.dtype)
    forces = causal_sum(theta, series[None], exponents, ("odd",))[0]
    totals = weight_totals(theta.shape[0], exponents)
    return forces / jnp.where(totals > 0, totals, 1)


def pairwise_drift(model: CausalAttention, theta: Angles) -> Angles:
    """Velocity of every token over all pairs, O(N^2): (1.1) as it stands, the reference.

    Args:
        model: kernel and positional weights.
        theta: angles in radians, (N,).

    Returns:
        Velocities d theta_j / dt of (1.1), (N,).
    """
    weights = model.positions.weights(theta.shape[0]).astype(theta.dtype)
    force = model.kernel.derivative(theta[:, None] - theta[None, :])
    return jnp.sum(weights * force, axis=1)
