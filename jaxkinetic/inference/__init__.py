"""What is learned from measured curves."""

from jaxkinetic.inference.curves import RetrievalCurve, list_models, load_baselines, load_curves, read_curves
from jaxkinetic.inference.fit import CurveFit, fit_curves
from jaxkinetic.inference.intervals import Interval

__all__ = [
    "CurveFit",
    "Interval",
    "RetrievalCurve",
    "fit_curves",
    "list_models",
    "load_baselines",
    "load_curves",
    "read_curves",
]
