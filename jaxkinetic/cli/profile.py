"""`jaxkinetic profile`: the predicted profile, and whether it is a U."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.common import (
    Beta,
    JsonFile,
    Lam,
    OutFolder,
    Time,
    VocabSize,
    check_outputs,
    configure,
    save,
    say,
    write_json,
)

if TYPE_CHECKING:
    from jaxkinetic import UShape


def profile(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    n_sources: Annotated[int, tyro.conf.arg(help="Number of source positions in the JSON output.")] = 400,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Predict the retrieval profile S_t(sigma_0) of uniform prompts and say whether it is a U."""
    if n_sources < 1:
        raise ValueError(f"Argument `n_sources` must be at least 1, but is {n_sources}.")
    check_outputs(out, json)
    configure()
    import matplotlib.pyplot as plt
    import numpy as np

    from jaxkinetic import ALiBi, CausalAttention, ExpCosine, plotting, retrieval_profile, u_shape

    model = CausalAttention(ExpCosine(beta), ALiBi(lam))
    shape = u_shape(model, time, vocab_size)
    sources = np.arange(1, n_sources + 1) / n_sources
    values = retrieval_profile(model, time, vocab_size, sources).values
    say(_shape_table(shape), json)
    figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
    plotting.plot_profile(model, time, vocab_size, ax)
    ax.set_title(rf"$\beta$ = {beta:g}, $\lambda$ = {lam:g}, t = {time:g}, M = {vocab_size}", fontsize=11)
    save(figure, out / "profile.png", json)
    parameters = {"beta": beta, "lam": lam, "time": time, "vocab_size": vocab_size}
    record = {**parameters, "u_shape": _shape_record(shape), "sources": sources.tolist(), "values": values.tolist()}
    write_json(record, json)


def _shape_record(shape: "UShape") -> dict[str, Any]:
    return {field.name: getattr(shape, field.name).item() for field in dataclasses.fields(shape)}


def _shape_table(shape: "UShape") -> str:
    s = _shape_record(shape)
    yes = {True: "yes", False: "no"}
    minimum = (
        f"minimum     S = {s['minimum']:.6g} at sigma_0 = {s['argmin']:.6g}, {s['drop']:.6g} below the end"
        if s["n_minima"]
        else "minimum     none in the interior"
    )
    return "\n".join(
        [
            f"U-shaped    {yes[s['is_u_shaped']]} ({s['n_minima']} interior minima)",
            minimum,
            f"primacy     {yes[s['has_primacy']]}",
            f"recency     {yes[s['has_recency']]} ({_when(s['recency_threshold'])})",
            f"theorem 1.3 {'holds' if s['theorem_holds'] else 'is silent'}: t sup a_n = {s['smallness']:.6g}, "
            f"bound {s['smallness_bound']:.6g}",
        ]
    )


def _when(threshold: float) -> str:
    return f"exactly below t = {threshold:.6g}" if threshold > 0 else "at no depth"
