"""Two questions that the theorems leave open, answered from particles with error bars.

    python scripts/finite_n.py            # about ten minutes; writes notebooks/figures/finite_n.png

Does the U hold at N = 100 to 1000 tokens, and what happens at and past the smallness condition (1.22)? At beta =
lambda = 1, M = 8 the condition holds up to t = 2.237, and the limit loses its recency at 2.457. Profiles are
averaged over twentieths of the prompt, with the joint covariance of the sources in them.
"""

import dataclasses
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

import jaxkinetic as jk
from jaxkinetic.plotting import COLOURS, MARKERS

SIZES = (100, 300, 1000)
TIMES = (1.0, 2.0, 2.23, 2.45, 3.0)
FIGURE = Path(__file__).parents[1] / "notebooks" / "figures" / "finite_n.png"
_BINS = np.linspace(0, 1, 21)


@dataclasses.dataclass(frozen=True)
class Binned:
    """A profile averaged over parts of the prompt.

    Attributes:
        centres: mean position of the sources of each part.
        values: mean of S_N over them.
        covariance: of the means.
        limit: mean of S_t over the same sources.
    """

    centres: np.ndarray
    values: np.ndarray
    covariance: np.ndarray
    limit: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Standard errors of the means."""
        return np.sqrt(np.diag(self.covariance))

    def rise(self, part: int, above: int) -> tuple[float, float, float]:
        """Mean of one part less that of another: from particles, its standard error, in the limit."""
        contrast = np.zeros(self.values.size)
        contrast[part] += 1
        contrast[above] -= 1
        error = np.sqrt(contrast @ self.covariance @ contrast)
        return float(contrast @ self.values), float(error), float(contrast @ self.limit)

    def primacy(self) -> tuple[float, float, float]:
        """How far the first twentieth is above the one where the limit is lowest."""
        return self.rise(0, int(np.argmin(self.limit)))

    def recency(self) -> tuple[float, float, float]:
        """How far the profile rises over the last fifth of the prompt."""
        return self.rise(-1, -5)


def binned(model: jk.CausalAttention, time: float, n_tokens: int, n_prompts: int, seed: int = 0) -> Binned:
    """Estimate the profile of uniform prompts, M = 8, and average it over the parts of the prompt."""
    found = jk.estimate_profile(
        model, time, 8, n_tokens, n_prompts, jax.random.key(seed), joint=True, progress=True
    )
    part = np.digitize(found.sources, _BINS[1:-1], right=True)
    mean = (part[None, :] == np.arange(_BINS.size - 1)[:, None]).astype(float)
    mean /= mean.sum(axis=1, keepdims=True)
    limit = np.asarray(jk.retrieval_profile(model, time, 8, found.sources).values)
    return Binned(mean @ found.sources, mean @ found.values, mean @ found.covariance @ mean.T, mean @ limit)


def draw(ax: Axes, found: dict[int, Binned]) -> None:
    """Draw the limit and the profiles of every N, with 95 per cent error bars."""
    last = found[max(found)]
    ax.plot(last.centres, last.limit, color="0.2", lw=1.6, label=r"limit $S_t$")
    for k, (n_tokens, profile) in enumerate(found.items()):
        x = profile.centres + 0.008 * (k - 1)
        ax.errorbar(
            x, profile.values, 1.96 * profile.errors, color=COLOURS[k], fmt=MARKERS[k], ms=3.5, capsize=1.5, lw=1,
            label=f"N = {n_tokens}",
        )  # fmt: skip
    ax.set(xlim=(0, 1), xlabel=r"position of the source $\sigma_0$")


def main() -> None:
    """Estimate, print and draw."""
    jax.config.update("jax_enable_x64", True)
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    figure, axes = plt.subplots(1, len(TIMES), figsize=(13.5, 3.4), layout="constrained")
    print("| t | N | prompts | primacy (limit) | recency (limit) |\n" + "|---" * 5 + "|")
    for ax, time in zip(axes, TIMES, strict=True):
        found = {}
        for n_tokens in SIZES:
            n_prompts = (4096 if time < 1.5 else 16384) if n_tokens < 1000 else 4096
            profile = found[n_tokens] = binned(model, time, n_tokens, n_prompts, seed=n_tokens)
            cells = ["{:.3f} ± {:.3f} ({:.3f})".format(*rise) for rise in (profile.primacy(), profile.recency())]
            print(f"| {time:g} | {n_tokens} | {n_prompts} | " + " | ".join(cells) + " |", flush=True)
        draw(ax, found)
        shape = jk.u_shape(model, time, 8)
        name = "the theorem holds" if shape.theorem_holds else "past (1.22)"
        ax.set_title(f"t = {time:g}: {name}\nlimit {'a U' if shape.is_u_shaped else 'no U'}", fontsize=10)
    axes[0].set_ylabel(r"retrieval profile $S_N(\sigma_0)$")
    axes[0].legend(fontsize=8)
    figure.savefig(FIGURE, dpi=160)


if __name__ == "__main__":
    main()
