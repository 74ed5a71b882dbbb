"""What is learned from measured curves."""

from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.data.read_csv import read_curves
from jaxkinetic.inference.data.shipped import list_models, load_baselines, load_curves
from jaxkinetic.inference.fit.curve_fit import CurveFit, fit_curves
from jaxkinetic.inference.fit.intervals import Interval
from jaxkinetic.inference.next_measurement import NextMeasurement, next_measurement
from jaxkinetic.inference.planned_experiment import PlannedExperiment, plan_experiment
from jaxkinetic.inference.posterior.curve_posterior import curve_posterior
from jaxkinetic.inference.posterior.posterior import Posterior
from jaxkinetic.inference.posterior.priors import Priors
from jaxkinetic.inference.simulated.simulation_fit import SimulationFit, fit_by_simulation

__all__ = [
    "CurveFit",
    "Interval",
    "NextMeasurement",
    "PlannedExperiment",
    "Posterior",
    "Priors",
    "RetrievalCurve",
    "SimulationFit",
    "curve_posterior",
    "fit_by_simulation",
    "fit_curves",
    "list_models",
    "load_baselines",
    "load_curves",
    "next_measurement",
    "plan_experiment",
    "read_curves",
]
