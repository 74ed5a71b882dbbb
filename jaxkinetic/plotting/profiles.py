"""Predicted profiles and their minima."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxkinetic.model import CausalAttention
from jaxkinetic.plotting.style import COLOURS
from jaxkinetic.retrieval import ProfileEstimate, retrieval_profile, u_shape
from jaxkinetic.retrieval.band import FEWEST_PROMPTS

_FEW_POINTS = 16
_START = 0.05


def plot_profile(
    model: CausalAttention, time: float, vocab_size: int, ax: Axes | None = None, centred: bool = False
) -> Axes:
    """Draw the retrieval profile S_t(sigma_0) (1.21) and mark its minimum."""
    ax = ax or plt.gca()
    # Crowded towards the start, where the profile grows without bound.
    sources = np.linspace(0.03, 1, 400) ** 2
    values = np.asarray(retrieval_profile(model, time, vocab_size, sources).values)
    shape = u_shape(model, time, vocab_size)
    shift = float(shape.minimum) if centred else 0.0
    ax.plot(sources, values - shift, color=COLOURS[0], lw=1.8)
    if int(shape.n_minima):
        ax.plot(float(shape.argmin), float(shape.minimum) - shift, "o", color=COLOURS[1], ms=7, zorder=4)
        ax.text(
            0.5, 0.94, rf"minimum at $\sigma_0$ = {float(shape.argmin):.3f}", transform=ax.transAxes, ha="center",
            va="top", fontsize=9, color=COLOURS[1],
        )  # fmt: skip
    inner = values[sources > 0.02] - shift
    low, high = inner.min(), max(values[-1] - shift, np.quantile(inner, 0.95))
    ax.set_ylim(low - 0.08 * (high - low), high + 0.15 * (high - low))
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"position of the source, $\sigma_0$")
    ax.set_ylabel(r"$S_t(\sigma_0) - \min S_t$" if centred else r"retrieval profile, $S_t(\sigma_0)$")
    return ax


def plot_estimate(estimate: ProfileEstimate, ax: Axes | None = None, colour: str = COLOURS[0]) -> Axes:
    """Draw S_N(sigma_0) from particles: points with 95 % error bars, or a line with its band if many.

    A joint estimate also has the band that holds all its sources at once.
    """
    ax = ax or plt.gca()
    reach = 1.96 * estimate.standard_error
    label = f"N = {estimate.n_tokens}, {estimate.n_prompts} prompts (95 %)"
    outer = reach
    if estimate.is_joint and estimate.n_prompts >= FEWEST_PROMPTS:
        outer = estimate.simultaneous_error()
        ax.fill_between(
            estimate.sources, estimate.values - outer, estimate.values + outer, color=colour, alpha=0.15, lw=0,
            label="95 % for the whole curve",
        )  # fmt: skip
    if estimate.sources.size <= _FEW_POINTS:
        ax.errorbar(
            estimate.sources,
            estimate.values,
            reach,
            fmt="o",
            color=colour,
            mfc="white",
            ms=5,
            capsize=2,
            label=label,
        )
    else:
        low, high = estimate.values - reach, estimate.values + reach
        ax.fill_between(estimate.sources, low, high, color=colour, alpha=0.3, lw=0)
        ax.plot(estimate.sources, estimate.values, color=colour, lw=1, label=label)
    # The first tokens are far above the rest: the view is that of the others.
    inner = estimate.sources > _START
    if inner.any():
        low, high = (estimate.values - outer)[inner].min(), (estimate.values + outer)[inner].max()
        ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"position of the source, $\sigma_0$")
    ax.set_ylabel(r"retrieval profile, $S_N(\sigma_0)$")
    return ax


def plot_profile_line(
    model: CausalAttention, time: float, vocab_size: int, ax: Axes | None = None, colour: str = COLOURS[1]
) -> Axes:
    """Add the limit S_t(sigma_0) (1.21) to a picture of estimates, as a line.

    Example:
        >>> plotting.plot_profile_line(jk.CausalAttention(), 1.0, 8).lines[0].get_linestyle()
        '--'
    """
    ax = ax or plt.gca()
    sources = np.linspace(0.03, 1, 400) ** 2
    values = np.asarray(retrieval_profile(model, time, vocab_size, sources).values)
    ax.plot(sources, values, color=colour, ls="--", lw=1.4, label=r"limit, $S_t(\sigma_0)$")
    return ax


def plot_profiles(model: CausalAttention, times: Sequence[float], vocab_size: int) -> Figure:
    """Draw one panel of the centred profile for each depth, minimum marked (Figure 2)."""
    n_columns = min(len(times), 3)
    n_rows = -(-len(times) // n_columns)
    figure = plt.figure(figsize=(3.7 * n_columns, 3.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for time, ax in zip(times, axes, strict=False):
        plot_profile(model, time, vocab_size, ax, centred=True)
        ax.set_title(f"t = {time:g}", fontsize=11)
    for ax in axes[len(times) :]:
        ax.remove()
    return figure
