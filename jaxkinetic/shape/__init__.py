"""The U itself: where the profile has one, what moves it, and positional weights that flatten it."""

from jaxkinetic.shape.phase import PhaseDiagram, phase_diagram, phase_edges
from jaxkinetic.shape.sensitivity import Sensitivity, u_sensitivity
from jaxkinetic.shape.weight_design import DesignedWeights, design_weights

__all__ = [
    "DesignedWeights",
    "PhaseDiagram",
    "Sensitivity",
    "design_weights",
    "phase_diagram",
    "phase_edges",
    "u_sensitivity",
]
