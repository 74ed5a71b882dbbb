"""Sweeps small enough to be run many times."""

from jaxkinetic.sweep import SweepConfig

TINY = SweepConfig(
    time=[0.5, 1.0], n_tokens=8, vocab_size=4, sources=[0.3, 0.7], estimator="naive", control_variate=False,
    n_prompts=96, chunk=32,
)  # fmt: skip
KILLED = TINY.replace(n_prompts=1920)
