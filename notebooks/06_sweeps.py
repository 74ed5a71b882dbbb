# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sweeps
#
# A sweep estimates retrieval profiles over a grid of $\beta$, $\lambda$, $t$, $N$, $M$, prompt laws and estimators, until
# every point has a given number of prompts or a given standard error. It needs `pip install "jaxkinetic[sweep]"`. The
# example that ships with the package takes about a minute on two cores. A key holds one value or a list, and every key
# has a default:

# %%
import tempfile
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt

import jaxkinetic as jk
from jaxkinetic import plotting

example = Path("../scripts/sweep_example.toml")
print(example.read_text())

# %% [markdown]
# On the command line (`extend` takes `--dry-run` as well):
#
# ```sh
# jaxkinetic sweep run scripts/sweep_example.toml --dry-run     # prints work, memory and time; writes nothing
# jaxkinetic sweep run scripts/sweep_example.toml               # the same command resumes after an interruption
# jaxkinetic sweep status                                       # works while the sweep runs
# jaxkinetic sweep extend --standard-error 0.01 --max-prompts 16384
# jaxkinetic sweep plot
# ```
#
# The example, extended to a standard error of 0.01 where 16384 prompts reach it. Short prompts remember less than the
# limit predicts:
#
# ![Profiles of 16, 64 and 256 tokens for three positional biases, with error bars, on their limits](figures/sweep.png)
#
# ## From Python
#
# `run_sweep` computes what the store lacks, and `open_sweep` returns an `xarray.Dataset` with `values`,
# `standard_error`, `count`, `mean` and `m2`, whose attributes hold the configuration and the versions of all libraries.

# %%
store = Path(tempfile.mkdtemp()) / "sweep"
config = jk.SweepConfig(lam=[0, 1, 3], n_tokens=[16, 64], n_prompts=256, chunk=256)
jk.run_sweep(config, store)
data = jk.open_sweep(store)
print(data["values"].sel(lam=1, n_tokens=64).squeeze())

# %% [markdown]
# An extended sweep equals one longer run, to the last bit:

# %%
jk.extend_sweep(store, n_prompts=1024)
data = jk.open_sweep(store)
print(f"{int(data['count'].min())} prompts, standard error at most {float(data['standard_error'].max()):.3f}")
plotting.plot_sweep(data)
plt.show()

# %% [markdown]
# ## What the store guarantees
#
# - The store is an [icechunk](https://icechunk.io) repository: the folder `jaxkinetic-sweep`, unless `--store` names another
#   folder or a URL (`file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`; keys, region and `AWS_ENDPOINT_URL` come
#   from the environment). Every finished chunk is one commit.
# - A sweep killed at any instant (the tests kill it at 25 random ones) loses at most the chunk it was computing. Run
#   again, it ends with the same bits as an undisturbed one, on any number of devices and processes. With a goal in
#   prompts this holds for any chunk size as well.
# - A full disk, an unreadable store, a second writer and a different configuration each end in one line, and nothing is
#   overwritten. Temporary and lock files are hidden, and recognised by a marker before they are removed.
# - All points are checked before the store is made, so that one that cannot be computed is refused at once. Values that
#   are not finite stop the run and name the point.
#
# ## How it computes
#
# - Points that differ only in parameter values, your own laws included, share one compiled program.
# - The number of constant steps to depth $t$ is chosen once for each point, so that its error stays below what 65536
#   prompts can resolve, and is kept when prompts are added.
# - All points draw the same prompts, so that the errors of different points are correlated. `joint = true` keeps the
#   covariance between the sources of a point.
# - The `sessions` attribute records every run that added to the store; a run with other library versions or on another
#   kind of device warns.
# - The progress bar advances by estimated cost, also within a chunk.
#
# ## Several GPUs, several hosts
#
# All local devices are used, each within `--memory` GiB:
#
# ```sh
# jaxkinetic sweep run sweep.toml --memory 16                                # on all GPUs of this node
# CUDA_VISIBLE_DEVICES=0,1 jaxkinetic sweep run sweep.toml --memory 16       # on two of them
# ```
#
# Several hosts share the prompts of each chunk. All run the same command, and the first one writes. Under Slurm and Open MPI
# JAX finds the processes by itself; elsewhere pass `--coordinator HOST:PORT --num-processes 2 --process-id 0` (and 1).
# `jaxkinetic estimate` takes the same flags.
#
# ```sh
# #!/bin/bash
# #SBATCH --nodes=4
# #SBATCH --ntasks-per-node=4    # JAX gives each task of Slurm or Open MPI one GPU
# #SBATCH --gpus-per-node=4
# #SBATCH --requeue
# srun jaxkinetic sweep run sweep.toml --store /scratch/$USER/sweep --distributed
# ```
