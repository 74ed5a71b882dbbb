"""Estimate one small profile and print it to the last bit: run by the tests on several devices and processes.

python ensemble_program.py [ADDRESS N_PROCESSES PROCESS]
"""

import json
import sys

import jax

jax.config.update("jax_enable_x64", True)
if len(sys.argv) > 1:
    jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

import jaxkinetic as jk

model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
found = jk.estimate_profile(model, 1.0, 8, 40, n_prompts=200, key=jax.random.key(5), n_steps=4)
numbers = [x.hex() for x in (*found.values.tolist(), *found.standard_error.tolist())]
print(json.dumps({"devices": jax.local_device_count(), "processes": jax.process_count(), "numbers": numbers}))
