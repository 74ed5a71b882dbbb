"""The limit of infinitely many tokens: the mean field on a disc, and correlations with sources.

On a disc the angle is the token's own and the radius its position in the prompt, from the first token near the
centre to the last on the rim.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from jaxkinetic.limit import Correlations, MeanField
from jaxkinetic.plotting.style import COLOURS, MARKERS

_HOLE = 0.15  # radius of the hole at sigma = 0, in units of the prompt's length
_COLUMNS = 4
_BARS = 8


def plot_density(field: MeanField, time: Any, ax: Any, norm: Normalize | None = None) -> Any:
    """Draw the density f(t, sigma, theta) on a disc; ``ax`` has polar axes."""
    sigma = np.linspace(1e-3, 1, 120)
    theta = jnp.linspace(0, 2 * np.pi, 241)
    density = np.asarray(field.density(time, sigma, theta))
    ax.pcolormesh(
        theta, sigma, density, cmap="cividis", norm=norm or _log_norm(density), shading="gouraud", rasterized=True
    )
    return _dress(ax, time)


def plot_characteristics(field: MeanField, time: Any, ax: Any, norm: Normalize | None = None) -> Any:
    """Draw the angles X(t, sigma, m) that the codewords have reached on a disc, wide and bright where likely."""
    sigma = np.linspace(1e-3, 1, 200)
    angles = np.asarray(field.characteristics(time, sigma))
    weights = np.asarray(field.weights(sigma)).clip(0)
    norm = norm or Normalize(0, weights.max())
    for label, angle, weight in zip(np.asarray(field.labels), angles.T, weights.T, strict=True):
        ax.plot([label, label], [0, 1], color="0.75", lw=0.8, ls=":", zorder=1)
        points = np.stack([angle, sigma], axis=1)
        middle = (weight[1:] + weight[:-1]) / 2
        segments = LineCollection(
            list(np.stack([points[:-1], points[1:]], axis=1)), array=middle, cmap="cividis_r", norm=norm,
            linewidths=1 + 7 * middle / max(weights.max(), 1e-12), capstyle="round", zorder=2,
            snap=False,
        )  # fmt: skip
        ax.add_collection(segments)
    return _dress(ax, time)


def plot_cross(found: Correlations, ax: Axes | None = None, times: Sequence[Any] | None = None) -> Axes:
    """Draw the mode of C that pairs with the observable against the reader's position, for each source and time."""
    ax = ax or plt.gca()
    m = _observable(found)
    shown = np.asarray(found.ts if times is None else times)
    shown = shown[shown > 0] if np.any(shown > 0) else shown
    sources = np.atleast_1d(found.sources)
    for i, source in enumerate(sources):
        sigma = source + (1 - source) * np.linspace(0, 1, 161)[1:] ** 2
        colour, marker = COLOURS[i % 7], MARKERS[i % 7]
        for k, t in enumerate(shown):
            cross = np.asarray(found.cross(t, sigma, abs(m)))[..., -1].reshape(sources.size, -1)[i]
            last, alpha = k == shown.size - 1, 0.35 + 0.65 * (k + 1) / shown.size
            label = rf"$\sigma_0$ = {source:g}" if last else None
            ax.plot(sigma, np.abs(cross), color=colour, lw=2 if last else 1.2, alpha=alpha, label=label)
            ax.plot(sigma[0], np.abs(cross[0]), marker, color=colour, ms=5 if last else 3)
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    # What vanishes, as at t = 0, has no logarithm, and what hardly changes needs none.
    if values.max() > 1e-9 and values.max() > 4 * values.min():
        ax.set_yscale("log")
        _label_decades(ax.yaxis)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"reader's position, $\sigma$")
    ax.set_ylabel(rf"$|\hat C(t, \sigma, {abs(m)}; \sigma_0)|$")
    return ax


