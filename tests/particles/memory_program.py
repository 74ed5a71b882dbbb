"""Run an ensemble of a thousand prompts, then one of a hundred thousand, and print the peak memory after each."""

import json
import resource
import sys

import jax
import jax.numpy as jnp

from jaxkinetic.particles.ensemble import run_ensemble

jax.config.update("jax_enable_x64", True)


def angles(size, key):
    """One prompt of 512 tokens, folded."""
    return jnp.cos(jax.random.uniform(key, (512,)) * size)


def peak(n_prompts):
    """Peak memory of this process in bytes, after an ensemble."""
    run_ensemble(angles, jnp.ones(()), jax.random.key(0), n_prompts)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


print(json.dumps({"before": peak(1_000), "after": peak(100_000)}))
