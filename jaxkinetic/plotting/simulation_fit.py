"""Fits through the simulator: the curves, and the way of the parameters."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from jaxkinetic._types import check_choice
from jaxkinetic.inference import RetrievalCurve, SimulationFit
from jaxkinetic.plotting.curves import plot_curve, share_height
from jaxkinetic.plotting.style import COLOURS, MARKERS


def plot_simulated_curve(
    fit: SimulationFit,
    curve: RetrievalCurve,
    ax: Axes | None = None,
    colour: str = COLOURS[0],
    marker: str = "o",
    label: str | None = None,
) -> Axes:
    """Draw one measured curve and its fit at the same positions, with two Monte Carlo errors within 0 to 100 %."""
    ax = ax or plt.gca()
    fitted, error = 100 * fit.predict(curve), 200 * fit.prediction_error(curve)
    low, high = (fitted - error).clip(0), (fitted + error).clip(max=100)
    ax.fill_between(curve.sources, low, high, color=colour, alpha=0.3, lw=0)
    ax.plot(curve.sources, fitted, color=colour, lw=1.6)
    return plot_curve(curve, ax, colour, marker, label)


def plot_history(fit: SimulationFit, name: str, ax: Axes | None = None, colour: str = COLOURS[0]) -> Axes:
    """Draw the mean of a parameter in every block, and the fit with its 68 per cent interval.

    Blocks of the first quarter, which the fit leaves out, are hollow.
    """
    ax = ax or plt.gca()
    check_choice("name", name, fit.values)
    k = fit.theory.names.index(name)
    parameter, values = fit.theory.parameters[k], fit.theory.unscaled(fit.history)[:, k]
    blocks = 1 + np.arange(values.size)
    if fit.identifiable[name]:
        low, high = fit.interval(name, 0.6827)
        ax.axhspan(low, high, color=colour, alpha=0.15, lw=0)
    ax.axhline(fit.values[name], color=colour, lw=1.6)
    ax.plot(blocks, values, color=colour, lw=0.8)
    ax.plot(blocks[: fit.tail.start], values[: fit.tail.start], "o", color=colour, mfc="white", ms=4)
    ax.plot(blocks[fit.tail], values[fit.tail], "o", color=colour, ms=4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("block of stochastic steps")
    ax.set_ylabel(parameter.short)
    ax.set_title(f"{parameter.short} = {fit.describe(name)}".replace("+-", r"$\pm$"), fontsize=10)
    return ax


def plot_simulation_fit(fit: SimulationFit, figure: Figure | None = None) -> Figure:
    """One panel per curve with data and fit, and the way of both parameters block by block."""
    n = len(fit.curves)
    figure = figure or plt.figure(figsize=(3.3 * n + 4.2, 4.3), layout="constrained")
    grid = figure.add_gridspec(2, n + 1, width_ratios=[1] * n + [1.25])
    panels = [figure.add_subplot(grid[:, i]) for i in range(n)]
    for i, (curve, ax) in enumerate(zip(fit.curves, panels, strict=True)):
        plot_simulated_curve(fit, curve, ax, colour=COLOURS[i % 7], marker=MARKERS[i % 7])
        ax.set_title(f"{curve.n_items} items" if curve.n_items else curve.label, fontsize=10)
        if i:
            ax.set_ylabel("")
    share_height(panels)
    upper = figure.add_subplot(grid[0, n])
    lower = figure.add_subplot(grid[1, n], sharex=upper)
    first, second = fit.values
    plot_history(fit, first, upper, COLOURS[5]).set_xlabel("")
    plot_history(fit, second, lower, COLOURS[3])
    upper.tick_params(labelbottom=False)
    name = fit.curves[0].name or "retrieval curve"
    p_value = f", p = {fit.p_value:.2g}" if np.isfinite(fit.p_value) else ""
    settled = "" if fit.converged else "; not converged"
    figure.suptitle(
        f"{name}\n{fit.n_prompts} prompts of {fit.n_tokens} tokens: "
        rf"$\chi^2$ = {fit.chi2:.1f} / {fit.dof}{p_value}{settled}",
        fontsize=11,
    )
    key = [
        Patch(color="0.4", alpha=0.3, lw=0, label="two Monte Carlo errors"),
        Line2D([], [], color="0.4", marker="o", mfc="white", lw=0, ms=4, label="block left out"),
        Patch(color="0.4", alpha=0.15, lw=0, label="68 % interval, where identified"),
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=9, frameon=False)
    return figure
