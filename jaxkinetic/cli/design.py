"""`jaxkinetic design`: positional weights that flatten the U."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Beta, Lam, Time, VocabSize, option, pick

if TYPE_CHECKING:
    from jaxkinetic import DesignedWeights, WindowMeans

_WINDOWS = 9
_SEED = 0


@command("design.png")
def design(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    mean_distance: Annotated[
        float | None, option("FLOAT", "Mean attention distance to hold, in (0, 1).", "that of ALiBi")
    ] = None,
    family: Annotated[
        Literal["spline", "exponentials", "power-law"],
        tyro.conf.arg(help="Weights to search: any smooth ones, sums of exponentials, or power laws."),
    ] = "spline",
    knots: Annotated[int, tyro.conf.arg(help="Number of distances at which a spline is free.")] = 41,
    terms: Annotated[int, tyro.conf.arg(help="Number of exponentials.")] = 2,
    target: Annotated[
        Path | None, option("FILE", "CSV with columns position and value: follow this profile, not a flat one.")
    ] = None,
    first: Annotated[float, tyro.conf.arg(help="First source position of the profile to flatten.")] = 0.05,
    last: Annotated[float, tyro.conf.arg(help="Last source position of the profile to flatten.")] = 0.95,
    check_prompts: Annotated[
        int, tyro.conf.arg(help="Check both profiles by simulating this many prompts; 0 for no check.")
    ] = 128,
    check_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens of these prompts.")] = 512,
) -> Results:
    """Design positional weights whose retrieval profile is flat, at the mean attention distance of ALiBi.

    Draws the weights and both profiles (design.png), with estimates from particles as means over windows of
    positions. With --target the profile follows the one in a file, up to an offset, between its first and last
    position.
    """
    if not 0 < first < last < 1:
        raise ValueError(
            f"Arguments `first` and `last` must satisfy 0 < first < last < 1, but are {first} and {last}."
        )
    if check_prompts < 0 or check_prompts == 1:
        raise ValueError(
            f"Argument `check_prompts` must be 0, or at least 2 for error bars, but is {check_prompts}."
        )
    if check_prompts and check_tokens < 20:
        raise ValueError(f"Argument `check_tokens` must be at least 20, but is {check_tokens}.")
    import numpy as np

    from jaxkinetic import ALiBi, ExpCosine, design_weights, plotting

    kernel = ExpCosine(beta)
    distance = float(ALiBi(lam).mean_distance) if mean_distance is None else mean_distance
    wanted, sources = None, np.linspace(first, last, max(61, 3 * knots // 2))
    if target is not None:
        sources, wanted = _read_target(target)
    designed = design_weights(
        kernel, time, vocab_size, mean_distance=distance, target=wanted, sources=sources, n_knots=knots,
        family=family, n_terms=terms,
    )  # fmt: skip
    estimates = (
        _estimate(designed, kernel, time, vocab_size, check_tokens, check_prompts) if check_prompts else None
    )
    parameters = {"beta": beta, "time": time, "vocab_size": vocab_size}
    return Results(
        _table(designed, estimates),
        parameters | _record(designed, estimates),
        {"design.png": lambda: plotting.plot_design(designed, estimates)},
    )


def _read_target(path: Path) -> tuple[Any, Any]:
    import numpy as np

    from jaxkinetic.inference.data.csv_table import number, open_table

    columns = ("position", "value")
    with open_table(path) as reader:
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"File {path} must have a column {' and '.join(missing)}.")
        rows = [[number(row, name, f"{path}, row {reader.line_num}") for name in columns] for row in reader]
    if not rows:
        raise ValueError(f"File {path} must have rows, but has none.")
    positions, values = np.array(sorted(rows)).T
    if np.any(np.diff(positions) == 0):
        repeated = positions[:-1][np.diff(positions) == 0][0]
        raise ValueError(f"File {path} must have one value for each position, but {repeated:g} has several.")
    return positions, values


def _estimate(
    designed: "DesignedWeights", kernel: Any, time: float, vocab_size: int, n_tokens: int, n_prompts: int
) -> "tuple[WindowMeans, WindowMeans]":
    import jax
    import numpy as np

    from jaxkinetic import CausalAttention, estimate_profile, window_means

    edges = np.linspace(designed.sources[0], designed.sources[-1], _WINDOWS + 1)
    first, second = (
        window_means(
            estimate_profile(
                CausalAttention(kernel, positions), time, vocab_size, n_tokens, n_prompts=n_prompts,
                key=jax.random.key(_SEED), sources="all", joint=True,
            ),
            edges,
        )
        for positions in (designed.positions, designed.alibi)
    )  # fmt: skip
    return first, second


def _table(designed: "DesignedWeights", estimates: "tuple[WindowMeans, WindowMeans] | None") -> str:
    d, lam = designed, float(designed.alibi.lam)
    end = "converged" if d.converged else "did NOT converge"
    better = "closer to the target" if d.target.any() else "flatter"
    lines = [
        f"mean attention distance  {d.mean_distance:.6g}, that of ALiBi at lambda = {lam:.4g}",
        f"range of the profile     {d.range:.4g}, ALiBi's {d.alibi_range:.4g}: {d.gain:.4g} times {better}",
        f"search                   {end} in {d.n_steps} steps",
    ]
    for name, found in zip(("designed", "ALiBi"), estimates or (), strict=False):
        lines.append(
            f"particles, {name:<13} range {found.range:.4g} over {found.sources.size} windows at N = "
            f"{found.n_tokens}, standard errors up to {found.standard_error.max():.2g}"
        )
    return "\n".join(lines)


def _weights(designed: "DesignedWeights") -> dict[str, Any]:
    """Log b at evenly spaced distances, at the knots of a spline, and the parameters of the family."""
    import jax.numpy as jnp

    positions = designed.positions
    distances = getattr(positions, "knots", jnp.linspace(0, 1, 41))
    parameters = pick(positions, *positions.__dataclass_fields__)
    parameters.pop("log_values", None)
    weights = {"distances": distances, "log_weights": positions.log_weight(distances)}
    return {"family": type(positions).__name__} | parameters | weights


def _record(designed: "DesignedWeights", estimates: "tuple[WindowMeans, WindowMeans] | None") -> dict[str, Any]:
    names = ("sources", "profile", "alibi_profile", "range", "alibi_range", "gain", "converged", "n_steps")
    record = {"mean_distance": designed.mean_distance, "lam": designed.alibi.lam}
    record |= _weights(designed) | pick(designed, *names)
    for name, found in zip(("particles", "alibi_particles"), estimates or (), strict=False):
        record[name] = pick(found, "n_tokens", "n_prompts", "sources", "values", "standard_error")
    return record
