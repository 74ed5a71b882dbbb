"""Causal self-attention as an interacting particle system: simulation, kinetic limit, retrieval, inference."""

from jaxkinetic.integrate import Solve
from jaxkinetic.model import (
    ALiBi,
    CausalAttention,
    ClusterPrompts,
    CodewordPrompts,
    DensityPrompts,
    ExpCosine,
    FourierKernel,
    SmoothKernel,
    UniformPrompts,
    required_modes,
)
from jaxkinetic.particles import Trajectory, pairwise_drift, simulate, spectral_drift
from jaxkinetic.retrieval import (
    RetrievalProfile,
    UShape,
    decode,
    hard_accuracy,
    retrieval_profile,
    soft_accuracy,
    soft_accuracy_fourier,
    u_shape,
)

__all__ = [
    "ALiBi",
    "CausalAttention",
    "ClusterPrompts",
    "CodewordPrompts",
    "DensityPrompts",
    "ExpCosine",
    "FourierKernel",
    "RetrievalProfile",
    "SmoothKernel",
    "Solve",
    "Trajectory",
    "UShape",
    "UniformPrompts",
    "decode",
    "hard_accuracy",
    "pairwise_drift",
    "required_modes",
    "retrieval_profile",
    "simulate",
    "soft_accuracy",
    "soft_accuracy_fourier",
    "spectral_drift",
    "u_shape",
]
