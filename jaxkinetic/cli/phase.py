"""`jaxkinetic phase`: where the profile is a U."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.common import (
    Beta,
    JsonFile,
    Lam,
    OutFolder,
    check_outputs,
    configure,
    save,
    say,
    write_json,
)

if TYPE_CHECKING:
    from jaxkinetic import PhaseDiagram


def phase(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    vocab_size: Annotated[float, tyro.conf.arg(help="Vocabulary size M of the decoder; real numbers too.")] = 8.0,
    beta_range: Annotated[tuple[float, float], tyro.conf.arg(help="Sharpness in the section at fixed lam.")] = (
        0.1,
        6.0,
    ),
    lam_range: Annotated[tuple[float, float], tyro.conf.arg(help="Positive bias in the section at fixed beta.")] = (
        0.05,
        20.0,
    ),
    resolution: Annotated[int, tyro.conf.arg(help="Points along each axis of a section.")] = 400,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Map where the profile of uniform prompts is a U, and how far that outlives the theorem's condition.

    Draws two sections, lam against t at the given beta and beta against t at the given lam (phase.png): the U, the
    exact boundary of recency, the theorem's region, location and drop of the minimum. Writes every point to
    phase.npz.
    """
    for name, (low, high) in (("beta_range", beta_range), ("lam_range", lam_range)):
        if not 0 < low < high < float("inf"):
            raise ValueError(f"Argument `{name}` must be positive, finite and increase, but is {(low, high)}.")
    if not 0 < lam < float("inf"):
        raise ValueError(
            f"Argument `lam` must be positive for a phase diagram, but is {lam}: there is no U without."
        )
    if not 2 <= resolution <= 2000:
        raise ValueError(f"Argument `resolution` must lie in [2, 2000], but is {resolution}.")
    check_outputs(out, json)
    configure()
    import dataclasses

    import jax
    import numpy as np

    from jaxkinetic import phase_diagram, plotting
    from jaxkinetic.inference import phase_edges

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
    for name, record in records.items():
        say(_summary(name, record), json)
    out.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{name}_{f.name}": np.asarray(getattr(s, f.name))
        for name, s in sections.items()
        for f in dataclasses.fields(s)
    }
    np.savez_compressed(out / "phase.npz", allow_pickle=False, **arrays)
    say(f"wrote {out / 'phase.npz'}", json)
    save(plotting.plot_phase(over_lam, over_beta), out / "phase.png", json)
    write_json({"beta": beta, "lam": lam, "vocab_size": vocab_size, "sections": records}, json)


def _record(section: "PhaseDiagram", name: str) -> dict[str, Any]:
    import numpy as np

    u, proved = np.asarray(section.is_u_shaped), np.asarray(section.theorem_holds)
    return {
        name: np.asarray(getattr(section, name))[:, 0].tolist(),
        "recency_time": np.asarray(section.recency_time)[:, 0].tolist(),
        "theorem_time": np.asarray(section.theorem_time)[:, 0].tolist(),
        "outlives": np.asarray(section.outlives)[:, 0].tolist(),
        "n_points": int(u.size),
        "n_u_shaped": int(u.sum()),
        "n_proved": int(proved.sum()),
        "n_proved_but_not_u": int((proved & ~u).sum()),
        "n_several_minima": int((np.asarray(section.n_minima) > 1).sum()),
        "n_recency_but_not_u": int((np.asarray(section.has_recency) & ~u).sum()),
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
