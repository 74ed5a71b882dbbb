"""`jaxkinetic fit --n-tokens N`: the fit through the simulator."""

import dataclasses
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.command import Results
from jaxkinetic.cli.common import bar, option, pick
from jaxkinetic.cli.curves import fit_record, p_text, title
from jaxkinetic.cli.law_file import LawName, law_of, law_option, table_of
from jaxkinetic.law_table import build_law

if TYPE_CHECKING:
    from jaxkinetic import RetrievalCurve, SimulationFit
    from jaxkinetic.theories import ModelTheory


@dataclasses.dataclass(frozen=True)
class Simulator:
    """Fit through the simulator: prompts of finite N, and of laws that have no closed form."""

    n_tokens: Annotated[int | None, option("N", "Simulate prompts of N tokens.")] = None
    law: Annotated[LawName | None, law_option("uniform")] = None
    config: Annotated[Path | None, option("FILE", "TOML file with a [law], as for `jaxkinetic limit`.")] = None
    estimator: Annotated[
        Literal["auto", "glauber", "adjoint"], tyro.conf.arg(help="As for `jaxkinetic estimate`.")
    ] = "auto"
    start: Annotated[
        tuple[float, float] | None, option("BETA LAM", "Where to start.", "the fit of the closed form")
    ] = None
    tolerance: Annotated[
        float, tyro.conf.arg(help="Stop once the Monte Carlo error is this fraction of the data's.")
    ] = 0.1
    max_blocks: Annotated[int, tyro.conf.arg(help="Stop after this many blocks of steps in any case.")] = 64
    steps: Annotated[int, tyro.conf.arg(help="Stochastic steps in a block.")] = 32
    batch: Annotated[int, tyro.conf.arg(help="Prompts in a step.")] = 32
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompts.")] = 0
    checkpoint: Annotated[
        Path | None, option("FILE", "Save the state after every block; if the file exists, continue from it.")
    ] = None


SimulatedPrompts = Annotated[Simulator, tyro.conf.OmitArgPrefixes]


def check_simulator(simulator: Simulator) -> None:
    """Raise if options of the simulator are given without --n-tokens, or two laws."""
    if simulator.n_tokens is not None:
        if simulator.law is not None and simulator.config is not None:
            raise ValueError("Argument `law` must be left out where `config` gives one.")
        return
    plain = Simulator()
    for field in dataclasses.fields(Simulator):
        if getattr(simulator, field.name) != getattr(plain, field.name):
            raise ValueError(f"Argument `{field.name}` must come with `n_tokens`, but that is not given.")


def fit_simulated(
    groups: "list[list[RetrievalCurve]]", simulator: Simulator, theory: "ModelTheory", level: float
) -> Results:
    """Fit every group through the simulator; table, numbers, and a figure of each."""
    import jax

    from jaxkinetic import fit_by_simulation, plotting
    from jaxkinetic._types import check_level, check_seed

    check_level(level)
    check_seed(simulator.seed)
    if simulator.checkpoint is not None and len(groups) > 1:
        raise ValueError(f"Argument `checkpoint` must be of one fit, but there are {len(groups)} to do.")
    assert simulator.n_tokens is not None
    table = table_of(simulator.law or "uniform") if simulator.config is None else law_of(simulator.config)
    law = build_law(table)
    names = ("estimator", "start", "tolerance", "max_blocks", "steps", "batch", "checkpoint")
    options = pick(simulator, *names)
    key, fits = jax.random.key(simulator.seed), []
    with warnings.catch_warnings():
        # The table says so.
        warnings.filterwarnings("ignore", message="The fit ended after")
        for curves in bar(groups, "fits"):
            fits.append(fit_by_simulation(curves, simulator.n_tokens, key, theory=theory, prompts=law, **options))
    text = "\n".join(_table(f, simulator, level) for f in fits)
    records = [_record(f, simulator, level) for f in fits]
    for each in records:
        each["simulation"]["law"] = table
    record = {"fits": records}
    figures = {
        f"fit-{i}.png" if i > 1 else "fit.png": partial(plotting.plot_simulation_fit, f)
        for i, f in enumerate(fits, 1)
    }
    return Results(text, record, {"fit.txt": text, "fit.json": record} | figures)


def _table(f: "SimulationFit", simulator: Simulator, level: float) -> str:
    law = simulator.config or simulator.law or "uniform"
    lines = [
        title(f.curves),
        f"  model       accuracy = c0 + c1 {_theory(f)}, {law} prompts",
    ]
    for name in f.values:
        low, high = f.interval(name, level)
        interval = f", [{low:.3g}, {high:.3g}] ({100 * level:g} %)" if f.identifiable[name] else ""
        lines.append(f"  {name:<12}{f.describe(name)}{interval}")
    seen = f.chi2 > 0
    chi2, p_value = (f"{f.chi2:.2f}", f", {p_text(f.p_value)}") if seen else ("below the simulation's noise", "")
    lines += [
        f"  chi-squared {chi2} for {f.dof} degrees of freedom{p_value}",
        f"  simulation  {f.n_prompts} prompts ({f.estimator}), error {f.monte_carlo_error:.2g} of the data's",
        f"  steps       {f.n_steps} to depth t, which leave {f.step_error:.1e} in one prompt's values",
    ]
    if not f.converged:
        lines.append(
            f"  not settled after {simulator.max_blocks} blocks, for a tolerance of {simulator.tolerance:g}: "
            "raise `--max-blocks` or `--batch`"
        )
    return "\n".join(lines)


def _record(f: "SimulationFit", simulator: Simulator, level: float) -> dict[str, Any]:
    ends = {}
    for name, is_identifiable in f.identifiable.items():
        low, high = f.interval(name, level)
        ends[name] = {"low": low, "high": high} | dict.fromkeys(("low_open", "high_open"), not is_identifiable)
    names = (
        "n_tokens", "estimator", "n_prompts", "n_steps", "step_error", "converged", "monte_carlo_error",
        "standard_errors", "covariance", "data_covariance", "monte_carlo_covariance", "offset", "contrast",
        "sources", "profile", "profile_error", "history",
    )  # fmt: skip
    simulation = pick(f, *names) | {"seed": simulator.seed}
    return fit_record(f, _theory(f), level, ends) | {"simulation": simulation}


def _theory(f: "SimulationFit") -> str:
    return f"S_N{str(f.theory).removeprefix('S_t')}, N = {f.n_tokens}"
