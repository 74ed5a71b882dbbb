"""`jaxkinetic posterior`: what measured curves say about beta and lambda, priors and evidence beside."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.common import (
    JsonFile,
    OutFolder,
    check_outputs,
    configure,
    dump,
    save,
    say,
    write_json,
)

if TYPE_CHECKING:
    from jaxkinetic import NextMeasurement, Posterior, RetrievalCurve

_DEFAULT = ("MPT-30B-Instruct",)


def posterior(
    model: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help="Model of the shipped table; may be repeated. MPT-30B-Instruct if none."),
    ] = (),
    csv: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...", help="Your own curves instead.")] = (),
    n_items: Annotated[
        int | None, tyro.conf.arg(help="Items in the prompt, if the CSV has no such column.")
    ] = None,
    all: Annotated[bool, tyro.conf.arg(help="Every model of the shipped table.")] = False,
    pool: Annotated[
        bool, tyro.conf.arg(help="One beta and lam for all models, and the evidence for that.")
    ] = False,
    task: Annotated[
        Literal["multi-document-qa", "key-value-retrieval"], tyro.conf.arg(help="Task of the shipped table.")
    ] = "multi-document-qa",
    time: Annotated[
        tuple[float, ...], tyro.conf.arg(metavar="T ...", help="Depth t of the last layer; several are weighed.")
    ] = (1.0,),
    vocab_size: Annotated[
        tuple[int, ...], tyro.conf.arg(metavar="M ...", help="Vocabulary size M; several are weighed.")
    ] = (8,),
    beta_range: Annotated[
        tuple[float, float], tyro.conf.arg(help="Prior: beta is flat in log(beta) between these.")
    ] = (0.01, 10.0),
    lam_range: Annotated[
        tuple[float, float], tyro.conf.arg(help="Prior: lam is flat in arcsinh(lam) between these.")
    ] = (-20.0, 100.0),
    contrast_spread: Annotated[
        float, tyro.conf.arg(help="Prior: typical standard deviation of a curve over its positions.")
    ] = 0.2,
    level: Annotated[float, tyro.conf.arg(help="Probability in intervals and bands.")] = 0.9,
    next_questions: Annotated[
        tuple[float, ...],
        tyro.conf.arg(metavar="N ...", help="Ask where one more point of so many questions would tell most."),
    ] = (),
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Posterior of beta and lam from measured retrieval curves; without arguments from those of MPT-30B-Instruct.

    All lengths of one model share beta and lam; offset and contrast of each curve are integrated out. Writes a
    table (posterior.txt), the numbers (posterior.json) and a figure of each model (posterior.png): regions,
    marginals beside their priors, and the curves that are predicted; and weighs the evidence against a constant, a
    quadratic and free-form curves. With --next-questions also the information that one more point is expected to
    give, for every length and position (next-measurement.png). A CSV is as for `jaxkinetic fit`.
    """
    if csv and (all or model):
        raise ValueError("Argument `csv` must stand alone, but `all` or `model` is given too.")
    if all and model:
        raise ValueError("Argument `all` must stand alone, but `model` is given too.")
    check_outputs(out, json)
    configure()
    import matplotlib.pyplot as plt
    from tqdm import tqdm

    from jaxkinetic import (
        Priors,
        curve_posterior,
        list_models,
        load_curves,
        next_measurement,
        plotting,
        read_curves,
    )
    from jaxkinetic.inference.data.curves import by_model

    if csv:
        groups = by_model(curve for path in csv for curve in read_curves(path, n_items))
    else:
        names = list_models(task=task) if all else list(dict.fromkeys(model)) or _DEFAULT
        groups = [load_curves(model=name, task=task) for name in names]
    if pool and len(groups) < 2:
        raise ValueError("Argument `pool` needs curves of several models, but there is one.")
    priors = Priors(beta_range, lam_range, contrast_spread=contrast_spread)
    wanted = [[curve for curves in groups for curve in curves], *groups] if pool else groups
    found = [
        curve_posterior(curves, time, vocab_size, priors, level)
        for curves in tqdm(wanted, desc="posteriors", disable=None if len(wanted) > 1 else True)
    ]
    shown, apart = (found[:1], found[1:]) if pool else (found, [])
    more = [next_measurement(p, next_questions) for p in shown] if next_questions else []
    table = "\n".join([*(_table(p) for p in shown), *_pooling(shown[0], apart), *(str(n) for n in more)])
    record: dict[str, Any] = {"posteriors": [_record(p) for p in shown]}
    if more:
        record["next_measurements"] = [_next(n) for n in more]
    if pool:
        record["log_evidence_apart"] = {_name(p.curves): p.log_evidence for p in apart}
    say(table, json)
    out.mkdir(parents=True, exist_ok=True)
    (out / "posterior.txt").write_text(table + "\n")
    (out / "posterior.json").write_text(dump(record))
    drawings = [("posterior", i, partial(plotting.plot_posterior, p)) for i, p in enumerate(shown)]
    drawings += [("next-measurement", i, partial(plotting.plot_next_measurement, n)) for i, n in enumerate(more)]
    for name, i, draw in drawings:
        figure = draw()
        save(figure, out / (f"{name}-{i + 1}.png" if i else f"{name}.png"), json)
        plt.close(figure)
    write_json(record, json)


