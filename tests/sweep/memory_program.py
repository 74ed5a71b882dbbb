"""Run a sweep one prompt at a time, then as many at once as memory allows, and print plan and growth of the peak.

python -m tests.sweep.memory_program ESTIMATOR N_TOKENS
"""

import json
import resource
import sys
import tempfile

import jax

from jaxkinetic.sweep import SweepConfig, plan_sweep, run_sweep

jax.config.update("jax_enable_x64", True)
config = SweepConfig(
    n_tokens=int(sys.argv[2]),
    n_prompts=32,
    n_steps=4,
    estimator=sys.argv[1],
    control_variate=False,
    sources=[0.3, 0.6],
)


def peak(memory: float) -> int:
    """Peak memory of this process in bytes, after a run within a budget."""
    with tempfile.TemporaryDirectory() as folder:
        run_sweep(config, f"{folder}/s", memory=memory)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


one = peak(1.0)
many = peak(2.0**30)
print(
    json.dumps(
        {"plan": plan_sweep(config).memory, "one": plan_sweep(config, memory=1.0).memory, "grown": many - one}
    )
)
