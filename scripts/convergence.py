"""Theorem 1.2 seen in prompts of 32 to 512 tokens: S_N - S falls as 1 / N, for uniform and for codeword prompts.

    python scripts/convergence.py            # about ten minutes; writes notebooks/figures/convergence.png

The distance to the limit is about 2 / N under noise of 7 / sqrt(N) a prompt, even after the control variate. Two
more steps bring the noise to 6 / N. The prompt is run with every value of the source, so that only the other tokens
fluctuate. And to leading order the estimate is linear in their waves e^{i n theta_k}, whose means are known: it is
regressed on them, with coefficients from one half of the prompts applied to the other, which leaves no bias.
"""

import argparse
import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxkinetic as jk
from jaxkinetic.plotting import COLOURS
from jaxkinetic.retrieval.control import law_control, uniform_control
from jaxkinetic.retrieval.estimators import Problem
from jaxkinetic.retrieval.source_law import tabulate_source
from jaxkinetic.retrieval.window import window_slope

SIZES = (32, 64, 128, 256, 512)
PLACES = (0.25, 0.5, 0.75)
CODEWORDS = jk.CodewordPrompts(lambda s: [0.4 - 0.2 * s, 0.3, 0.2 - 0.1 * s, 0.1 + 0.3 * s])
FIGURE = Path(__file__).parents[1] / "notebooks" / "figures" / "convergence.png"
_STEPS = 4
_ANGLES = 16


@dataclasses.dataclass(frozen=True)
class Distance:
    """S_N - S at the sources of `PLACES`, (3,), with standard errors and the gain in variance by regression."""

    values: np.ndarray
    errors: np.ndarray
    gain: np.ndarray


def distance(
    law: jk.UniformPrompts | jk.CodewordPrompts, n_tokens: int, n_prompts: int, degree: int = 3, seed: int = 0
) -> Distance:
    """Measure S_N - S at beta = lam = t = 1, with the decoder of 8 codewords, or of the law's own.

    The regression has polynomials of the given degree in the other tokens' positions: 6 (degree + 1) features,
    for each word of the last token that there is, and there should be many times as many prompts.
    """
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    uniform = isinstance(law, jk.UniformPrompts)
    size = 8 if uniform else law.vocab_size
    tokens = np.round(np.array(PLACES) * n_tokens).astype(int) - 1
    limit = np.asarray(jk.retrieval_profile(model, 1.0, size, (tokens + 1) / n_tokens, prompts=law).values)
    sigma, time = jnp.asarray((tokens + 1) / n_tokens), jnp.asarray(1.0)
    source = tabulate_source(law, sigma, size, "soft")
    control = uniform_control(model, time, sigma) if uniform else law_control(model, law, time, sigma)
    known = control, control.mean_of_redraw(source)
    problem = Problem(model, law, time, jnp.asarray(tokens), source, known, n_tokens, _STEPS)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(n_prompts))
    values, starts = (np.asarray(x) for x in _run(problem, keys))
    rest = np.stack(
        [residual(v, waves(law, starts, i, degree)) for v, i in zip(values.T, tokens, strict=True)], axis=1
    )
    gain = values.var(axis=0) / rest.var(axis=0)
    return Distance(rest.mean(axis=0) - limit, rest.std(axis=0, ddof=1) / np.sqrt(n_prompts), gain)


@eqx.filter_jit
def _run(problem: Problem, keys):
    return jax.lax.map(lambda key: (conditional_redraw(problem, key), problem.draw(key)), keys, batch_size=16)


def conditional_redraw(problem: Problem, key) -> jax.Array:
    """N sum_n w_n Re Cov(e^{i n theta_N}, e^{i n theta_i}) given all other tokens, less the limit's prediction.

    The prompt is run with every codeword as the source. On the circle 16 equispaced angles stand for all, from
    where the prompt had it on: trigonometric polynomials as these are summed exactly.
    """
    start, atoms = problem.draw(key), problem.source.atoms
    if atoms is None:
        around = 2 * jnp.pi * jnp.arange(_ANGLES) / _ANGLES
        angles = start[problem.tokens][:, None] + around[None, :]
        p = jnp.full(angles.shape, 1 / _ANGLES)
    else:
        words, p = atoms
        angles = jnp.broadcast_to(words, p.shape)
    ends = jax.vmap(lambda i, some: jax.vmap(lambda y: problem.last(start.at[i].set(y)))(some))(
        problem.tokens, angles
    )
    h = problem.window(ends[:, :, None] - angles[:, None, :])  # source, its angle, the angle asked for
    values = problem.n_tokens * (jnp.einsum("sm,smm->s", p, h) - jnp.einsum("sm,sk,smk->s", p, p, h))
    assert problem.control is not None
    control, mean = problem.control
    x = start[-1]
    moved = jax.vmap(lambda y: control.displacement(x, y), 1, 1)(angles)
    slope = window_slope(control.end(x) - angles, problem.source.vocab_size)
    centred = slope - jnp.sum(p * slope, axis=1, keepdims=True)
    return values - jnp.sum(p * moved * centred, axis=1) + mean


