"""Where one more point would tell most about the parameters."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxkinetic.inference import NextMeasurement
from jaxkinetic.plotting.style import COLOURS, MARKERS

_STYLES = ("-", "--", ":", "-.")


def plot_information(found: NextMeasurement, curve: int, ax: Axes | None = None) -> Axes:
    """Draw the expected information of a point of one curve against its position, and where points are already."""
    ax = ax or plt.gca()
    colour, marker = COLOURS[curve % 7], MARKERS[curve % 7]
    for q, n in enumerate(found.n_questions):
        value, error = found.information[curve, :, q], found.error[curve, :, q]
        style = _STYLES[q % len(_STYLES)]
        ax.plot(found.sources, value, color=colour, ls=style, lw=1.6, label=f"{n:g} questions")
        ax.fill_between(found.sources, (value - error).clip(0), value + error, color=colour, alpha=0.2, lw=0)
        best = int(np.nanargmax(value))
        ax.plot(found.sources[best], value[best], marker, color=colour, ms=6)
    there = found.posterior.curves[curve].sources
    ax.plot(there, np.zeros_like(there), "|", color="black", ms=9, mew=1.2, label="measured", clip_on=False)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"position of one more point, $\sigma_0$")
    names = ", ".join(p.short for p in found.posterior.parameters)
    ax.set_ylabel(f"expected information on ({names}), nats")
    return ax


def plot_next_measurement(found: NextMeasurement) -> Figure:
    """One panel a curve: what one more point would tell, at every position and number of questions."""
    curves = found.posterior.curves
    n_columns = min(len(curves), 4)
    n_rows = -(-len(curves) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(1 + 3.2 * n_columns, 0.6 + 2.9 * n_rows), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for i, ax in enumerate(axes.ravel()):
        if i >= len(curves):
            ax.set_axis_off()
            continue
        plot_information(found, i, ax)
        ax.set_title(curves[i].label, fontsize=9)
        ax.legend(fontsize=7)
        if i % n_columns:
            ax.set_ylabel("")
    axes[0, 0].set_ylim(0)
    return figure
