"""`jaxkinetic design`: positional weights that flatten the U."""

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
    check_folder,
    configure,
    save,
    say,
    write_json,
)

if TYPE_CHECKING:
    from jaxkinetic import DesignedWeights, ProfileEstimate

_CHECKED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SEED = 0


def design(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    mean_distance: Annotated[
        float | None,
        tyro.conf.arg(help="Mean attention distance to hold, in (0, 1); if left out ALiBi's."),
    ] = None,
    knots: Annotated[int, tyro.conf.arg(help="Number of distances at which the weights are free.")] = 41,
    first: Annotated[float, tyro.conf.arg(help="First source position of the profile to flatten.")] = 0.05,
    last: Annotated[float, tyro.conf.arg(help="Last source position of the profile to flatten.")] = 0.95,
    check_prompts: Annotated[
        int, tyro.conf.arg(help="Also estimate both profiles from this many prompts of particles; 0 for none.")
    ] = 0,
    check_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens of these prompts.")] = 256,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Design positional weights whose retrieval profile is flat, at the mean attention distance of ALiBi.

    Writes the weights and both profiles (design.png); with --check-prompts the profiles of particles as well.
    """
    if not 0 < first < last < 1:
        raise ValueError(
            f"Arguments `first` and `last` must satisfy 0 < first < last < 1, but are {first} and {last}."
        )
    if check_prompts < 0:
        raise ValueError(f"Argument `check_prompts` must be at least 0, but is {check_prompts}.")
    if check_prompts and check_tokens < 20:
        raise ValueError(f"Argument `check_tokens` must be at least 20, but is {check_tokens}.")
    check_folder(out)
    configure()
    import numpy as np

    from jaxkinetic import ALiBi, ExpCosine, design_weights, plotting

    kernel = ExpCosine(beta)
    distance = float(ALiBi(lam).mean_distance) if mean_distance is None else mean_distance
    sources = np.linspace(first, last, max(61, 3 * knots // 2))
    designed = design_weights(kernel, time, vocab_size, distance, sources=sources, n_knots=knots)
    estimates = (
        _estimate(designed, kernel, time, vocab_size, check_tokens, check_prompts) if check_prompts else None
    )
    say(_table(designed, estimates), json)
    save(plotting.plot_design(designed, estimates), out / "design.png", json)
    parameters = {"beta": beta, "time": time, "vocab_size": vocab_size}
    write_json({**parameters, **_record(designed, estimates)}, json)


def _estimate(
    designed: "DesignedWeights", kernel: Any, time: float, vocab_size: int, n_tokens: int, n_prompts: int
) -> "tuple[ProfileEstimate, ProfileEstimate]":
    import jax

    from jaxkinetic import CausalAttention, estimate_profile

    first, second = (
        estimate_profile(
            CausalAttention(kernel, positions), time, vocab_size, n_tokens, n_prompts, jax.random.key(_SEED),
            sources=[s for s in _CHECKED if designed.sources[0] <= s <= designed.sources[-1]] or [0.5],
        )
        for positions in (designed.positions, designed.alibi)
    )  # fmt: skip
    return first, second


def _table(designed: "DesignedWeights", estimates: "tuple[ProfileEstimate, ProfileEstimate] | None") -> str:
    d, lam = designed, float(designed.alibi.lam)
    end = "converged" if d.converged else "did NOT converge"
    lines = [
        f"mean attention distance  {d.mean_distance:.6g}, that of ALiBi at lambda = {lam:.4g}",
        f"range of the profile     {d.range:.4g}, ALiBi's {d.alibi_range:.4g}: {d.gain:.4g} times flatter",
        f"search                   {end} in {d.n_steps} steps",
    ]
    for name, found in zip(("designed", "ALiBi"), estimates or (), strict=False):
        spread = float(found.values.max() - found.values.min())
        lines.append(
            f"particles, {name:<13} range {spread:.4g} over {found.sources.size} sources at N = {found.n_tokens}, "
            f"standard errors up to {found.standard_error.max():.2g}"
        )
    return "\n".join(lines)


def _record(
    designed: "DesignedWeights", estimates: "tuple[ProfileEstimate, ProfileEstimate] | None"
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "mean_distance": designed.mean_distance,
        "lam": float(designed.alibi.lam),
        "distances": designed.positions.knots.tolist(),
        "log_weights": designed.positions.log_values.tolist(),
        "sources": designed.sources.tolist(),
        "profile": designed.profile.tolist(),
        "alibi_profile": designed.alibi_profile.tolist(),
        "range": designed.range,
        "alibi_range": designed.alibi_range,
        "gain": designed.gain,
        "converged": designed.converged,
        "n_steps": designed.n_steps,
    }
    for name, found in zip(("particles", "alibi_particles"), estimates or (), strict=False):
        record[name] = {
            "n_tokens": found.n_tokens,
            "n_prompts": found.n_prompts,
            "sources": found.sources.tolist(),
            "values": found.values.tolist(),
            "standard_error": found.standard_error.tolist(),
        }
    return record
