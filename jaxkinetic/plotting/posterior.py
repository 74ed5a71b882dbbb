"""The posterior of beta and lam: its regions, its marginals beside their priors, and predicted curves."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxkinetic.inference import Posterior, RetrievalCurve
from jaxkinetic.plotting.curves import plot_curve
from jaxkinetic.plotting.style import COLOURS, MARKERS

_SYMBOLS = {"beta": r"sharpness of attention, $\beta$", "lam": r"positional bias, $\lambda$"}


def plot_posterior_region(posterior: Posterior, ax: Axes | None = None) -> Axes:
    """Draw the density of (beta, lam) relative to its prior, with the regions that hold 68 and 95 per cent."""
    ax = ax or plt.gca()
    beta = np.broadcast_to(posterior.beta[:, None], posterior.lam.shape)
    density = posterior.density / posterior.density.max()
    colour = np.log10(np.maximum(density, 1e-6))
    mesh = ax.pcolormesh(
        beta, posterior.lam, colour, cmap="cividis", vmin=-4, vmax=0, shading="gouraud", rasterized=True
    )
    ax.figure.colorbar(mesh, ax=ax, extend="min", label=r"$\log_{10}$ of the density relative to its peak")
    for level, style in ((0.68, "-"), (0.95, "--")):
        threshold = density[posterior.region(level)].min()
        ax.contour(
            beta, posterior.lam, density, levels=[threshold], colors="white", linestyles=style, linewidths=1.2
        )
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=0.1, linscale=0.6)
    ax.set_xlim(*posterior.priors.beta_range)
    ax.set_ylim(*posterior.priors.lam_range)
    ax.set_facecolor(plt.get_cmap("cividis")(0.0))
    ax.set_xlabel(_SYMBOLS["beta"])
    ax.set_ylabel(_SYMBOLS["lam"])
    return ax


def plot_marginal(posterior: Posterior, name: str, ax: Axes | None = None) -> Axes:
    """Draw the marginal of "beta" or "lam" relative to its prior (dashed), and its shortest interval."""
    ax = ax or plt.gca()
    edges, share = posterior.marginal(name)
    priors, interval = posterior.priors, posterior.intervals[name]
    flat = np.log if name == "beta" else lambda v: np.arcsinh(v / priors.lam_scale)
    low, high = flat(np.asarray(priors.beta_range if name == "beta" else priors.lam_range))
    density = share / np.diff(flat(edges)) * (high - low)
    ax.stairs(density, edges, color=COLOURS[0], lw=1.6, label="posterior")
    inside = (edges[:-1] >= interval.low * (1 - 1e-9)) & (edges[1:] <= interval.high * (1 + 1e-9))
    ax.stairs(np.where(inside, density, 0), edges, color=COLOURS[4], fill=True, alpha=0.5)
    ax.axhline(1, color="black", ls="--", lw=1, label="prior")
    ax.set_xlim(*(priors.beta_range if name == "beta" else priors.lam_range))
    if name == "beta":
        ax.set_xscale("log")
    else:
        ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    ax.set_ylim(0)
    ax.set_xlabel(_SYMBOLS[name])
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
    """Regions of (beta, lam), both marginals, every curve with its band, the priors and the evidence."""
    n_rows = -(-len(posterior.curves) // 4)
    figure = plt.figure(figsize=(12, 6 + n_rows), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.15])[0]
    plot_posterior_region(posterior, left.subplots())
    left.suptitle("68 % (solid) and 95 % (dashed) regions", fontsize=11)
    top, bottom = right.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.25])[:, 0]
    for name, ax in zip(("beta", "lam"), top.subplots(1, 2), strict=True):
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
    shown = " ".join(str(posterior.priors).replace("\n", "; ").split())
    figure.suptitle(f"{name}: log evidence {against}\npriors: {shown}", fontsize=9)
    return figure