def waves(law, starts: np.ndarray, i: int, degree: int) -> np.ndarray:
    """Sums over the other tokens of e^{-i n theta_k} less its mean, as the last token sees them, (prompt, feature).

    Polynomials in position weigh the tokens before the source i and those after it. Uniform prompts look the same
    from every last token, but for rotation and reflection; those of codewords look different from every word.
    """
    k, n_tokens = np.arange(starts.shape[1]), starts.shape[1]
    sigma = (k + 1) / n_tokens
    before = _polynomials(np.log(sigma), k < i, degree) / np.sqrt(sigma)[:, None]
    basis = np.concatenate([before, _polynomials(sigma, (k > i) & (k < n_tokens - 1), degree)], axis=1)
    if isinstance(law, jk.UniformPrompts):
        return np.concatenate([np.cos(n * (starts - starts[:, -1:])) @ basis for n in (1, 2, 3)], axis=1)
    n = np.arange(1, law.vocab_size // 2 + 1)
    means = np.asarray(jax.vmap(lambda s: law.fourier(s, n.size))(jnp.asarray(sigma)))
    sums = (np.exp(-1j * starts[:, None, :] * n[:, None]) - means.T) @ basis
    parts = np.concatenate([sums.real, sums.imag[:, : (law.vocab_size - 1) // 2]], axis=1).reshape(
        starts.shape[0], -1
    )
    word = np.round(starts[:, -1:] * law.vocab_size / (2 * np.pi)).astype(int) % law.vocab_size
    return np.concatenate([parts * (word == m) for m in range(law.vocab_size)], axis=1)


def _polynomials(x: np.ndarray, where: np.ndarray, degree: int) -> np.ndarray:
    inside = x[where]
    scaled = 2 * (inside - inside.min()) / (inside.max() - inside.min()) - 1
    table = np.zeros((x.size, degree + 1))
    table[where] = np.polynomial.chebyshev.chebvander(scaled, degree)
    return table


def residual(values: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Values less their regression on features of mean zero, the coefficients of either half from the other."""
    half = np.arange(values.size) < values.size // 2
    rest = values.copy()
    for fitted, applied in ((half, ~half), (~half, half)):
        centred = values[fitted] - values[fitted].mean()
        coefficients = np.linalg.lstsq(features[fitted], centred, rcond=1e-8)[0]
        rest[applied] -= features[applied] @ coefficients
    return rest


def slope(sizes, distances: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Exponent and level of |S_N - S| = e^level N^exponent by weighted least squares, and the exponent's error."""
    x, y, weights = np.log(sizes), np.log(np.abs(distances)), np.abs(distances) / errors
    (exponent, level), covariance = np.polyfit(x, y, 1, w=weights, cov="unscaled")
    return float(exponent), float(level), float(np.sqrt(covariance[0, 0]))


def main() -> None:
    """Measure, print and draw."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    jax.config.update("jax_enable_x64", True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for ax, law, name in zip(axes, (jk.UniformPrompts(), CODEWORDS), ("uniform", "four-codeword"), strict=True):
        found = []
        for n_tokens in SIZES:
            found.append(distance(law, n_tokens, 2048, seed=n_tokens))
            cells = " ".join(f"{v:+.5f}({e:.5f})" for v, e in zip(found[-1].values, found[-1].errors, strict=True))
            print(f"{name}, N = {n_tokens}: {cells}, variance / {np.round(found[-1].gain, 1)}", flush=True)
        draw(ax, np.stack([f.values for f in found]), np.stack([f.errors for f in found]))
        ax.set_title(f"{name} prompts", fontsize=11)
    axes[0].set_ylabel(r"distance to the limit $|S_N(\sigma_0) - S(\sigma_0)|$")
    figure.savefig(FIGURE, dpi=160)


def draw(ax, values: np.ndarray, errors: np.ndarray) -> None:
    """Distances of one law with fitted powers of N, one colour a source."""
    for k, (place, marker) in enumerate(zip(PLACES, "os^", strict=True)):
        exponent, level, error = slope(SIZES, values[:, k], errors[:, k])
        label = rf"$\sigma_0$ = {place:g}: $N^{{{exponent:.2f} \pm {error:.2f}}}$"
        x = np.array(SIZES) * 1.04 ** (k - 1)
        ax.errorbar(x, np.abs(values[:, k]), errors[:, k], color=COLOURS[k], fmt=marker, capsize=3, label=label)
        ax.plot(x, np.exp(level) * x**exponent, color=COLOURS[k], lw=1)
        print(f"  source {place:g}: slope {exponent:.3f} +- {error:.3f}")
    ax.set(xscale="log", yscale="log", xlabel="number of tokens $N$")
    ax.set_xticks(SIZES, [str(n) for n in SIZES])
    ax.minorticks_off()
    ax.set_yticks([0.002, 0.005, 0.01, 0.02, 0.05], ["0.002", "0.005", "0.01", "0.02", "0.05"])
    ax.legend(fontsize=9)


if __name__ == "__main__":
    main()
