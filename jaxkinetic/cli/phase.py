"""`jaxkinetic phase`: where the profile is a U."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Beta, Lam

if TYPE_CHECKING:
    from jaxkinetic import PhaseDiagram


@command("phase.npz", "phase.png")
def phase(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    vocab_size: Annotated[float, tyro.conf.arg(help="Vocabulary size M of the decoder; need not be whole.")] = 8.0,
    beta_range: Annotated[
        tuple[float, float], tyro.conf.arg(metavar="LOW HIGH", help="Range of beta in the section at fixed lam.")
    ] = (0.1, 6.0),
    lam_range: Annotated[
        tuple[float, float],
        tyro.conf.arg(metavar="LOW HIGH", help="Range of lam, positive, in the section at fixed beta."),
    ] = (0.05, 20.0),
    resolution: Annotated[int, tyro.conf.arg(help="Points along each axis of a section.")] = 400,
) -> Results:
    """Map where the profile of uniform prompts is a U, and how far beyond the theorem's condition it remains one.

    Draws two sections, lam against t at the given beta and beta against t at the given lam (phase.png): the U, the
    exact boundary of recency, the theorem's region, location and drop of the minimum. Writes every point to
    phase.npz.
    """
    for name, (low, high) in (("beta_range", beta_range), ("lam_range", lam_range)):
        if not 0 < low < high < float("inf"):
            raise ValueError(f"Argument `{name}` must be positive, finite and increase, but is {(low, high)}.")
    if not 0 < lam < float("inf"):
        raise ValueError(
            f"Argument `lam` must be positive for a phase diagram, but is {lam}: there is no U otherwise."
        )
    if not 2 <= resolution <= 2000:
        raise ValueError(f"Argument `resolution` must lie in [2, 2000], but is {resolution}.")
    import jax
    import numpy as np

    from jaxkinetic import phase_diagram, plotting
    from jaxkinetic.shape import phase_edges

    def plane(beta: Any, lam: Any) -> tuple[np.ndarray, ...]:
        recency, theorem = phase_edges(beta, lam, vocab_size)
        columns = (np.broadcast_to(x, resolution)[:, None] for x in (beta, lam))
        return *columns, np.geomspace(theorem.min() / 4, 2 * recency.max(), resolution)[None, :]

    planes = [plane(beta, np.geomspace(*lam_range, resolution)), plane(np.geomspace(*beta_range, resolution), lam)]
    betas, lams, times = (np.stack(axis) for axis in zip(*planes, strict=True))
    both = phase_diagram(betas, lams, times, vocab_size)
    over_lam, over_beta = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
    sections = {"lam": over_lam, "beta": over_beta}
    records = {name: _record(s, name) for name, s in sections.items()}
    arrays = {
        f"{n}_{f.name}": np.asarray(getattr(s, f.name)) for n, s in sections.items() for f in dataclasses.fields(s)
    }
    return Results(
        "\n".join(_summary(name, record) for name, record in records.items()),
        {"beta": beta, "lam": lam, "vocab_size": vocab_size, "sections": records},
        {
            "phase.npz": lambda file: np.savez_compressed(file, allow_pickle=False, **arrays),
            "phase.png": lambda: plotting.plot_phase(over_lam, over_beta),
        },
    )


def _record(section: "PhaseDiagram", name: str) -> dict[str, Any]:
    u, proved, has_recency = (getattr(section, x) for x in ("is_u_shaped", "theorem_holds", "has_recency"))
    lines = {x: getattr(section, x)[:, 0].tolist() for x in (name, "recency_time", "theorem_time", "outlives")}
    return lines | {
        "n_points": u.size,
        "n_u_shaped": u.sum(),
        "n_proved": proved.sum(),
        "n_proved_but_not_u": (proved & ~u).sum(),
        "n_several_minima": (section.n_minima > 1).sum(),
        "n_recency_but_not_u": (has_recency & ~u).sum(),
    }


def _summary(name: str, record: dict[str, Any]) -> str:
    factors = record["outlives"]
    low, high = (record[name][factors.index(f)] for f in (min(factors), max(factors)))
    return (
        f"{name:<5} section: {record['n_points']} points, {record['n_u_shaped']} a U, {record['n_proved']} of them "
        f"proved by Theorem 1.3, {record['n_several_minima']} with several minima;\n"
        f"      recency outlives the theorem's depth by a factor from {min(factors):.4g} ({name} = {low:.4g}) "
        f"to {max(factors):.4g} ({name} = {high:.4g})"
    )
