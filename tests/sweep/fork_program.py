"""Run one small sweep again and again, each time in a new process that the tests may kill.

Imports cost seconds: they are done once, before JAX starts any thread, and each run is a fork. Compiled programs
are kept in JAX_COMPILATION_CACHE_DIR, as on the command line.

python -m tests.sweep.fork_program    # a line with a store starts a run, one with a store and a number of prompts
                                      # extends it; the process number is printed, then its exit code
"""

import os
import sys

import icechunk  # noqa: F401
import jax
import xarray  # noqa: F401
import zarr  # noqa: F401

from jaxkinetic.sweep import extend_sweep, run_sweep
from tests.sweep.sweeps import KILLED

for line in sys.stdin:
    child = os.fork()
    if not child:
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        store, _, n_prompts = line.strip().partition("\t")
        if n_prompts:
            extend_sweep(store, n_prompts=int(n_prompts))
        else:
            run_sweep(KILLED, store)
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
