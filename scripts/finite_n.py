"""Two questions that the theorems leave open, answered from particles with error bars.

    python scripts/finite_n.py            # about half an hour; writes notebooks/figures/finite_n.png

Does the U hold at N = 100 to 1000 tokens, and what happens at and past the smallness condition (1.22),
t sup a_n <= min(3 - sqrt 3, 2 (1 - e^{-lam}))? At lam = 0.3 its second side binds, at lam = 1 both do, at lam = 6
the first; the limit loses its recency later than all of them, at t a(8) = 2 (1 - e^{-lam}). Profiles are averaged
over twentieths of the prompt, their rise from the last tenth but one to the last, with the joint covariance of the
sources.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

import jaxkinetic as jk
from jaxkinetic.plotting import COLOURS, MARKERS
from jaxkinetic.shape.phase import phase_edges

LAMS = (0.3, 1.0, 6.0)
PROMPTS = {100: 32768, 300: 8192, 1000: 2048}
FIGURE = Path(__file__).parents[1] / "notebooks" / "figures" / "finite_n.png"
_TWENTIETHS, _TENTHS = np.linspace(0, 1, 21), np.linspace(0, 1, 11)


# From particles, its standard error, in the limit.
Number = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Change:
    """How far means over parts of the prompt are above one of them, in per cent (of logarithms).

    Attributes:
        values: from particles, per part.
        errors: standard errors, from the joint covariance.
        limit: of S_t at the same sources.
    """

    values: np.ndarray
    errors: np.ndarray
    limit: np.ndarray

    def at(self, part: int) -> Number:
        """Of one part."""
        return float(self.values[part]), float(self.errors[part]), float(self.limit[part])


def change(
    estimate: jk.ProfileEstimate, edges: np.ndarray, model: jk.CausalAttention, time: float, part: int | None
) -> Change:
    """Compare the means over parts with those of one part, where the limit is lowest if it is None."""
    means = jk.window_means(estimate, edges)
    every = np.asarray(jk.retrieval_profile(model, time, 8, estimate.sources).values)
    limit = means.weights @ every
    part = int(np.argmin(limit)) if part is None else part
    jacobian = np.diag(1 / means.values)
    jacobian[:, part] -= 1 / means.values[part]
    errors = np.sqrt(np.diag(jacobian @ means.covariance @ jacobian.T))
    return Change(100 * np.log(means.values / means.values[part]), 100 * errors, 100 * np.log(limit / limit[part]))


def verdict(found: Number) -> str:
    """Whether a change is seen above its error, at 95 per cent."""
    return "cannot tell" if abs(found[0]) <= 1.96 * found[1] else "rises" if found[0] > 0 else "falls"


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is asked of one profile.

    Attributes:
        profile: twentieths, above the one where the limit is lowest.
        primacy: of the first twentieth above that one.
        recency: of the last tenth above the one before.
    """

    profile: Change
    primacy: Number
    recency: Number


def shape_of(model: jk.CausalAttention, time: float, n_tokens: int, n_prompts: int) -> Shape:
    """Estimate the profile of uniform prompts, M = 8."""
    found = jk.estimate_profile(
        model, time, 8, n_tokens, n_prompts=n_prompts, key=jax.random.key(n_tokens), joint=True, progress=True
    )
    profile, end = change(found, _TWENTIETHS, model, time, None), change(found, _TENTHS, model, time, -2)
    return Shape(profile, profile.at(0), end.at(-1))


def depths(lam: float) -> tuple[tuple[float, ...], float, float]:
    """Half the condition's depth, at it, half way to the end of recency, and past that; the condition, the end."""
    recency, theorem = (float(x) for x in phase_edges(1.0, lam, 8))
    return (0.5 * theorem, theorem, (theorem + recency) / 2, 1.15 * recency), theorem, recency


