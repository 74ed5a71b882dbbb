"""`jaxkinetic fit`: beta and lambda from measured curves."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.common import (
    JsonFile,
    OutFolder,
    Time,
    VocabSize,
    check_folder,
    configure,
    dump,
    save,
    say,
    write_json,
)

if TYPE_CHECKING:
    from jaxkinetic import CurveFit


def fit(
    model: Annotated[str, tyro.conf.arg(help="Model of the shipped table (Liu et al. 2023).")] = "MPT-30B-Instruct",
    csv: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...", help="Your own curves instead.")] = (),
    n_items: Annotated[
        int | None, tyro.conf.arg(help="Items in the prompt, if the CSV has no such column.")
    ] = None,
    all: Annotated[bool, tyro.conf.arg(help="Fit every model of the shipped table, in one figure.")] = False,
    task: Annotated[
        Literal["multi-document-qa", "key-value-retrieval"], tyro.conf.arg(help="Task of the shipped table.")
    ] = "multi-document-qa",
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    level: Annotated[float, tyro.conf.arg(help="Coverage of intervals and bands.")] = 0.95,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Fit beta and lam to measured retrieval curves; without arguments to those of MPT-30B-Instruct.

    Writes a table (fit.txt), the numbers (fit.json) and a figure (fit.png): data with error bars, fitted
    curves, the band of curves that the data allow, and the likelihood of beta and lam. A CSV has a header with
    columns sigma or position, accuracy, and optionally n_questions, n_items, model, task.
    """
    if csv and (all or model != "MPT-30B-Instruct"):
        raise ValueError("Argument `csv` must stand alone, but `all` or `model` is given too.")
    check_folder(out)
    configure()
    from tqdm import tqdm

    from jaxkinetic import fit_curves, list_models, load_curves, plotting, read_curves

    if csv:
        groups = [[curve for path in csv for curve in read_curves(path, n_items)]]
    else:
        groups = [load_curves(model=name, task=task) for name in (list_models(task=task) if all else [model])]
    fits = [
        fit_curves(curves, time=time, vocab_size=vocab_size, level=level)
        for curves in tqdm(groups, desc="fits", disable=None if all else True)
    ]
    table = _table(fits)
    say(table, json)
    out.mkdir(parents=True, exist_ok=True)
    (out / "fit.txt").write_text(table + "\n")
    figure = plotting.plot_fits(fits) if all else plotting.plot_fit(fits[0])
    record = {"fits": [_fit_record(f) for f in fits]}
    (out / "fit.json").write_text(dump(record))
    save(figure, out / "fit.png", json)
    write_json(record, json)


def _table(fits: "list[CurveFit]") -> str:
    from jaxkinetic.plotting import describe

    lines = []
    for f in fits:
        lengths = ", ".join(str(c.n_items) for c in f.curves if c.n_items)
        n_points = sum(c.sources.size for c in f.curves)
        lines += [
            f"{f.curves[0].name or 'curve'}: {n_points} points" + (f", {lengths} items" if lengths else ""),
            f"  model       accuracy = c0 + c1 S_t(sigma_0; beta, lam), t = {f.time:g}, M = {f.vocab_size}",
            f"  beta        {describe(f, 'beta')}; best {f.beta:.4g}",
            f"  lam         {describe(f, 'lam')}; best {f.lam:.4g}",
            f"  ridge       r = 2 lam / (a_1 t) = {f.ridge:.4g} at the best point",
            f"  chi-squared {f.chi2:.2f} for {f.dof} degrees of freedom, {_p(f.p_value)}, AIC {f.aic:.1f}",
        ]
        lines += [
            f"    {a.name:<10}{a.chi2:.2f} for {a.dof} degrees of freedom, {_p(a.p_value)}, AIC {a.aic:.1f}"
            for a in f.alternatives
        ]
        if not f.errors_known:
            lines.append("  errors      not given: taken from the scatter round the best fit")
    return "\n".join(lines)


def _p(p_value: float) -> str:
    return "p unknown" if math.isnan(p_value) else f"p = {p_value:.3g}"


def _fit_record(f: "CurveFit") -> dict[str, Any]:
    curves = [
        {
            "name": c.name, "task": c.task, "n_items": c.n_items, "origin": c.origin, "sources": c.sources.tolist(),
            "accuracy": c.accuracy.tolist(), "standard_error": c.standard_error.tolist(),
            "fitted": f.predict(c).tolist(),
        }
        for c in f.curves
    ]  # fmt: skip
    names = (
        "beta",
        "lam",
        "ridge",
        "identifiable",
        "chi2",
        "dof",
        "p_value",
        "aic",
        "time",
        "vocab_size",
        "errors_known",
    )
    return {
        **{name: getattr(f, name) for name in names},
        "intervals": {name: dataclasses.asdict(i) for name, i in f.intervals.items()},
        "alternatives": [dataclasses.asdict(a) for a in f.alternatives],
        "curves": curves,
    }
