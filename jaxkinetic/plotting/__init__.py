"""Results in, matplotlib Axes out."""

from jaxkinetic.plotting.curves import (
    plot_curve,
    plot_fit,
    plot_fits,
    plot_fitted_curve,
    plot_intervals,
    plot_likelihood,
    plot_measured,
    plot_profiled,
)
from jaxkinetic.plotting.design import plot_design, plot_designed_profiles, plot_weights
from jaxkinetic.plotting.limit import plot_characteristics, plot_cross, plot_cross_modes, plot_density, plot_limit
from jaxkinetic.plotting.next_measurement import plot_information, plot_next_measurement
from jaxkinetic.plotting.phase import plot_outlives, plot_phase, plot_phase_section
from jaxkinetic.plotting.posterior import plot_marginal, plot_posterior, plot_posterior_region, plot_predicted
from jaxkinetic.plotting.profiles import plot_estimate, plot_profile, plot_profile_line, plot_profiles
from jaxkinetic.plotting.prompts import plot_angles, plot_circle, plot_snapshots
from jaxkinetic.plotting.sensitivity import plot_elasticities, plot_experiment, plot_sensitivity
from jaxkinetic.plotting.simulation_fit import plot_history, plot_simulated_curve, plot_simulation_fit
from jaxkinetic.plotting.style import COLOURS, MARKERS
from jaxkinetic.plotting.sweep import plot_sweep

__all__ = [
    "COLOURS",
    "MARKERS",
    "plot_angles",
    "plot_characteristics",
    "plot_circle",
    "plot_cross",
    "plot_cross_modes",
    "plot_curve",
    "plot_density",
    "plot_design",
    "plot_designed_profiles",
    "plot_elasticities",
    "plot_estimate",
    "plot_experiment",
    "plot_fit",
    "plot_fits",
    "plot_fitted_curve",
    "plot_history",
    "plot_information",
    "plot_intervals",
    "plot_likelihood",
    "plot_limit",
    "plot_marginal",
    "plot_measured",
    "plot_next_measurement",
    "plot_outlives",
    "plot_phase",
    "plot_phase_section",
    "plot_posterior",
    "plot_posterior_region",
    "plot_predicted",
    "plot_profile",
    "plot_profile_line",
    "plot_profiled",
    "plot_profiles",
    "plot_sensitivity",
    "plot_simulated_curve",
    "plot_simulation_fit",
    "plot_snapshots",
    "plot_sweep",
    "plot_weights",
]
