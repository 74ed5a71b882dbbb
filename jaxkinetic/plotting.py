"""Results in, matplotlib Axes out. Colours are Okabe and Ito's, told apart by colour-blind readers and in print."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxkinetic.inference import CurveFit, RetrievalCurve, load_baselines, load_curves
from jaxkinetic.model import CausalAttention
from jaxkinetic.particles import Trajectory
from jaxkinetic.retrieval import retrieval_profile, u_shape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEVELS_2D = (2.2957, 5.9915)  # rises of chi-squared that enclose 68.27 and 95 per cent of two parameters


def plot_curve(
    curve: RetrievalCurve,
    ax: Axes | None = None,
    colour: str = COLOURS[0],
    marker: str = "o",
    label: str | None = None,
) -> Axes:
    """Draw measured accuracies in per cent with binomial standard errors against position."""
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
    """Draw the regions of (beta, lam) that hold 68 and 95 per cent, shaded unless a colour is given."""
    ax = ax or plt.gca()
    beta, lam, rise = fit.surface.beta, fit.surface.lam, fit.surface.chi2 - fit.chi2
    if colour is None:
        mesh = ax.pcolormesh(beta, lam, np.clip(rise, 0, 20), cmap="cividis_r", shading="gouraud", rasterized=True)
        bar = ax.figure.colorbar(mesh, ax=ax, extend="max")
        bar.set_label(r"$\chi^2 - \chi^2_{\min}$")
    ax.contour(
        beta, lam, rise, levels=_LEVELS_2D, colors=[colour or "black"], linestyles=["-", "--"], linewidths=1.3
    )
    ax.plot(
        fit.beta, fit.lam, "*", color=colour or "white", mec="black", ms=11, clip_on=False, zorder=5, label=label
    )
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=0.1, linscale=0.6)
    ax.set_xlim(beta.min(), beta.max())
    ax.set_ylim(lam.min(), lam.max())
    ax.set_xlabel(r"sharpness of attention, $\beta$")
    ax.set_ylabel(r"positional bias, $\lambda$")
    return ax


def plot_fit(fit: CurveFit, figure: Figure | None = None) -> Figure:
    """One panel per curve with data, fit and allowed band, and the likelihood of (beta, lam)."""
    n = len(fit.curves)
    figure = figure or plt.figure(figsize=(3.3 * n + 4.6, 3.8), layout="constrained")
    axes = figure.subplots(1, n + 1, width_ratios=[1] * n + [1.35])
    for i, (curve, ax) in enumerate(zip(fit.curves, axes, strict=False)):
        plot_fitted_curve(fit, curve, ax, colour=COLOURS[i % 7], marker=MARKERS[i % 7])
        ax.set_title(f"{curve.n_items} items" if curve.n_items else curve.label, fontsize=10)
        if i:
            ax.set_ylabel("")
    _show_curves(list(axes[:n]))
    plot_likelihood(fit, axes[n])
    axes[n].set_title("68 % (solid) and 95 % (dashed) regions, best point", fontsize=10)
    name = fit.curves[0].name or "retrieval curve"
    p_value = f", p = {fit.p_value:.2g}" if fit.errors_known else ""
    figure.suptitle(
        rf"{name}: $\chi^2$ = {fit.chi2:.1f} for {fit.dof} degrees of freedom{p_value};  "
        rf"$\beta$ {describe(fit, 'beta')},  $\lambda$ {describe(fit, 'lam')}",
        fontsize=11,
    )
    return figure


def plot_fits(fits: Sequence[CurveFit], figure: Figure | None = None) -> Figure:
    """Every fit in a panel of its own, its curves told apart by colour and marker."""
    n_columns = 4
    n_rows = -(-(len(fits) + 1) // n_columns)
    figure = figure or plt.figure(figsize=(4 * n_columns, 3.5 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    lengths = sorted({c.n_items or 0 for fit in fits for c in fit.curves})
    for fit, ax in zip(fits, axes, strict=False):
        for curve in fit.curves:
            i = lengths.index(curve.n_items or 0)
            label = f"{curve.n_items} items" if curve.n_items else curve.label
            plot_fitted_curve(fit, curve, ax, colour=COLOURS[i % 7], marker=MARKERS[i % 7], label=label)
        _show_curves([ax])
        ax.set_title(rf"{fit.curves[0].name}: $\chi^2$/dof = {fit.chi2:.1f}/{fit.dof}", fontsize=10)
        ax.legend(fontsize=7)
    summary = axes[len(fits)]
    for fit, colour in zip(fits, COLOURS, strict=False):
        plot_likelihood(fit, summary, colour, fit.curves[0].name)
    summary.set_title("68 % (solid) and 95 % (dashed) regions", fontsize=10)
    summary.legend(fontsize=6, loc="upper left")
    for ax in axes[len(fits) + 1 :]:
        ax.remove()
    return figure


def describe(fit: CurveFit, name: str) -> str:
    """Interval of "beta" or "lam" in words, with "unidentified" where the data leave it open."""
    interval = fit.intervals[name]
    if interval.closed:
        return f"in {interval} ({100 * fit.level:.0f} %)"
    return f"unidentified, {interval}"


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


def plot_circle(trajectory: Trajectory, index: int, ax: Axes | None = None) -> Axes:
    """Draw one snapshot of a prompt on the circle: crosses where tokens began, rings where they are."""
    ax = ax or plt.gca()
    start, now = np.asarray(trajectory.angles[0]), np.asarray(trajectory.angles[index])
    n_tokens = now.size
    order = np.arange(1, n_tokens + 1) / n_tokens
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="0.8", lw=0.8, zorder=0)
    ax.scatter(1.14 * np.cos(start), 1.14 * np.sin(start), c=order, cmap="cividis", marker="x", s=22, lw=1)
    edges = list(plt.get_cmap("cividis")(order))
    ax.scatter(np.cos(now), np.sin(now), s=46, facecolors="none", edgecolors=edges, lw=1.6)
    # One label outside, one inside: the last token ends on the first.
    for j, name, radius in ((0, r"$\theta_1$", 1.36), (n_tokens - 1, r"$\theta_N$", 0.6)):
        x, y = np.cos(now[j]), np.sin(now[j])
        ax.annotate(
            name, (x, y), (radius * x, radius * y), ha="center", va="center", fontsize=11,
            arrowprops={"arrowstyle": "-", "lw": 0.8},
        )  # fmt: skip
    ax.set_title(f"t = {float(trajectory.ts[index]):g}", fontsize=11)
    ax.set_xlim(-1.45, 1.45)
    ax.set_ylim(-1.45, 1.45)
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


def plot_snapshots(trajectory: Trajectory) -> Figure:
    """Draw every saved time of a prompt on the circle, coloured by reading order (Figure 3)."""
    n_times = trajectory.ts.shape[0]
    n_columns = min(n_times, 4)
    n_rows = -(-n_times // n_columns)
    figure = plt.figure(figsize=(3.1 * n_columns + 0.8, 3.4 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for i in range(n_times):
        plot_circle(trajectory, i, axes[i])
    for ax in axes[n_times:]:
        ax.remove()
    scale = ScalarMappable(cmap="cividis", norm=Normalize(0, 1))
    figure.colorbar(scale, ax=list(axes[:n_times]), shrink=0.8, label=r"position in the prompt, $\sigma = j/N$")
    return figure


def plot_angles(trajectory: Trajectory, ax: Axes | None = None) -> Axes:
    """Draw all angles of a prompt against depth, coloured by reading order."""
    ax = ax or plt.gca()
    n_tokens = trajectory.angles.shape[1]
    for j in range(n_tokens):
        ax.plot(
            trajectory.ts, trajectory.angles[:, j], color=plt.get_cmap("cividis")(j / max(n_tokens - 1, 1)), lw=0.8
        )
    ax.set_xlabel("depth, $t$")
    ax.set_ylabel(r"angle, $\theta_j(t)$ (rad)")
    return ax


def plot_measured(model: str = "GPT-3.5-Turbo", n_items: int = 20) -> Figure:
    """Draw one published curve with its closed-book baseline (Figure 1)."""
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


def _show_curves(axes: Sequence[Axes]) -> None:
    """Fit the view to data and fits, with one height so that depths compare; bands may leave it."""
    ends = [np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines]) for ax in axes]
    height = 1.3 * max(float(np.ptp(y)) for y in ends)
    for ax, y in zip(axes, ends, strict=True):
        middle = (float(y.min()) + float(y.max())) / 2
        ax.set_ylim(middle - height / 2, middle + height / 2)
