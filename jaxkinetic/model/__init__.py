"""What a transformer and a prompt are: kernels, positional weights, the model, laws of the initial tokens."""

from jaxkinetic.model.attention import CausalAttention
from jaxkinetic.model.kernels import ExpCosine, FourierKernel, Kernel, SmoothKernel, required_modes
from jaxkinetic.model.layers import Layer, Sum
from jaxkinetic.model.positions import ALiBi, PositionalWeights
from jaxkinetic.model.prompts import (
    ClusterPrompts,
    CodewordPrompts,
    DensityPrompts,
    PromptLaw,
    UniformPrompts,
)
from jaxkinetic.model.space import Circle, Space, Sphere
from jaxkinetic.model.weight_families import ExponentialSum, PowerLaw, SplineWeights

__all__ = [
    "ALiBi",
    "CausalAttention",
    "Circle",
    "ClusterPrompts",
    "CodewordPrompts",
    "DensityPrompts",
    "ExpCosine",
    "ExponentialSum",
    "FourierKernel",
    "Kernel",
    "Layer",
    "PositionalWeights",
    "PowerLaw",
    "PromptLaw",
    "SmoothKernel",
    "Space",
    "Sphere",
    "SplineWeights",
    "Sum",
    "UniformPrompts",
    "required_modes",
]