def _name(curves: "list[RetrievalCurve]") -> str:
    return " and ".join(dict.fromkeys(c.name or "curve" for c in curves))


def _table(p: "Posterior") -> str:
    lengths = ", ".join(dict.fromkeys(str(c.n_items) for c in p.curves if c.n_items))
    n_points = sum(c.sources.size for c in p.curves)
    depths, sizes = (", ".join(f"{x:g}" for x in values) for values in (p.times, p.vocab_sizes))
    lines = [
        f"{_name(p.curves)}: {n_points} points" + (f", {lengths} items" if lengths else ""),
        f"  model       accuracy = c0 + c1 S_t(sigma_0; beta, lam), t = {depths}, M = {sizes}",
    ]
    lines += [f"  {'priors' if i == 0 else '':<12}{line}" for i, line in enumerate(str(p.priors).splitlines())]
    lines += [f"  {name:<12}{p.describe(name)}" for name in ("beta", "lam")]
    for name, values in (("time", p.times), ("vocab_size", p.vocab_sizes)):
        if values.size > 1:
            shares = ", ".join(f"{s:.3g} at {x:g}" for x, s in zip(*p.marginal(name), strict=True))
            lines.append(f"  {name:<12}{shares}")
    lines.append(f"  {'evidence':<12}log Z = {p.log_evidence:.2f}")
    lines += [f"  {'':<12}{p.log_evidence - z:+.2f} against {name}" for name, z in p.log_evidence_of.items()]
    return "\n".join(lines)


def _pooling(pooled: "Posterior", apart: "list[Posterior]") -> list[str]:
    if not apart:
        return []
    gain = pooled.log_evidence - sum(p.log_evidence for p in apart)
    return [f"  {'pooling':<12}{gain:+.2f} for one beta and lam, against a pair for each of {len(apart)} models"]


def _next(found: "NextMeasurement") -> dict[str, Any]:
    curves = [
        {"name": c.name, "n_items": c.n_items, "information": told.tolist(), "error": error.tolist()}
        for c, told, error in zip(found.posterior.curves, found.information, found.error, strict=True)
    ]
    return {"sources": found.sources.tolist(), "n_questions": found.n_questions.tolist(), "curves": curves}


def _record(p: "Posterior") -> dict[str, Any]:
    curves = []
    for c in p.curves:
        low, median, high = (x.tolist() for x in p.predict(c))
        curves.append(
            {
                "name": c.name, "task": c.task, "n_items": c.n_items, "origin": c.origin,
                "sources": c.sources.tolist(), "accuracy": c.accuracy.tolist(),
                "standard_error": c.standard_error.tolist(), "low": low, "median": median, "high": high,
            }
        )  # fmt: skip
    marginals = {}
    for name in ("beta", "lam", "time", "vocab_size"):
        places, share = p.marginal(name)
        marginals[name] = {"edges" if name in p.intervals else "values": places.tolist(), "share": share.tolist()}
    return {
        "intervals": {name: dataclasses.asdict(i) for name, i in p.intervals.items()},
        "identified": p.identified,
        "log_evidence": p.log_evidence,
        "log_evidence_of": p.log_evidence_of,
        "priors": dataclasses.asdict(p.priors),
        "level": p.level,
        "marginals": marginals,
        "curves": curves,
    }
