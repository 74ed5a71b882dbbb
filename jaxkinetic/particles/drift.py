"""The velocity of (1.1): in linear time through Fourier modes, and over all pairs as the reference.

ALiBi's weights make the causal sum a recurrence, sums of exponentials one for each term; all other weights make it
a causal convolution.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkinetic._types import Angles, check_angles, is_concrete
from jaxkinetic.model import ALiBi, CausalAttention, ExponentialSum, PositionalWeights
from jaxkinetic.particles.causal_convolution import convolved_sines
from jaxkinetic.particles.causal_sum import causal_sum, weight_totals


def spectral_drift(model: CausalAttention, theta: Angles) -> Angles:
    """Velocity of every token in O(N K), from w'(x) = -2 sum_n n w^(n) sin(n x).

    v_j = sum_{k < j} omega_{jk} w'(theta_j - theta_k), and v_1 = 0. Weights that are no exponentials take
    about one FFT over all tokens for each mode, O(N log N K).

    Args:
        model: kernel and positional weights.
        theta: angles in radians, (N,). For many prompts use `jax.vmap`.

    Returns:
        Velocities d theta_j / dt of (1.1), (N,). Differentiable in theta, beta and the weights' parameters,
        in forward and reverse mode.

    Raises:
        RuntimeError: if beta is traced and the kernel's modes do not resolve it.
    """
    theta = check_angles("theta", theta)
    if not is_concrete(*jax.tree.leaves(model.kernel)):
        theta = model.check_resolved(theta)
    return velocity(model, theta)


def velocity(model: CausalAttention, theta: Angles) -> Angles:
    """The same as `spectral_drift` without its checks, for inner loops whose door has made them."""
    n = jnp.arange(1, model.kernel.n_modes + 1)
    series = (-2 * n * model.kernel.coefficients()).astype(theta.dtype)
    if isinstance(model.positions, ALiBi):
        return _exponential(model.positions, series, theta)
    if isinstance(model.positions, ExponentialSum):
        return _exponentials(model.positions, series, theta)
    return _any(model.positions, series, theta)


def _exponential(positions: ALiBi, series: Float[Array, " mode"], theta: Angles) -> Angles:
    decay, growth = positions.exponents(theta.shape[0])
    exponents = decay.astype(theta.dtype), growth.astype(theta.dtype)
    forces = causal_sum(theta, series[None], exponents, ("odd",))[0]
    totals = weight_totals(theta.shape[0], exponents)
    return forces / jnp.where(totals > 0, totals, 1)


def _exponentials(positions: ExponentialSum, series: Float[Array, " mode"], theta: Angles) -> Angles:
    log_factors, *exponents = (x.astype(theta.dtype) for x in positions.factors(theta.shape[0]))
    # For each token its largest term has factor one, so that growing terms do not overflow.
    factors = jnp.exp(log_factors - jax.lax.stop_gradient(jnp.max(log_factors, axis=0, keepdims=True)))
    forces = jax.vmap(lambda d, g: causal_sum(theta, series[None], (d, g), ("odd",))[0])(*exponents)
    totals = jnp.sum(factors * jax.vmap(lambda d, g: weight_totals(theta.shape[0], (d, g)))(*exponents), axis=0)
    return jnp.sum(factors * forces, axis=0) / jnp.where(totals > 0, totals, 1)


def _any(positions: PositionalWeights, series: Float[Array, " mode"], theta: Angles) -> Angles:
    lags = jnp.arange(theta.shape[0], dtype=positions.dtype) / theta.shape[0]
    log_weights = positions.log_weight(lags)
    weights = jnp.exp(log_weights - jax.lax.stop_gradient(jnp.max(log_weights[1:])))
    # A token does not attend to itself, and b(0) may be far above all other weights.
    weights = weights.astype(theta.dtype).at[0].set(0.0)
    totals = jnp.cumsum(weights)
    return convolved_sines(theta, series, weights) / jnp.where(totals > 0, totals, 1)


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
