"""`jaxkinetic profile`: the predicted profile, and whether it is a U."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Beta, Lam, Time, VocabSize

if TYPE_CHECKING:
    from jaxkinetic import UShape


@command("profile.png")
def profile(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    n_sources: Annotated[int, tyro.conf.arg(help="Number of source positions in the JSON output.")] = 400,
) -> Results:
    """Predict the retrieval profile S_t(sigma_0) of uniform prompts and say whether it is a U.

    Draws the profile (profile.png).
    """
    if n_sources < 1:
        raise ValueError(f"Argument `n_sources` must be at least 1, but is {n_sources}.")
    import matplotlib.pyplot as plt
    import numpy as np

    from jaxkinetic import ALiBi, CausalAttention, ExpCosine, plotting, retrieval_profile, u_shape

    model = CausalAttention(ExpCosine(beta), ALiBi(lam))
    shape = u_shape(model, time, vocab_size)
    sources = np.arange(1, n_sources + 1) / n_sources
    parameters = {"beta": beta, "lam": lam, "time": time, "vocab_size": vocab_size}
    found = {"u_shape": shape, "sources": sources}
    found["values"] = retrieval_profile(model, time, vocab_size, sources).values

    def draw() -> Any:
        figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
        plotting.plot_profile(model, time, vocab_size, ax)
        ax.set_title(rf"$\beta$ = {beta:g}, $\lambda$ = {lam:g}, t = {time:g}, M = {vocab_size}", fontsize=11)
        return figure

    return Results(_shape_table(shape), parameters | found, {"profile.png": draw})


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
