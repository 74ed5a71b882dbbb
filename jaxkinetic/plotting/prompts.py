"""Prompts on their way through depth."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxkinetic.particles import Trajectory


def plot_circle(trajectory: Trajectory, index: int, ax: Axes | None = None) -> Axes:
    """Draw one snapshot of a prompt on the circle: crosses where tokens began, rings where they are.

    Example:
        >>> prompt = jk.UniformPrompts().sample(jax.random.key(0), 8)
        >>> trajectory = jk.simulate(jk.CausalAttention(), prompt, [0.0, 1.0])
        >>> plotting.plot_circle(trajectory, 1).get_title()
        't = 1'
    """
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
    """Draw every saved time of a prompt on the circle, coloured by reading order (Figure 3).

    Example:
        >>> prompt = jk.UniformPrompts().sample(jax.random.key(0), 8)
        >>> trajectory = jk.simulate(jk.CausalAttention(), prompt, [0.0, 1.0])
        >>> [ax.get_title() for ax in plotting.plot_snapshots(trajectory).axes[:2]]
        ['t = 0', 't = 1']
    """
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
    """Draw all angles of a prompt against depth, coloured by reading order.

    Example:
        >>> prompt = jk.UniformPrompts().sample(jax.random.key(0), 8)
        >>> trajectory = jk.simulate(jk.CausalAttention(), prompt, [0.0, 1.0])
        >>> len(plotting.plot_angles(trajectory).lines)
        8
    """
    ax = ax or plt.gca()
    n_tokens = trajectory.angles.shape[1]
    for j in range(n_tokens):
        ax.plot(
            trajectory.ts, trajectory.angles[:, j], color=plt.get_cmap("cividis")(j / max(n_tokens - 1, 1)), lw=0.8
        )
    ax.set_xlabel("depth, $t$")
    ax.set_ylabel(r"angle, $\theta_j(t)$ (rad)")
    return ax
