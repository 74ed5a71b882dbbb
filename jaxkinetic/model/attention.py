"""The model of (1.1): an interaction kernel together with causal positional weights."""

import equinox as eqx
from jaxtyping import Array

from jaxkinetic.model.kernels import ExpCosine, Kernel
from jaxkinetic.model.positions import ALiBi, PositionalWeights


class CausalAttention(eqx.Module):
    """Causal self-attention on the circle (1.1).

    d theta_j / dt = sum_{k < j} omega_{jk} w'(theta_j - theta_k)

    Attributes:
        kernel: the even interaction kernel w, `ExpCosine` for the paper's (1.3).
        positions: causal positional weights omega (2.1), `ALiBi` for the paper's, or any `PositionalWeights`.
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

    def check_resolved(self, value: Array) -> Array:
        """Return ``value``, or fail at run time if the kernel's modes do not resolve traced parameters."""
        return eqx.error_if(
            value,
            ~self.kernel.is_resolved(),
            f"{self.kernel.n_modes} Fourier modes do not resolve the kernel: raise `n_modes` "
            "(see `required_modes`).",
        )
