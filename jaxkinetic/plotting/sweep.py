"""Profiles over the grid of a sweep."""

import itertools
import json
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxkinetic.model import ALiBi, CausalAttention, ExpCosine
from jaxkinetic.plotting.style import COLOURS, MARKERS
from jaxkinetic.retrieval import retrieval_profile

if TYPE_CHECKING:
    import xarray

_SYMBOLS = {
    "beta": r"$\beta$",
    "lam": r"$\lambda$",
    "time": "t",
    "n_tokens": "N",
    "vocab_size": "M",
    "law": "",
    "estimator": "",
}
# The dimension drawn in colours is the first of these that the grid has; the others make panels.
_COLOURED = ("n_tokens", "lam", "beta", "time", "vocab_size", "estimator", "law")
_FINITE = ("n_tokens", "estimator")
_MOST_PANELS = 16
_FEW_POINTS = 16
_START = 0.05


def plot_sweep(found: "xarray.Dataset") -> Figure:
    """Draw S_N(sigma_0) at every point of a sweep with 95 % error bars, on the limit where it has a closed form.

    Args:
        found: the Dataset of `open_sweep`, or a part of it that keeps all dimensions (``isel`` with lists).

    Raises:
        ValueError: if nothing has been computed, or if the grid makes more panels than can be looked at.
    """
    if not int(found["count"].sum()):
        raise ValueError("The sweep has no prompts yet: there is nothing to draw.")
    varied = [name for name in _COLOURED if found.sizes[name] > 1]
    coloured = varied[0] if varied else _COLOURED[0]
    panelled = [name for name in _SYMBOLS if name in varied and name != coloured]
    panels = list(itertools.product(*(range(found.sizes[name]) for name in panelled)))
    if len(panels) > _MOST_PANELS:
        raise ValueError(
            f"The sweep makes {len(panels)} panels, one for each {', '.join(panelled)}, but {_MOST_PANELS} is the "
            "most: select some of its points."
        )
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    figure = plt.figure(figsize=(1 + 4.2 * n_columns, 1 + 3.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel, ax in zip(panels, axes, strict=False):
        part = found.isel({name: [i] for name, i in zip(panelled, panel, strict=True)})
        _draw_panel(part, coloured, ax)
        ax.set_title(", ".join(_named(part, name) for name in panelled), fontsize=10)
    for ax in axes[len(panels) :]:
        ax.remove()
    fixed = [name for name in _SYMBOLS if name not in varied]
    figure.suptitle(", ".join(_named(found, name) for name in fixed), fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right center", fontsize=9, title="95 % error bars", title_fontsize=9
    )
    return figure


def _draw_panel(part: "xarray.Dataset", coloured: str, ax: Axes) -> None:
    """One panel: a colour for each value along ``coloured``, every other dimension of length one."""
    lowest, highest = [], []
    for i in range(part.sizes[coloured]):
        point = part.isel({name: [0] for name in _SYMBOLS} | {coloured: [i]}).squeeze()
        colour = _colour(i, part.sizes[coloured])
        if int(point["count"]):
            low, high = _draw_point(point, colour, i, _named(part, coloured, i), ax)
            lowest.append(low)
            highest.append(high)
        if i == 0 or coloured not in _FINITE:
            _draw_limit(part, point, "black" if coloured in _FINITE else colour, i == 0, ax)
    if lowest:
        low, high = min(lowest), max(highest)
        ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"position of the source, $\sigma_0$")
    ax.set_ylabel(r"retrieval profile, $S_N(\sigma_0)$")


def _draw_point(point: "xarray.Dataset", colour: Any, i: int, label: str, ax: Axes) -> tuple[float, float]:
    """Error bars, or a line with its band if there are many; returns the range to show."""
    columns = [np.atleast_1d(point[name].values) for name in ("sigma_0", "values", "standard_error")]
    # Shorter prompts may have fewer sources than the longest.
    sources, values, errors = (column[~np.isnan(columns[0])] for column in columns)
    reach = 1.96 * errors
    if sources.size <= _FEW_POINTS:
        marker = MARKERS[i % len(MARKERS)]
        ax.errorbar(sources, values, reach, fmt=marker, color=colour, mfc="white", ms=5, capsize=2, label=label)
    else:
        ax.fill_between(sources, values - reach, values + reach, color=colour, alpha=0.3, lw=0)
        ax.plot(sources, values, color=colour, lw=1, label=label)
    # The first tokens are far above the rest: the view is that of the others.
    inner = sources > _START if np.any(sources > _START) else sources > 0
    return float((values - reach)[inner].min()), float((values + reach)[inner].max())


def _draw_limit(part: "xarray.Dataset", point: "xarray.Dataset", colour: Any, first: bool, ax: Axes) -> None:
    """The limit S_t(sigma_0) (1.21), which uniform prompts and the soft decoder have in closed form."""
    settings = json.loads(part.attrs["configuration"])
    if str(point["law"].item()) != "uniform" or settings["accuracy"] != "soft":
        return
    model = CausalAttention(ExpCosine(point["beta"].item()), ALiBi(point["lam"].item()))
    sources = np.linspace(0.1, 1, 200) ** 2
    values = retrieval_profile(model, point["time"].item(), point["vocab_size"].item(), sources).values
    label = r"limit, $S_t(\sigma_0)$" if first else None
    ax.plot(sources, np.asarray(values), color=colour, ls="--", lw=1.2, label=label, zorder=1)


def _colour(i: int, n: int) -> Any:
    usable = COLOURS[:-1]
    return usable[i] if n <= len(usable) else plt.get_cmap("viridis")(i / (n - 1))


def _named(part: "xarray.Dataset", name: str, i: int = 0) -> str:
    value = part[name].values[i].item()
    if isinstance(value, int | float):
        return f"{_SYMBOLS[name]} = {value:g}"
    if name == "law":
        return f"{value} prompts"
    # What "auto" stands for, where it is the same for every law drawn.
    chosen = {json.loads(part.attrs["estimators"])[law][value] for law in part["law"].values.tolist()}
    return f"estimator {chosen.pop() if len(chosen) == 1 else value}"
