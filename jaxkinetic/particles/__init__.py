"""Prompts of N tokens: the linear-time causal sum, the velocity of (1.1), and its solution."""

from jaxkinetic.particles.drift import pairwise_drift, spectral_drift
from jaxkinetic.particles.simulate import Trajectory, simulate

__all__ = ["Trajectory", "pairwise_drift", "simulate", "spectral_drift"]
