"""Where the profile is a U: sections through (beta, lam, t)."""

from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

from jaxkinetic.plotting.style import COLOURS
from jaxkinetic.shape.phase import PhaseDiagram

_NAMES = {"lam": r"positional bias, $\lambda$", "beta": r"sharpness of attention, $\beta$"}
_DEPTHS = (0.02, 0.1, 0.3, 0.5, 0.7)


def plot_phase_section(section: PhaseDiagram, against: Literal["lam", "beta"], ax: Axes | None = None) -> Axes:
    """Draw the phases over lam or beta (first axis of the arrays) and depth t (second axis).

    Colour is the location of the minimum, white lines are the drop of the U relative to S_t(1). The thick line is
    the exact recency boundary, above which there is no U; the theorem proves it in the hatched region below the
    dashed line.
    """
    ax = ax or plt.gca()
    across, time = np.asarray(getattr(section, against)), np.asarray(section.time)
    there = np.asarray(section.is_u_shaped)
    location = np.where(there, np.asarray(section.argmin), np.nan)
    colour = {"cmap": "cividis", "norm": LogNorm(0.01, 1)}
    mesh = ax.pcolormesh(across, time, location, shading="nearest", rasterized=True, **colour)
    ax.figure.colorbar(mesh, ax=ax, extend="min", label=r"location of the minimum, $\sigma_0$")
    drop = np.where(there, np.asarray(section.relative_drop), np.nan)
    if np.isfinite(drop).any():
        lines = ax.contour(across, time, drop, levels=_DEPTHS, colors="white", linewidths=0.9)
        longest = [max(segments, key=len) for segments in lines.allsegs if segments]
        # Each label further along its line than the one before, lest they meet where lines are close.
        along = np.linspace(0.2, 0.8, len(longest))
        places = [tuple(s[int(x * len(s))]) for s, x in zip(longest, along, strict=True) if len(s)]
        for label in ax.clabel(lines, fmt="%g", fontsize=8, inline=False, manual=places):
            label.set(path_effects=[withStroke(linewidth=2, foreground="0.25")], zorder=4)
    edge, proved = np.asarray(section.recency_time)[:, 0], np.asarray(section.theorem_time)[:, 0]
    ax.plot(across[:, 0], edge, color=COLOURS[1], lw=2.4)
    ax.plot(across[:, 0], proved, color="black", lw=1.4, ls="--")
    hatch = {"facecolor": "none", "edgecolor": "black", "hatch": "//", "lw": 0, "alpha": 0.45}
    ax.fill_between(across[:, 0], time.min(), proved, **hatch)
    several = np.asarray(section.n_minima) > 1
    ax.plot(across[several], time[several], ".", color=COLOURS[3], ms=2)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yscale("log")
    ax.set_xlim(across.min(), across.max())
    ax.set_ylim(time.min(), time.max())
    ax.set_xlabel(_NAMES[against])
    ax.set_ylabel("depth, $t$")
    return ax


def plot_outlives(section: PhaseDiagram, against: Literal["lam", "beta"], ax: Axes | None = None) -> Axes:
    """Draw by what factor in depth t recency outlives the theorem's condition, over lam or beta (first axis)."""
    ax = ax or plt.gca()
    across = np.asarray(getattr(section, against))[:, 0]
    factor = np.asarray(section.outlives)[:, 0]
    ax.plot(across, factor, color=COLOURS[0], lw=1.8)
    ax.axhline(1, color="0.6", lw=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(across.min(), across.max())
    ax.set_ylim(0.95, 1.05 * factor.max())
    ax.set_xlabel(_NAMES[against])
    ax.set_ylabel("recency / (1.22)")
    return ax


def plot_phase(lam_section: PhaseDiagram, beta_section: PhaseDiagram) -> Figure:
    """Two sections, lam against t and beta against t, with the factor by which the U outlives the theorem."""
    figure = plt.figure(figsize=(11.5, 7), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=[3, 1])
    fixed = (
        rf"$\beta$ = {float(lam_section.beta[0, 0]):g}",
        rf"$\lambda$ = {float(beta_section.lam[0, 0]):g}",
    )
    several = False
    for section, against, title, column in zip(
        (lam_section, beta_section), ("lam", "beta"), fixed, axes.T, strict=True
    ):
        plot_phase_section(section, against, column[0])
        column[0].set_xlabel("")
        column[0].set_title(f"{title},  M = {float(section.vocab_size[0, 0]):g}", fontsize=11)
        plot_outlives(section, against, column[1])
        several |= bool((section.n_minima > 1).any())
    legend = [
        Line2D([], [], color=COLOURS[1], lw=2.4, label=r"recency ends, $S_t'(1) = 0$ (exact)"),
        Line2D([], [], color="0.75", lw=0.9, label=r"drop of the U, $1 - S_t(\sigma_{\min}) / S_t(1)$"),
        Line2D([], [], color="black", lw=1.4, ls="--", label="(1.22) holds up to here"),
        Patch(facecolor="none", edgecolor="black", hatch="///", lw=0, label="Theorem 1.3 proves a U"),
    ]
    if several:
        legend.append(Line2D([], [], color=COLOURS[3], marker="o", lw=0, label="more than one minimum"))
    figure.legend(handles=legend, loc="outside upper center", ncols=len(legend), fontsize=9, frameon=False)
    return figure
