"""Grids of ensembles, kept in a store to which every finished chunk is committed."""

from jaxkinetic.sweep.config import SweepConfig, read_config
from jaxkinetic.sweep.plan import SweepPlan, plan_extension, plan_sweep
from jaxkinetic.sweep.run import extend_sweep, run_sweep
from jaxkinetic.sweep.store import open_sweep

__all__ = [
    "SweepConfig",
    "SweepPlan",
    "extend_sweep",
    "open_sweep",
    "plan_extension",
    "plan_sweep",
    "read_config",
    "run_sweep",
]
