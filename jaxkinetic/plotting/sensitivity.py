"""What moves the U, and what a planned experiment would tell."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxkinetic.inference.planned_experiment import PlannedExperiment
from jaxkinetic.plotting.style import COLOURS
from jaxkinetic.shape.sensitivity import QUANTITIES, Sensitivity

_HATCHES = ("", "//", "..", "xx")


def plot_elasticities(sensitivity: Sensitivity, ax: Axes | None = None) -> Axes:
    """Draw by how many per cent each property of the U changes as a parameter grows by one per cent."""
    ax = ax or plt.gca()
    place, height = np.arange(len(QUANTITIES)), 0.8 / len(sensitivity.names)
    symbols = [*(p.short for p in sensitivity.theory.parameters), "$t$", "$M$"]
    for j, (symbol, hatch) in enumerate(zip(symbols, itertools.cycle(_HATCHES), strict=False)):
        label = rf"{symbol} = {sensitivity.parameters[j]:g}"
        offset = (j - (len(symbols) - 1) / 2) * height
        ax.barh(
            place + offset, sensitivity.elasticities[:, j], height, color=COLOURS[j % 7],
            hatch=hatch, edgecolor="white", lw=0.5, label=label,
        )  # fmt: skip
    ax.axvline(0, color="black", lw=0.8)
    names = [f"{name}\n{value:.3g}" for name, value in zip(QUANTITIES, sensitivity.values, strict=True)]
    ax.set_yticks(place, names)
    ax.invert_yaxis()
    ax.set_xlabel(r"elasticity, $(p / q)\, \partial q / \partial p$")
    ax.legend(fontsize=9, title="parameter $p$", title_fontsize=9)
    return ax


def plot_experiment(experiment: PlannedExperiment, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw the expected curve with the errors of its points, and the band that fitted parameters would leave."""
    ax = ax or plt.gca()
    grid = np.linspace(experiment.sources.min(), experiment.sources.max(), 200)
    mean, low, high = (100 * x for x in experiment.band(grid, level))
    open_band = ~np.isfinite(high)
    low, high = np.where(open_band, 0, low).clip(0), np.where(open_band, 100, high).clip(max=100)
    ax.fill_between(
        grid, low, high, color=COLOURS[4], alpha=0.35, lw=0, label=f"{100 * level:.0f} % band of the fit"
    )
    ax.plot(grid, mean, color=COLOURS[0], lw=1.6, label=r"$c_0 + c_1 S_t(\sigma_0)$")
    error = 100 * np.sqrt(experiment.accuracy * (1 - experiment.accuracy) / experiment.n_questions)
    style = {"color": COLOURS[0], "ms": 5, "capsize": 2, "lw": 1.2, "mfc": "white"}
    ax.errorbar(experiment.sources, 100 * experiment.accuracy, error, None, "o", label="expected points", **style)
    ax.set_xlim(0, 1)
    # Error bars may leave what an accuracy can be, the view not.
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, 0), min(top, 100))
    ax.set_xlabel(r"position of the source, $\sigma_0$")
    ax.set_ylabel("accuracy (%)")
    ax.legend(fontsize=9)
    return ax


def plot_sensitivity(sensitivity: Sensitivity, experiment: PlannedExperiment, level: float = 0.95) -> Figure:
    """Elasticities of the U beside the planned experiment."""
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_elasticities(sensitivity, left)
    left.set_title("What moves the U (value of $q$ below its name)", fontsize=11)
    plot_experiment(experiment, level, right)
    counts = experiment.n_questions
    many = f"{counts[0]:g}" if np.ptp(counts) == 0 else f"{counts.min():g} to {counts.max():g}"
    right.set_title(
        f"{counts.size} positions, {many} questions each:\n"
        + ",  ".join(f"{p.short} = {_short(experiment, p.name)}" for p in experiment.theory.parameters),
        fontsize=11,
    )
    return figure


def _short(experiment: PlannedExperiment, name: str) -> str:
    return experiment.describe(name).replace("+-", r"$\pm$")