def draw_profiles(ax: Axes, shapes: dict[int, Shape]) -> None:
    """Profiles of every N above the limit's lowest part, with 95 per cent error bars."""
    centres = (_TWENTIETHS[1:] + _TWENTIETHS[:-1]) / 2
    limit = shapes[max(shapes)].profile.limit
    ax.plot(centres, limit, color="0.2", lw=1.6, label="limit")
    for k, (n_tokens, shape) in enumerate(shapes.items()):
        ax.errorbar(
            centres + 0.007 * (k - 1), shape.profile.values, 1.96 * shape.profile.errors, color=COLOURS[k],
            fmt=MARKERS[k], ms=3.5, capsize=1.5, lw=1, label=f"N = {n_tokens}",
        )  # fmt: skip
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(xlim=(0, 1), xlabel=r"position of the source $\sigma_0$")


def draw_recency(ax: Axes, lam: float, found: dict[float, dict[int, Shape]]) -> None:
    """Rise of the last tenth against depth, of the limit and of particles with 95 per cent error bars."""
    times, theorem, recency = depths(lam)
    t = np.linspace(0.45 * theorem, 1.05 * times[-1], 80)
    model, sources = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(lam)), (np.arange(500) + 0.5) / 500
    tenths = [np.asarray(jk.retrieval_profile(model, x, 8, sources).values).reshape(10, 50).mean(1) for x in t]
    ax.plot(t, [100 * np.log(x[-1] / x[-2]) for x in tenths], color="0.2", lw=1.6, label="limit")
    for k, n_tokens in enumerate(PROMPTS):
        rise, error, _ = np.array([found[x][n_tokens].recency for x in times]).T
        ax.errorbar(
            np.asarray(times) + 0.015 * times[-1] * (k - 1), rise, 1.96 * error, color=COLOURS[k], fmt=MARKERS[k],
            ms=4, capsize=2, lw=1, label=f"N = {n_tokens}",
        )  # fmt: skip
    ax.axhline(0, color="0.6", lw=0.8)
    ax.axvline(theorem, color="0.4", ls="--", lw=1, label="condition (1.22)")
    ax.axvline(recency, color="0.4", ls=":", lw=1.4, label="the limit loses its recency")
    side = r"2 (1 - e^{-\lambda})$" if lam < 1.005 else r"3 - \sqrt{3}$"
    ax.set(xlabel="depth t", title=rf"$\lambda$ = {lam:g}, condition $t \sup a_n \leq {side}")


def draw(every: dict[float, dict[float, dict[int, Shape]]]) -> None:
    """Draw recency against depth for every lambda, and below profiles past the condition; write the figure."""
    figure, axes = plt.subplots(2, len(every), figsize=(11.5, 6.8), layout="constrained")
    for (upper, lower), (lam, found) in zip(axes.T, every.items(), strict=True):
        draw_recency(upper, lam, found)
        time = depths(lam)[0][2]
        draw_profiles(lower, found[time])
        lower.set_title(f"t = {time:.3g}, past the condition")
    axes[0, 0].set_ylabel("rise from the last tenth but one\nto the last (%)")
    axes[1, 0].set_ylabel(r"$S_N(\sigma_0)$ above the limit's lowest (%)")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(FIGURE, dpi=160)


def table(every: dict[float, dict[float, dict[int, Shape]]], what: str) -> str:
    """One of the numbers for every lambda, depth and N as Markdown, in brackets the limit's at the same sources."""
    heads = ["lambda", "t", "t / that of (1.22)", *(f"N = {n}" for n in PROMPTS)]
    rows = [heads, ["---"] * len(heads)]
    for lam, found in every.items():
        for time, shapes in found.items():
            numbers = [getattr(shape, what) for shape in shapes.values()]
            cells = ["{:.2f} ± {:.2f} ({:.2f}), ".format(*x) + verdict(x) for x in numbers]
            rows.append([f"{lam:g}", f"{time:.3f}", f"{time / depths(lam)[1]:.2f}", *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Estimate, print and draw."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    jax.config.update("jax_enable_x64", True)
    every: dict[float, dict[float, dict[int, Shape]]] = {}
    for lam in LAMS:
        model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(lam))
        every[lam] = {
            time: {n: shape_of(model, time, n, n_prompts) for n, n_prompts in PROMPTS.items()}
            for time in depths(lam)[0]
        }
    for what in ("recency", "primacy"):
        print(f"{what}, per cent:\n{table(every, what)}\n")
    draw(every)


if __name__ == "__main__":
    main()
