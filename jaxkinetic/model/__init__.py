"""What a transformer and a prompt are: kernels, positional weights, the model, laws of the initial tokens."""

from jaxkinetic.model.attention import CausalAttention
from jaxkinetic.model.kernels import ExpCosine, FourierKernel, Kernel, SmoothKernel, required_modes
from jaxkinetic.model.positions import ALiBi
from jaxkinetic.model.prompts import (
    ClusterPrompts,
    CodewordPrompts,
    DensityPrompts,
    PromptLaw,
    UniformPrompts,
)

__all__ = [
    "ALiBi",
    "CausalAttention",
    "ClusterPrompts",
    "CodewordPrompts",
    "DensityPrompts",
    "ExpCosine",
    "FourierKernel",
    "Kernel",
    "PromptLaw",
    "SmoothKernel",
    "UniformPrompts",
    "required_modes",
]
