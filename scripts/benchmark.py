"""The benchmark whose table stands in scripts/README.md: every speed is a ratio within one run on one machine.

    python scripts/benchmark.py            # the table, two to three minutes
    python scripts/benchmark.py --quick    # without the prompt of 2^20 tokens and the command line

The arithmetic floor is causal_sum_floor.c, the same algorithm as a plain C loop on one thread; it needs gcc.
"""

import argparse
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxkinetic as jk

N_TOKENS, N_PROMPTS = 4096, 16
AUTHORS_FIGURE_3 = 11.0  # seconds, the authors' script for 64 tokens to t = 10


def best_of(*runs: Callable[[], object], rounds: int = 15) -> list[float]:
    """Shortest time of each run, the runs taking turns so that a slow spell of the machine hits all alike."""
    for run in runs:
        jax.block_until_ready(run())
    times = np.full((rounds, len(runs)), np.inf)
    for i in range(rounds):
        for j, run in enumerate(runs):
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[i, j] = time.perf_counter() - start
    return times.min(axis=0).tolist()


def build_floor(folder: Path) -> dict[str, Path]:
    """Compile the C loop in both precisions; nothing where there is no compiler."""
    if shutil.which("gcc") is None:
        return {}
    source = Path(__file__).with_name("causal_sum_floor.c")
    built = {}
    for name, real, modes in (("float32", "float", 8), ("float64", "double", 14)):
        built[name] = folder / name
        flags = ["-O3", "-march=native", "-ffast-math", f"-DREAL={real}", f"-DK={modes}"]
        subprocess.run(["gcc", *flags, str(source), "-o", str(built[name]), "-lm"], check=True)
    return built


def run_floor(program: Path) -> float:
    """Nanoseconds per token of the C loop, the best of its own twenty."""
    out = subprocess.run([str(program), str(N_TOKENS), str(N_PROMPTS)], check=True, capture_output=True, text=True)
    return float(out.stdout.split("ms")[1].split()[0])


def prompts(n_prompts: int, n_tokens: int, dtype: type) -> jax.Array:
    """Uniform prompts."""
    keys = jax.random.split(jax.random.key(0), n_prompts)
    draw = jax.vmap(lambda key: jk.UniformPrompts().sample(key, n_tokens))
    return draw(keys).astype(dtype)


def unit_model(dtype: type) -> jk.CausalAttention:
    """The model at beta = lam = 1 in a given precision."""
    one = jnp.asarray(1.0, dtype)
    return jk.CausalAttention(jk.ExpCosine(one), jk.ALiBi(one))


def drift_rows(dtype: type, floor: Path | None) -> list[tuple[str, str, str]]:
    """The drift against all pairs and against the C loop, and its gradient."""
    model, theta = unit_model(dtype), prompts(N_PROMPTS, N_TOKENS, dtype)
    probe = jnp.cos(jnp.arange(N_TOKENS, dtype=dtype))
    drift = jax.jit(jax.vmap(lambda x: jk.spectral_drift(model, x)))
    gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(drift(x) * probe)))
    pairs = jax.jit(lambda x: jk.pairwise_drift(model, x))

    before = run_floor(floor) if floor else math.nan
    many, both, one = best_of(lambda: drift(theta), lambda: gradient(theta), lambda: drift(theta[:1]))
    per_token_of_c = min(before, run_floor(floor)) if floor else math.nan
    (all_pairs,) = best_of(lambda: pairs(theta[0]), rounds=3)

    per_token = many / theta.size * 1e9
    label = f"{jnp.dtype(dtype).name}, {model.kernel.n_modes} modes, N = {N_TOKENS}"
    rows = [(f"value and gradient / value ({label}, {N_PROMPTS} prompts)", f"{both / many:.2f}", "<= 3.5")]
    if floor:
        text = f"{per_token / per_token_of_c:.1f} ({per_token:.0f} against {per_token_of_c:.0f} ns a token)"
        rows.append((f"drift / C loop ({label}, {N_PROMPTS} prompts)", text, "<= 4"))
    if dtype == jnp.float32:
        rows += [
            (
                f"all pairs / drift ({label}, a prompt of {N_PROMPTS})",
                f"{all_pairs * N_PROMPTS / many:.0f}",
                ">= 1000",
            ),
            (f"all pairs / drift ({label}, one prompt alone)", f"{all_pairs / one:.0f}", ""),
        ]
    return rows


