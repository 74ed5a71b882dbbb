"""Run an ensemble of a thousand prompts, then one of two hundred thousand, and print the peak memory after each.

python -m tests.particles.memory_program STATISTIC, "cosines" or an estimator of the profile
"""

import json
import resource
import sys

import jax
import jax.numpy as jnp

import jaxkinetic as jk
from jaxkinetic.particles.ensemble import run_ensemble

jax.config.update("jax_enable_x64", True)
MODEL = jk.CausalAttention(jk.ExpCosine(0.2), jk.ALiBi(1.0))


def angles(size, key):
    """One prompt of 512 tokens, folded."""
    return jnp.cos(jax.random.uniform(key, (512,)) * size)


def run(statistic, n_prompts):
    """An ensemble of 512 cosines, or of the profile of 16 tokens with the joint covariance of its sources."""
    if statistic == "cosines":
        run_ensemble(angles, jnp.ones(()), jax.random.key(0), n_prompts)
    else:
        how = {"estimator": statistic, "sources": "all", "joint": True, "n_steps": 2}
        jk.estimate_profile(MODEL, 0.5, 4, 16, n_prompts=n_prompts, key=jax.random.key(0), **how)


def peak(statistic, n_prompts):
    """Peak memory of this process in bytes, after an ensemble."""
    run(statistic, n_prompts)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


print(json.dumps({"before": peak(sys.argv[1], 1_000), "after": peak(sys.argv[1], 200_000)}))
