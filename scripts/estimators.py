"""What each estimator gains over naive averages, per prompt and per second: a table of scripts/README.md.

    python scripts/estimators.py            # three minutes on two cores

Medians over the sources from 0.1 to 0.9 at beta = lam = t = 1, M = 8, soft accuracy, uniform prompts.
"""

import argparse
import time

import jax
import numpy as np

import jaxkinetic as jk

SIZES = (64, 256, 1024)
CASES: tuple[tuple[str, bool, int], ...] = (
    ("naive", False, 512),
    ("glauber", False, 128),
    ("glauber", True, 128),
    ("adjoint", False, 256),
    ("adjoint", True, 256),
)
# The shortest time is the one least disturbed.
_REPEATS = 3


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    jax.config.update("jax_enable_x64", True)
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    print(f"jax {jax.__version__} on {jax.default_backend()}\n")
    print("| estimator | " + " | ".join(f"N = {n}: per prompt, per second" for n in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    plain: dict[int, tuple[float, float]] = {}
    for estimator, control, n_prompts in CASES:
        cells = []
        for n_tokens in SIZES:
            spread, seconds = measure(model, n_tokens, n_prompts, estimator, control)
            variance, cost = plain.setdefault(n_tokens, (spread, seconds))
            cells.append(f"{variance / spread:.1e}, {variance / spread * cost / seconds:.1e}")
        print(f"| {estimator}{', control variate' if control else ''} | " + " | ".join(cells) + " |", flush=True)


def measure(
    model: jk.CausalAttention, n_tokens: int, n_prompts: int, estimator: str, control: bool
) -> tuple[float, float]:
    """Median variance of one prompt's values and seconds a prompt, compiled. Glauber is timed on nine sources."""
    places = np.arange(1, 10) / 10 if estimator == "glauber" else None

    def run() -> jk.ProfileEstimate:
        return jk.estimate_profile(
            model, 1.0, 8, n_tokens, n_prompts=n_prompts, key=jax.random.key(n_tokens), estimator=estimator,
            control_variate=control, sources=places, n_steps=4,
        )  # fmt: skip

    found, times = run(), []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    middle = (found.sources > 0.1 - 1e-9) & (found.sources < 0.9 + 1e-9)
    return float(np.median(found.standard_error[middle] ** 2)) * n_prompts, min(times) / n_prompts


if __name__ == "__main__":
    main()