def growth_row() -> tuple[str, str, str]:
    """How the time of one drift grows with the number of tokens."""
    model = unit_model(jnp.float32)
    drift = jax.jit(lambda x: jk.spectral_drift(model, x))
    sizes = [2**k for k in range(10, 21, 2)]
    seconds = []
    for theta in (prompts(1, n, jnp.float32)[0] for n in sizes):
        seconds += best_of(partial(drift, theta), rounds=7)
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    return "log-log slope of the drift in N, 2^10 to 2^20 (float32)", f"{slope:.2f}", "<= 1.1"


def figure_3_row() -> tuple[str, str, str]:
    """Sixty-four tokens in four clusters to t = 10, compiled."""
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    law = jk.ClusterPrompts(centers=[0.5, 2.2, 3.6, 5.2], width=0.12)
    theta = law.sample(jax.random.key(0), 64)
    (seconds,) = best_of(lambda: jk.simulate(model, theta, [0.0, 1.0, 3.0, 10.0]).angles, rounds=7)
    text = f"{AUTHORS_FIGURE_3 / seconds:.0f} ({seconds * 1e3:.0f} ms)"
    return "authors' 11 s / Figure 3's run (float64, tolerance 1e-11)", text, ">= 100"


def limit_rows() -> list[tuple[str, str, str]]:
    """The mean field and the correlations of a smooth law, compiled and the first time."""
    model, time_, sources = unit_model(jnp.float64), [1.0], jnp.linspace(0.05, 0.95, 64)
    law = jk.DensityPrompts(lambda s: jnp.stack([0.3 * jnp.exp(-2j * s), -0.1j * s]))
    size = jk.Resolution(33, modes=64)
    runs = {
        "mean field, 33 nodes and 64 modes": lambda: jk.solve_mean_field(model, law, time_, resolution=size).states,
        "correlations, 64 sources": lambda: jk.solve_correlations(model, law, time_, sources).states,
    }
    return first_and_compiled(runs, ("< 0.3 s, < 20 s", "< 3 s, < 20 s"))


def first_and_compiled(runs: dict[str, Callable[[], object]], targets: Sequence[str]) -> list[tuple[str, str, str]]:
    """A row for each run: compiled, the best of five, and the first time, with what compilation takes."""
    rows = []
    for (what, run), target in zip(runs.items(), targets, strict=True):
        start = time.perf_counter()
        jax.block_until_ready(run())
        first = time.perf_counter() - start
        (seconds,) = best_of(run, rounds=5)
        rows.append((f"{what} (float64): compiled, first call", f"{seconds:.2f} s, {first:.1f} s", target))
    return rows


def inference_rows() -> list[tuple[str, str, str]]:
    """A posterior of fifteen points and a phase diagram of a million, compiled and the first time."""
    curves = jk.load_curves(model="MPT-30B-Instruct")
    rng = np.random.default_rng(0)
    ends = (0.1, 6.0), (0.05, 20.0), (0.01, 10.0)
    beta, lam, t = (low * (high / low) ** rng.random(10**6) for low, high in ends)
    runs = {
        f"posterior, 200 x 200, {sum(c.sources.size for c in curves)} points": lambda: (
            jk.curve_posterior(curves).mass
        ),
        "phase diagram, a million points": lambda: jk.phase_diagram(beta, lam, t, 8).argmin,
    }
    return first_and_compiled(runs, ("< 1 s", "< 20 s"))


def long_prompt_row() -> tuple[str, str, str]:
    """One prompt of 2^20 tokens to t = 1, in a process of its own to read its peak memory."""
    output = subprocess.run(
        [sys.executable, __file__, "--long-prompt"], check=True, capture_output=True, text=True
    ).stdout
    gibibytes, seconds = output.split()
    return "one prompt of 2^20 tokens to t = 1 (float64)", f"{gibibytes} GiB, {seconds} s", "< 4 GiB"


