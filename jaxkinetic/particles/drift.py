"""The velocity of a prompt, checked: in linear time, and over all pairs as the reference."""

from jaxkinetic._types import check_type
from jaxkinetic.model import Layer
from jaxkinetic.model.space import Tokens


def spectral_drift(model: Layer, theta: Tokens) -> Tokens:
    """Velocity of every token, for attention in linear time, O(N K) for K Fourier modes.

    v_j = sum_{k < j} omega_{jk} w'(theta_j - theta_k), and v_1 = 0 (1.1). Weights that are no exponentials take
    about one FFT over all tokens for each mode, O(N log N K).

    Args:
        model: attention, or any layer.
        theta: angles in radians, (N,). For many prompts use `jax.vmap`.

    Returns:
        Velocities d theta_j / dt of (1.1), (N,). Differentiable in theta and the model's parameters, in forward
        and reverse mode.

    Raises:
        ValueError: on angles of the wrong shape or dtype, or not finite.
        RuntimeError: if beta is traced and the kernel's modes do not resolve it.
    """
    check_type("model", model, Layer)
    return model.velocity(model.check_resolved(model.space.check("theta", theta)))


def pairwise_drift(model: Layer, theta: Tokens) -> Tokens:
    """Velocity of every token over all pairs, O(N^2): (1.1) as it stands, the reference.

    Args:
        model: attention, or any layer.
        theta: angles in radians, (N,).

    Returns:
        Velocities d theta_j / dt of (1.1), (N,).
    """
    check_type("model", model, Layer)
    return model.pairwise_velocity(model.space.check("theta", theta))
