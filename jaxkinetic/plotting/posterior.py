"""The posterior of two parameters: its regions, its marginals beside their priors, and predicted curves."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxkinetic.inference import Posterior, RetrievalCurve
from jaxkinetic.plotting.curves import plot_curve, set_scale
from jaxkinetic.plotting.style import COLOURS, MARKERS


def plot_posterior_region(posterior: Posterior, ax: Axes | None = None) -> Axes:
    """Draw the density of both parameters relative to its prior, with the regions that hold 68 and 95 per cent."""
    ax = ax or plt.gca()
    second, density = posterior.second, posterior.density / posterior.density.max()
    first = np.broadcast_to(posterior.first[:, None], second.shape)
    colour = np.log10(np.maximum(density, 1e-6))
    mesh = ax.pcolormesh(first, second, colour, cmap="cividis", vmin=-4, vmax=0, shading="gouraud", rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, extend="min", label=r"$\log_{10}$ of the density relative to its peak")
    for level, style in ((0.68, "-"), (0.95, "--")):
        threshold = density[posterior.region(level)].min()
        ax.contour(first, second, density, levels=[threshold], colors="white", linestyles=style, linewidths=1.2)
    for axis, set_limits, parameter in zip(
        (ax.xaxis, ax.yaxis), (ax.set_xlim, ax.set_ylim), posterior.parameters, strict=True
    ):
        set_scale(axis, parameter, 0.1)
        set_limits(float(parameter.low), float(parameter.high))
    ax.set_facecolor(plt.get_cmap("cividis")(0.0))
    return ax


def plot_marginal(posterior: Posterior, name: str, ax: Axes | None = None) -> Axes:
    """Draw the marginal of one parameter relative to its prior (dashed), and its shortest interval."""
    ax = ax or plt.gca()
    edges, share = posterior.marginal(name)
    parameter, interval = next(p for p in posterior.parameters if p.name == name), posterior.intervals[name]
    density = share / np.diff(parameter.share_of(edges))
    ax.stairs(density, edges, color=COLOURS[0], lw=1.6, label="posterior")
    inside = (edges[:-1] >= interval.low * (1 - 1e-9)) & (edges[1:] <= interval.high * (1 + 1e-9))
    ax.stairs(np.where(inside, density, 0), edges, color=COLOURS[4], fill=True, alpha=0.5)
    ax.axhline(1, color="black", ls="--", lw=1, label="prior")
    set_scale(ax.xaxis, parameter, 1)
    ax.set_xlim(float(parameter.low), float(parameter.high))
    ax.set_ylim(0)
    ax.set_ylabel("density / prior")
    ax.set_title(posterior.describe(name), fontsize=10)
    return ax


def plot_predicted(
    posterior: Posterior, curve: RetrievalCurve, ax: Axes | None = None, colour: str = COLOURS[0], marker: str = "o"
) -> Axes:
    """Draw one of the curves with the median and the band of the accuracies that the posterior predicts."""
    ax = ax or plt.gca()
    grid = np.union1d(np.linspace(curve.sources[0], curve.sources[-1], 64 - curve.sources.size), curve.sources)
    low, median, high = posterior.predict(curve, grid)
    ax.fill_between(grid, 100 * low.clip(0, 1), 100 * high.clip(0, 1), color=colour, alpha=0.2, lw=0)
    ax.plot(grid, 100 * median, color=colour, lw=1.6)
    return plot_curve(curve, ax, colour, marker)


def plot_posterior(posterior: Posterior) -> Figure:
    """Regions of both parameters, both marginals, every curve with its band, the priors and the evidence."""
    n_rows = -(-len(posterior.curves) // 4)
    figure = plt.figure(figsize=(12, 6 + n_rows), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.15])[0]
    plot_posterior_region(posterior, left.subplots())
    left.suptitle("68 % (solid) and 95 % (dashed) regions", fontsize=11)
    top, bottom = right.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.25])[:, 0]
    for name, ax in zip(posterior.intervals, top.subplots(1, 2), strict=True):
        plot_marginal(posterior, name, ax)
    names = list(dict.fromkeys(c.name or "curve" for c in posterior.curves))
    axes = bottom.subplots(n_rows, -(-len(posterior.curves) // n_rows), squeeze=False)
    for i, ax in enumerate(axes.ravel()):
        if i >= len(posterior.curves):
            ax.set_axis_off()
            continue
        curve = posterior.curves[i]
        plot_predicted(posterior, curve, ax, COLOURS[i % 7], MARKERS[i % 7])
        is_one = curve.n_items and len(names) == 1
        ax.set_title(f"{curve.n_items} items" if is_one else curve.label, fontsize=10 if n_rows == 1 else 7)
        if i % axes.shape[1]:
            ax.set_ylabel("")
        if i + axes.shape[1] < len(posterior.curves):
            ax.set_xlabel("")
    against = ",  ".join(
        f"{posterior.log_evidence - value:+.1f} against {name}" for name, value in posterior.log_evidence_of.items()
    )
    name = " and ".join(names)
    shown = " ".join(posterior.describe_priors().replace("\n", "; ").split())
    figure.suptitle(f"{name}: log evidence {against}\npriors: {shown}", fontsize=9)
    return figure
