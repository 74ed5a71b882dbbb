"""Designed positional weights beside ALiBi, and the profiles of both."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from jaxkinetic.model import PositionalWeights
from jaxkinetic.plotting.style import COLOURS, MARKERS
from jaxkinetic.retrieval import WindowMeans
from jaxkinetic.shape.weight_design import DesignedWeights

_NAMES = ("designed", "ALiBi")
_LINES = ("-", "--")


def plot_weights(positions: PositionalWeights, ax: Axes | None = None, **style: object) -> Axes:
    """Draw the attention density of the last token, b(s) / int_0^1 b, over the distance s.

    Example:
        >>> ax = plotting.plot_weights(jk.ALiBi(1.0), label="ALiBi")
        >>> [f"{y:.3f}" for y in ax.lines[0].get_ydata()[[0, -1]]]
        ['1.582', '0.582']
    """
    ax = ax or plt.gca()
    # Crowded towards both ends, where weights bend most.
    s = np.sin(np.linspace(0, np.pi / 2, 500)) ** 2
    log_density = positions.log_weight(jnp.asarray(s)) - positions.log_mass(jnp.ones(()))
    density = np.exp(np.asarray(log_density))
    ax.semilogy(s, density, **style)  # pyright: ignore[reportArgumentType]
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.set_xlim(0, 1)
    ax.set_xlabel("distance from reader to source, $s$")
    ax.set_ylabel(r"attention density, $b(s) / \int_0^1 b$")
    return ax


def plot_designed_profiles(
    designed: DesignedWeights,
    estimates: tuple[WindowMeans, WindowMeans] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw both profiles, and means over windows of particles (designed weights, ALiBi) with 95 % error bars."""
    ax = ax or plt.gca()
    spreads = (designed.range, designed.alibi_range)
    for i, profile in enumerate((designed.profile, designed.alibi_profile)):
        label = f"{_NAMES[i]}, range {spreads[i]:.2g}"
        ax.plot(designed.sources, profile, color=COLOURS[i], ls=_LINES[i], lw=1.8, label=label)
    if np.any(designed.target):
        shift = np.mean(designed.profile - designed.target)
        ax.plot(designed.sources, designed.target + shift, color="black", ls=":", lw=1.4, label="target")
    for i, found in enumerate(estimates or ()):
        label = f"{_NAMES[i]}, N = {found.n_tokens}, {found.n_prompts} prompts"
        ax.errorbar(
            found.sources, found.values, 1.96 * found.standard_error, fmt=MARKERS[i], color=COLOURS[i], mfc="white",
            ms=5, capsize=2, label=label,
        )  # fmt: skip
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"position of the source, $\sigma_0$")
    ax.set_ylabel(r"retrieval profile, $S_t(\sigma_0)$")
    ax.legend(fontsize=8)
    return ax


def plot_design(designed: DesignedWeights, estimates: tuple[WindowMeans, WindowMeans] | None = None) -> Figure:
    """The weights beside the profiles."""
    figure = plt.figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, positions in enumerate((designed.positions, designed.alibi)):
        label = _NAMES[i] + (rf", $\lambda$ = {float(designed.alibi.lam):.3g}" if i else "")
        plot_weights(positions, left, color=COLOURS[i], ls=_LINES[i], lw=1.8, label=label)
    left.set_title(f"Mean attention distance {designed.mean_distance:.4g} for both", fontsize=11)
    left.legend(fontsize=9)
    plot_designed_profiles(designed, estimates, right)
    right.set_title(f"Profile {designed.gain:.3g} times flatter", fontsize=11)
    if np.any(designed.target):
        right.set_title(f"Profile {designed.gain:.3g} times closer to the target", fontsize=11)
    return figure
