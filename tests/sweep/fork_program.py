"""Run one small sweep again and again, each time in a new process that the tests may kill.

Imports cost seconds: they are done once, before JAX starts any thread, and each run is a fork. Compiling the solver
would cost seconds too: the estimator is replaced by random numbers, drawn from the prompts' keys as any other.

python -m tests.sweep.fork_program    # a store on standard input starts a run, whose process number is printed
"""

import os
import sys

import icechunk  # noqa: F401
import jax
import xarray  # noqa: F401
import zarr  # noqa: F401

from jaxkinetic.retrieval.estimators import ESTIMATORS
from jaxkinetic.sweep import run_sweep
from tests.sweep.sweeps import KILLED


def noise(problem, key):
    """Values of a prompt."""
    return problem.n_tokens + jax.random.normal(key, problem.tokens.shape)


if "real" not in sys.argv:
    ESTIMATORS["naive"] = noise
for line in sys.stdin:
    child = os.fork()
    if not child:
        jax.config.update("jax_enable_x64", True)
        run_sweep(KILLED, line.strip())
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
