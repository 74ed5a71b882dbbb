"""Measured curves and what was fitted to them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from jaxkinetic._types import check_choice
from jaxkinetic.inference import CurveFit, RetrievalCurve, load_baselines, load_curves
from jaxkinetic.plotting.style import COLOURS, MARKERS
from jaxkinetic.theories import Parameter

_LEVELS_2D = (2.2957, 5.9915)  # rises of chi-squared that enclose 68.27 and 95 per cent of two parameters


def plot_curve(
    curve: RetrievalCurve,
    ax: Axes | None = None,
    colour: str = COLOURS[0],
    marker: str = "o",
    label: str | None = None,
) -> Axes:
    """Draw measured accuracies in per cent with binomial standard errors against position.

    Example:
        >>> curve = jk.RetrievalCurve([0.1, 0.5, 0.9], [0.75, 0.55, 0.63], n_questions=500, name="mine")
        >>> plotting.plot_curve(curve).get_ylabel()
        'accuracy (%)'
    """
    ax = ax or plt.gca()
    error = None if curve.n_questions is None else 100 * curve.standard_error
    accuracy, style = 100 * curve.accuracy, {"color": colour, "ms": 5, "capsize": 2, "lw": 1.2, "mfc": "white"}
    ax.errorbar(curve.sources, accuracy, error, None, marker, label=label or curve.label, **style)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"position of the source, $\sigma_0$")
    ax.set_ylabel("accuracy (%)")
    return ax


def plot_fitted_curve(
    fit: CurveFit,
    curve: RetrievalCurve,
    ax: Axes | None = None,
    colour: str = COLOURS[0],
    marker: str = "o",
    label: str | None = None,
) -> Axes:
    """Draw one measured curve, its fit and the band of curves that the data allow, over the measured range."""
    ax = ax or plt.gca()
    # A grid through the measured positions: between them a sharp rise near the end would be missed.
    grid = np.linspace(curve.sources[0], curve.sources[-1], 64 - curve.sources.size)
    grid = np.union1d(grid, curve.sources)
    low, high = fit.band(curve, grid)
    ax.fill_between(grid, 100 * low.clip(0, 1), 100 * high.clip(0, 1), color=colour, alpha=0.2, lw=0)
    ax.plot(grid, 100 * fit.predict(curve, grid), color=colour, lw=1.6)
    return plot_curve(curve, ax, colour, marker, label)


def plot_likelihood(
    fit: CurveFit, ax: Axes | None = None, colour: str | None = None, label: str | None = None
) -> Axes:
    """Draw the regions of two parameters that hold 68 and 95 per cent, shaded unless a colour is given."""
    ax = ax or plt.gca()
    if len(fit.values) != 2:
        raise ValueError(
            f"Argument `fit` must have two parameters, but has {len(fit.values)}: see `plot_profiled`."
        )
    (x, y), rise = np.moveaxis(fit.surface.values, -1, 0), fit.surface.chi2 - fit.chi2
    if colour is None:
        mesh = ax.pcolormesh(x, y, np.clip(rise, 0, 20), cmap="cividis_r", shading="gouraud", rasterized=True)
        bar = ax.figure.colorbar(mesh, ax=ax, extend="max")
        bar.set_label(r"$\chi^2 - \chi^2_{\min}$")
    ax.contour(x, y, rise, levels=_LEVELS_2D, colors=[colour or "black"], linestyles=["-", "--"], linewidths=1.3)
    best = {"color": colour or "white", "mec": "black", "ms": 11, "clip_on": False, "zorder": 5, "label": label}
    ax.plot(*fit.values.values(), "*", **best)
    first, second = fit.theory.parameters
    set_scale(ax.xaxis, first, 0.1)
    set_scale(ax.yaxis, second, 0.1)
    ax.set_xlim(x.min(), x.max())
    ax.set_ylim(y.min(), y.max())
    return ax


def plot_profiled(fit: CurveFit, name: str, ax: Axes | None = None, colour: str = COLOURS[0]) -> Axes:
    """Draw the smallest chi-squared at each value of one parameter, and its interval."""
    ax = ax or plt.gca()
    check_choice("name", name, fit.values)
    k = list(fit.values).index(name)
    profile, interval, parameter = fit.profiles[name], fit.intervals[name], fit.theory.parameters[k]
    ax.plot(profile.values[:, k], profile.chi2 - fit.chi2, color=colour, lw=1.6)
    ax.axvspan(interval.low, interval.high, color=colour, alpha=0.15, lw=0)
    ax.plot(fit.values[name], 0, "*", color="white", mec="black", ms=11, clip_on=False, zorder=5)
    set_scale(ax.xaxis, parameter, 0.1)
    ax.set_xlim(float(parameter.low), float(parameter.high))
    ax.set_ylim(0, 12)
    ax.set_ylabel(r"$\chi^2 - \chi^2_{\min}$")
    return ax


def set_scale(axis: Axis, parameter: Parameter, linear: float) -> None:
    """Scale and label an axis for a parameter; an "asinh" scale is linear within a share of its width."""
    width = {"linthresh": linear * parameter.width, "linscale": 0.6}
    kind = {"log": "log", "asinh": "symlog", "linear": "linear"}[parameter.scale]
    scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    scale(kind, **(width if kind == "symlog" else {}))
    axis.set_label_text(parameter.label)


def plot_fit(fit: CurveFit, figure: Figure | None = None) -> Figure:
    """One panel per curve with data, fit and allowed band, and the likelihood of the parameters.

    Two parameters have one panel of their joint regions, others a profile each.
    """
    n, names = len(fit.curves), list(fit.values)
    ratios = [1.0] * n + ([1.35] if len(names) == 2 else [1.0] * len(names))
    figure = figure or plt.figure(figsize=(3.3 * sum(ratios), 3.8), layout="constrained")
    axes = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    for i, (curve, ax) in enumerate(zip(fit.curves, axes, strict=False)):
        plot_fitted_curve(fit, curve, ax, colour=COLOURS[i % 7], marker=MARKERS[i % 7])
        ax.set_title(f"{curve.n_items} items" if curve.n_items else curve.label, fontsize=10)
        if i:
            ax.set_ylabel("")
    share_height(list(axes[:n]))
    if len(names) == 2:
        plot_likelihood(fit, axes[n])
        axes[n].set_title("68 % (solid) and 95 % (dashed) regions, best point", fontsize=10)
    else:
        for parameter, ax in zip(names, axes[n:], strict=True):
            plot_profiled(fit, parameter, ax)
    name = fit.curves[0].name or "retrieval curve"
    p_value = f", p = {fit.p_value:.2g}" if fit.errors_known else ""
    figure.suptitle(
        ";  ".join(
            [rf"{name}: $\chi^2$ = {fit.chi2:.1f} for {fit.dof} degrees of freedom{p_value}"]
            + [f"{p.short} {fit.describe(p.name)}" for p in fit.theory.parameters]
        ),
        fontsize=11,
    )
    return figure


def plot_fits(fits: Sequence[CurveFit], figure: Figure | None = None) -> Figure:
    """Every fit in a panel of its own, its curves told apart by colour and marker, and all intervals below."""
    # Three or four columns, whichever leaves fewer panels empty.
    n_columns = min(len(fits), min((4, 3), key=lambda n: -len(fits) % n))
    n_rows = -(-len(fits) // n_columns)
    below = 0.8 + 0.25 * len(fits)
    width = max(4.2 * n_columns, 10)
    figure = figure or plt.figure(figsize=(width, 3.3 * n_rows + below), layout="constrained")
    upper, lower = np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=[3.3 * n_rows, below]))
    axes = upper.subplots(n_rows, n_columns, squeeze=False).ravel()
    lengths = sorted({c.n_items or 0 for fit in fits for c in fit.curves})
    for fit, ax in zip(fits, axes, strict=False):
        for curve in fit.curves:
            i = lengths.index(curve.n_items or 0)
            label = f"{curve.n_items} items" if curve.n_items else curve.label
            plot_fitted_curve(fit, curve, ax, colour=COLOURS[i % 7], marker=MARKERS[i % 7], label=label)
        share_height([ax])
        p_value = f", p = {fit.p_value:.2g}" if fit.errors_known else ""
        ax.set_title(rf"{fit.curves[0].name}: $\chi^2$ = {fit.chi2:.1f} / {fit.dof}{p_value}", fontsize=10)
        ax.legend(fontsize=7)
    for ax in axes[len(fits) :]:
        ax.remove()
    names = list(fits[0].values)
    for name, ax in zip(names, lower.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        plot_intervals(fits, name, ax)
    return figure


def plot_intervals(fits: Sequence[CurveFit], name: str, ax: Axes | None = None) -> Axes:
    """Draw the interval of one parameter of every fit, the best points, and arrows where an end is open."""
    ax = ax or plt.gca()
    parameters = fits[0].theory.parameters
    set_scale(ax.xaxis, next(p for p in parameters if p.name == name), 0.01)
    low, high = (min(f.intervals[name].low for f in fits), max(f.intervals[name].high for f in fits))
    for row, fit in enumerate(fits):
        interval, colour = fit.intervals[name], COLOURS[2] if fit.identifiable[name] else COLOURS[0]
        ax.plot([interval.low, interval.high], [row, row], color=colour, lw=2, solid_capstyle="butt")
        for end, is_open, arrow in (
            (interval.low, interval.low_open, "<"),
            (interval.high, interval.high_open, ">"),
        ):
            ax.plot(end, row, arrow if is_open else "|", color=colour, ms=7, mew=2, clip_on=False)
        ax.plot(getattr(fit, name), row, "*", color="white", mec="black", ms=9, zorder=5, clip_on=False)
    ax.set_xlim(low, high)
    ax.set_ylim(len(fits) - 0.5, -0.5)
    ax.set_yticks(range(len(fits)), [fit.curves[0].name or "curve" for fit in fits])
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    level = f"{100 * fits[0].level:g} % intervals; arrows: open, the parameter is unidentified"
    ax.set_title(level if name == parameters[0].name else "stars: best points", fontsize=10)
    return ax


def plot_measured(model: str = "GPT-3.5-Turbo", n_items: int = 20) -> Figure:
    """Draw one published curve with its closed-book baseline (Figure 1).

    Example:
        >>> plotting.plot_measured("GPT-3.5-Turbo", 20).axes[0].get_title()
        'Measured: retrieval is worst in the middle'
    """
    figure = plt.figure(figsize=(5.2, 3.8), layout="constrained")
    ax = figure.subplots()
    curve = next(c for c in load_curves(model=model) if c.n_items == n_items)
    plot_curve(curve, ax, label=f"{model}, {n_items} documents")
    ax.plot(curve.sources, 100 * curve.accuracy, color=COLOURS[0], lw=1)
    for baseline in load_baselines(model):
        if baseline.setting == "closed_book":
            ax.axhline(100 * baseline.accuracy, color=COLOURS[1], ls="--", label="without documents")
    ax.legend(fontsize=9)
    ax.set_title("Measured: retrieval is worst in the middle", fontsize=11)
    return figure


def share_height(axes: Sequence[Axes]) -> None:
    """Fit the view to data and fits, with one height so that depths compare; bands may leave it.

    A fit that leaves what an accuracy can be, between positions that were measured, leaves the view as well.
    """
    ends = [np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines]).clip(0, 100) for ax in axes]
    height = 1.3 * max(float(np.ptp(y)) for y in ends)
    for ax, y in zip(axes, ends, strict=True):
        middle = (float(y.min()) + float(y.max())) / 2
        ax.set_ylim(middle - height / 2, middle + height / 2)