def long_prompt() -> None:
    """Print peak memory in GiB and seconds."""
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    theta = prompts(1, 2**20, jnp.float64)[0]
    start = time.perf_counter()
    jax.block_until_ready(jk.simulate(model, theta, [1.0]).angles)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{peak:.2f} {seconds:.0f}")


def ensemble_row() -> tuple[str, str, str]:
    """Plain ensembles against their drift alone: prompts x tokens x drift evaluations per second."""
    model, n_tokens, n_prompts, n_steps = unit_model(jnp.float64), 1024, 256, 4
    theta = prompts(32, n_tokens, jnp.float64)
    drift = jax.jit(jax.vmap(lambda x: jk.spectral_drift(model, x)))

    def ensemble() -> object:
        return jk.estimate_profile(
            model, 1.0, 8, n_tokens, n_prompts=n_prompts, key=jax.random.key(0), estimator="naive",
            control_variate=False, n_steps=n_steps,
        ).values  # fmt: skip

    alone, whole = best_of(lambda: drift(theta), ensemble, rounds=5)
    # Tsit5 evaluates the drift six times a step. A pilot of 32 prompts more runs with n_steps and 2 n_steps.
    evaluations = 6 * n_steps * (n_prompts + 32 + 2 * 32)
    ratio = whole / (alone / theta.size * n_tokens * evaluations)
    return "ensemble / its drift evaluations alone (float64, N = 1024)", f"{ratio:.2f}", "<= 2"


def devices_row() -> tuple[str, str, str]:
    """The same ensemble on one and on two virtual devices, each in a process of its own."""
    seconds = []
    for n_devices in (1, 2):
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n_devices}"}
        command = [sys.executable, __file__, "--ensemble"]
        seconds.append(
            float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
        )
    text = f"{seconds[0] / seconds[1]:.2f} ({seconds[0]:.1f} s and {seconds[1]:.1f} s)"
    return "ensemble on one virtual device / on two (float64, N = 256)", text, ">= 1.6"


def time_ensemble() -> None:
    """Print the seconds that an ensemble takes once compiled, the best of three."""
    model = unit_model(jnp.float64)

    def run() -> object:
        return jk.estimate_profile(model, 1.0, 8, 256, n_prompts=1024, key=jax.random.key(0), n_steps=4).values

    print(best_of(run, rounds=3)[0])


def command_rows() -> list[tuple[str, str, str]]:
    """Whole commands in fresh processes: the first compiles, the second finds that in the cache."""
    rows = []
    for command, target in (("fit", "< 15 s"), ("profile", "< 6 s"), ("--help", "< 1 s")):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            out = [] if command == "--help" else ["--out", folder]
            line = [sys.executable, "-m", "jaxkinetic.cli", command, *out]
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL)
                seconds.append(f"{time.perf_counter() - start:.1f} s")
            text = f"{seconds[1]}; {seconds[0]} the first time"
            rows.append((f"`jaxkinetic {command}`, fresh process; the first keeps what it compiled", text, target))
    return rows


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the long prompt and the command line")
    parser.add_argument("--long-prompt", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ensemble", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.long_prompt:
        long_prompt()
        return
    if arguments.ensemble:
        time_ensemble()
        return
    with tempfile.TemporaryDirectory() as folder:
        floor = build_floor(Path(folder))
        rows = [
            row
            for dtype in (jnp.float32, jnp.float64)
            for row in drift_rows(dtype, floor.get(jnp.dtype(dtype).name))
        ]
    rows += [growth_row(), figure_3_row(), *limit_rows(), *inference_rows(), ensemble_row(), devices_row()]
    if not arguments.quick:
        rows += [long_prompt_row(), *command_rows()]
    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}\n"
    )
    print("| what | measured | target |\n|---|---|---|")
    for what, measured, target in rows:
        print(f"| {what} | {measured} | {target} |")


if __name__ == "__main__":
    main()