def plot_cross_modes(found: Correlations, time: Any, ax: Axes | None = None) -> Axes:
    """Draw the modes of C at the last token, for each source."""
    ax = ax or plt.gca()
    _observable(found)
    sources = np.atleast_1d(found.sources)
    cross = np.abs(np.asarray(found.cross(time, 1.0, _BARS))).reshape(sources.size, -1)
    n, width = np.arange(1, _BARS + 1), 0.8 / sources.size
    for i, source in enumerate(sources):
        offset = (i - (sources.size - 1) / 2) * width
        ax.bar(n + offset, cross[i], width, color=COLOURS[i % 7], label=rf"$\sigma_0$ = {source:g}")
    ax.set_xticks(n)
    ax.set_xlabel("Fourier mode, $n$")
    ax.set_ylabel(r"$|\hat C(t, 1, n; \sigma_0)|$")
    return ax


def plot_limit(found: Correlations) -> Figure:
    """Draw the mean field on a disc at every saved time, and its cross-correlations with the sources."""
    field, times = found.field, np.asarray(found.ts)
    n_rows = -(-times.size // _COLUMNS)
    n_columns = -(-times.size // n_rows)
    figure = plt.figure(figsize=(max(3.0 * n_columns, 7.5) + 1, 3.2 * n_rows + 3.8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.2 * n_rows + 0.4, 3.4])[:, 0]
    discs = np.atleast_1d(top.subplots(n_rows, n_columns, subplot_kw={"projection": "polar"})).ravel()
    draw, norm, name, cmap = _how_to_draw(field, times)
    for t, ax in zip(times, discs, strict=False):
        draw(field, t, ax, norm)
    for ax in discs[times.size :]:
        ax.remove()
    bar = top.colorbar(
        ScalarMappable(norm, cmap), ax=list(discs[: times.size]), shrink=0.75, label=name, pad=0.03, panchor=False
    )
    if isinstance(norm, LogNorm):
        _label_decades(bar.ax.yaxis)
    top.suptitle(
        r"mean field: the angle is $\theta$, the radius the position $\sigma$, from 0 at the hole to 1 on the rim",
        fontsize=11,
    )
    left, right = bottom.subplots(1, 2)
    plot_cross(found, left)
    left.legend(fontsize=9)
    plot_cross_modes(found, times[-1], right)
    shown = ", ".join(f"{t:g}" for t in times if t > 0)
    left.set_title(f"memory of the source in later tokens, t = {shown}", fontsize=10)
    right.set_title(f"memory of the source in the last token, t = {times[-1]:g}", fontsize=10)
    return figure


def _how_to_draw(field: MeanField, times: np.ndarray) -> tuple[Any, Normalize, str, str]:
    sigma = np.linspace(1e-3, 1, 60)
    if field.is_atomic:
        largest = float(np.max(field.weights(sigma)))
        return plot_characteristics, Normalize(0, largest), r"probability, $p_m(\sigma)$", "cividis_r"
    theta = jnp.linspace(0, 2 * np.pi, 121)
    densities = np.stack([field.density(t, sigma, theta) for t in times])
    return plot_density, _log_norm(densities), r"density, $f(t, \sigma, \theta)$", "cividis"


def _log_norm(density: np.ndarray) -> LogNorm:
    # A logarithm shows the start beside late peaks; two decades at most, half a decade at least.
    high = max(float(density.max()), 2.0)
    return LogNorm(float(np.clip(density.min(), high / 100, high / 4)), high)


def _label_decades(axis: Any) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _dress(ax: Any, time: Any) -> Any:
    ax.set_rorigin(-_HOLE)
    ax.set_ylim(0, 1)
    ax.set_xticks(np.arange(4) * np.pi / 2, ["0", r"$\pi/2$", r"$\pi$", r"$3\pi/2$"], fontsize=9)
    ax.tick_params(axis="x", pad=-1)
    ax.set_yticks([0, 0.5, 1], ["", "", ""])
    ax.grid(alpha=0.25, lw=0.6)
    ax.set_title(f"t = {float(time):g}", fontsize=11)
    return ax


def _observable(found: Correlations) -> int:
    if not isinstance(found.observable_modes, int):
        raise ValueError(f"Argument `found` must have one observable, but has {found.observable_modes}.")
    return found.observable_modes
