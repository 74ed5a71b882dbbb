"""The model of (1.1): an interaction kernel together with causal positional weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxkinetic._types import Angles, is_concrete
from jaxkinetic.model.kernels import ExpCosine, Kernel
from jaxkinetic.model.layers import Layer
from jaxkinetic.model.positions import ALiBi, PositionalWeights


class CausalAttention(Layer):
    """Causal self-attention on the circle (1.1).

    d theta_j / dt = sum_{k < j} omega_{jk} w'(theta_j - theta_k)

    Attributes:
        kernel: the even interaction kernel w, `ExpCosine` for the paper's (1.3).
        positions: causal positional weights omega (2.1), `ALiBi` for the paper's, or any `PositionalWeights`.

    Example:
        >>> import jaxkinetic as jk
        >>> model = jk.CausalAttention(kernel=jk.ExpCosine(beta=1.0), positions=jk.ALiBi(lam=1.0))
    """

    kernel: Kernel = eqx.field(default_factory=lambda: ExpCosine(1.0))
    positions: PositionalWeights = eqx.field(default_factory=lambda: ALiBi(1.0))

    def __check_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise ValueError(f"Argument `kernel` must be a Kernel, but is {type(self.kernel).__name__}.")
        if not isinstance(self.positions, PositionalWeights):
            raise ValueError(
                "Argument `positions` must be PositionalWeights, such as ALiBi, but is "
                f"{type(self.positions).__name__}."
            )

    def velocity(self, theta: Angles) -> Angles:
        """Velocity of every token in O(N K), from w'(x) = -2 sum_n n w^(n) sin(n x)."""
        n = jnp.arange(1, self.kernel.n_modes + 1)
        series = (-2 * n * self.kernel.coefficients()).astype(theta.dtype)
        return self.positions.causal_average(theta, series[None], ("odd",))[0]

    def pairwise_velocity(self, theta: Angles) -> Angles:
        """The same over all pairs, O(N^2): (1.1) as it stands."""
        weights = self.positions.weights(theta.shape[0]).astype(theta.dtype)
        force = self.kernel.derivative(theta[:, None] - theta[None, :])
        return jnp.sum(weights * force, axis=1)

    def check_resolved(self, value: Array) -> Array:
        """Return ``value``; it fails at run time if the kernel's modes do not resolve traced parameters."""
        if is_concrete(*jax.tree.leaves(self.kernel)):
            return value
        return eqx.error_if(
            value,
            ~self.kernel.is_resolved(),
            f"{self.kernel.n_modes} Fourier modes do not resolve the kernel: raise `n_modes` "
            "(see `required_modes`).",
        )

    def why_no_limit(self, uniform: bool) -> str | None:
        """The limit is solved for uniform prompts, and with ALiBi weights for others."""
        if uniform or self.positions.exponential_rate is not None:
            return None
        return f"the limit of such prompts is solved for ALiBi weights, not for {type(self.positions).__name__}"

    @property
    def memory_per_token(self) -> int:
        """States of the modes where their sum is differentiated."""
        return 16 + self.kernel.n_modes
