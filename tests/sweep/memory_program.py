"""Run a sweep one prompt at a time, then as many at once as memory allows, and print plan and growth of the peak.

Each is run twice: compilers take more memory than what they compile, and the second run has nothing to compile. The
peak is that of the second alone, which Linux tells.

python -m tests.sweep.memory_program ESTIMATOR N_TOKENS
"""

import ctypes
import json
import sys
import tempfile
from pathlib import Path

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
    """Peak memory of this process in bytes, in a run within a budget."""
    with tempfile.TemporaryDirectory() as folder:
        run_sweep(config, f"{folder}/first", memory=memory)
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        run_sweep(config, f"{folder}/second", memory=memory)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


one = peak(1.0)
many = peak(2.0**30)
print(
    json.dumps(
        {"plan": plan_sweep(config).memory, "one": plan_sweep(config, memory=1.0).memory, "grown": many - one}
    )
)
