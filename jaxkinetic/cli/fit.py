"""`jaxkinetic fit`: beta and lambda from measured curves, by the closed form or through the simulator."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.common import (
    JsonFile,
    OutFolder,
    Time,
    VocabSize,
    check_outputs,
    configure,
    curve_record,
    dump,
    p_text,
    save,
    say,
    title,
    write_json,
)
from jaxkinetic.cli.simulation_fit import SimulatedPrompts, Simulator, check_simulator, fit_simulated

if TYPE_CHECKING:
    from jaxkinetic import CurveFit, RetrievalCurve

_DEFAULT = ("MPT-30B-Instruct",)


def fit(
    model: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help="Model of the shipped table; may be repeated. MPT-30B-Instruct if none."),
    ] = (),
    csv: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...", help="Your own curves instead.")] = (),
    n_items: Annotated[
        int | None, tyro.conf.arg(help="Items in the prompt, if the CSV has no such column.")
    ] = None,
    all: Annotated[bool, tyro.conf.arg(help="Fit every model of the shipped table, in one figure.")] = False,
    task: Annotated[
        Literal["multi-document-qa", "key-value-retrieval"] | None,
        tyro.conf.arg(help="Task of the shipped table; every task if none.", help_behavior_hint=""),
    ] = None,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    level: Annotated[float, tyro.conf.arg(help="Coverage of intervals and bands.")] = 0.95,
    beta_range: Annotated[
        tuple[float, float] | None,
        tyro.conf.arg(
            metavar="LOW HIGH",
            help="Sharpness that is searched: 0.01 10, through the simulator 0.01 3, if none.",
            help_behavior_hint="",
        ),
    ] = None,
    lam_range: Annotated[
        tuple[float, float],
        tyro.conf.arg(metavar="LOW HIGH", help="Positional bias that is searched; it has to include 0."),
    ] = (-20.0, 100.0),
    simulator: SimulatedPrompts = Simulator(),  # noqa: B008
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Fit beta and lam to measured retrieval curves; without arguments to those of MPT-30B-Instruct.

    All lengths of one model and task share beta and lam. Writes a table (fit.txt), the numbers (fit.json) and a
    figure (fit.png): data with error bars, fitted curves, the band of curves that the data allow, and the
    likelihood of beta and lam. A CSV has a header with columns sigma or position, accuracy, and optionally
    n_questions, n_items, model, task; each model and task of it is fitted by itself. With --n-tokens the fit goes
    through the simulator instead of the closed form: prompts of N tokens of any law.
    """
    if csv and (all or model):
        raise ValueError("Argument `csv` must stand alone, but `all` or `model` is given too.")
    if all and model:
        raise ValueError("Argument `all` must stand alone, but `model` is given too.")
    check_outputs(out, json)
    check_simulator(simulator)
    configure()
    groups = _groups(csv, n_items, None if all else model or _DEFAULT, task)
    common = {"time": time, "vocab_size": vocab_size, "lam_range": lam_range}
    if beta_range is not None:
        common["beta_range"] = beta_range
    if simulator.n_tokens is not None:
        fit_simulated(groups, simulator, common, level, out, json)
        return
    from tqdm import tqdm

    from jaxkinetic import fit_curves, plotting, theories

    fits = [
        fit_curves(curves, theory=theories.paper(**common), level=level)
        for curves in tqdm(groups, desc="fits", disable=None if len(groups) > 1 else True)
    ]
    table = _table(fits)
    say(table, json)
    out.mkdir(parents=True, exist_ok=True)
    (out / "fit.txt").write_text(table + "\n")
    figure = plotting.plot_fits(fits) if len(fits) > 1 else plotting.plot_fit(fits[0])
    record = {"fits": [_fit_record(f, time, vocab_size) for f in fits]}
    (out / "fit.json").write_text(dump(record))
    save(figure, out / "fit.png", json)
    write_json(record, json)


def _groups(
    csv: tuple[Path, ...], n_items: int | None, models: tuple[str, ...] | None, task: str | None
) -> "list[list[RetrievalCurve]]":
    """Curves that are fitted together: those of one model and task."""
    from jaxkinetic import load_curves, read_curves
    from jaxkinetic.inference.data.curves import by_model

    if csv:
        return by_model(curve for path in csv for curve in read_curves(path, n_items))
    if models is None:
        return by_model(load_curves(task=task))
    groups = []
    for name in dict.fromkeys(models):
        found = load_curves(model=name, task=task)
        if not found:
            raise ValueError(f"Argument `task` must be one of {name}'s, but is {task!r}.")
        groups += by_model(found)
    return groups


def _table(fits: "list[CurveFit]") -> str:
    lines = []
    for f in fits:
        lines += [
            title(f.curves),
            f"  model       accuracy = c0 + c1 {f.theory}",
            f"  beta        {f.describe('beta')}; best {f.beta:.4g}",
            f"  lam         {f.describe('lam')}; best {f.lam:.4g}",
            f"  ridge       r = 2 lam / (a_1 t) = {f.ridge:.4g} at the best point",
            f"  chi-squared {f.chi2:.2f} for {f.dof} degrees of freedom, {p_text(f.p_value)}, AIC {f.aic:.1f}",
        ]
        lines += [
            f"    {a.name:<10}{a.chi2:.2f} for {a.dof} degrees of freedom, {p_text(a.p_value)}, AIC {a.aic:.1f}"
            for a in f.alternatives
        ]
        if not f.errors_known:
            lines.append("  errors      not given: taken from the scatter round the best fit")
    return "\n".join(lines)


def _fit_record(f: "CurveFit", time: float, vocab_size: int) -> dict[str, Any]:
    names = (
        "beta", "lam", "ridge", "identifiable", "chi2", "dof", "p_value", "aic", "level", "errors_known",
    )  # fmt: skip
    return {
        **{name: getattr(f, name) for name in names},
        "time": time,
        "vocab_size": vocab_size,
        "intervals": {name: dataclasses.asdict(i) for name, i in f.intervals.items()},
        "alternatives": [dataclasses.asdict(a) for a in f.alternatives],
        "curves": [curve_record(c) | {"fitted": f.predict(c).tolist()} for c in f.curves],
    }
