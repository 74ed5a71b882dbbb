"""What is learned from measured curves."""

from jaxkinetic.inference.curves import RetrievalCurve, list_models, load_baselines, load_curves, read_curves
from jaxkinetic.inference.design import DesignedWeights, design_weights
from jaxkinetic.inference.experiment import PlannedExperiment, plan_experiment
from jaxkinetic.inference.fit import CurveFit, fit_curves
from jaxkinetic.inference.intervals import Interval
from jaxkinetic.inference.next_measurement import NextMeasurement, next_measurement
from jaxkinetic.inference.nuisances import Priors
from jaxkinetic.inference.phase import PhaseDiagram, phase_diagram, phase_edges
from jaxkinetic.inference.posterior import curve_posterior
from jaxkinetic.inference.posterior_summary import Posterior
from jaxkinetic.inference.sensitivity import Sensitivity, u_sensitivity
from jaxkinetic.inference.simulation_fit import SimulationFit, fit_by_simulation

__all__ = [
    "CurveFit",
    "DesignedWeights",
    "Interval",
    "NextMeasurement",
    "PhaseDiagram",
    "PlannedExperiment",
    "Posterior",
    "Priors",
    "RetrievalCurve",
    "Sensitivity",
    "SimulationFit",
    "curve_posterior",
    "design_weights",
    "fit_by_simulation",
    "fit_curves",
    "list_models",
    "load_baselines",
    "load_curves",
    "next_measurement",
    "phase_diagram",
    "phase_edges",
    "plan_experiment",
    "read_curves",
    "u_sensitivity",
]
