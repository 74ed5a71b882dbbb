"""`jaxkinetic posterior`: what measured curves say about beta and lam, beside priors and evidence."""

import itertools
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import bar, pick
from jaxkinetic.cli.curves import CurveOptions, Curves, curve_record, title

if TYPE_CHECKING:
    from jaxkinetic import NextMeasurement, Posterior


@command("posterior.txt", "posterior.json", "posterior.png", "next-measurement.png")
def posterior(
    curves: CurveOptions = Curves(),  # noqa: B008
    pool: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Fit one beta and lam to all models, and give the evidence for that."),
    ] = False,
    time: Annotated[
        tuple[float, ...],
        tyro.conf.arg(metavar="T ...", help="Depth t of the last layer; several are weighed by the data."),
    ] = (1.0,),
    vocab_size: Annotated[
        tuple[int, ...], tyro.conf.arg(metavar="M ...", help="Vocabulary size M; several are weighed by the data.")
    ] = (8,),
    beta_range: Annotated[
        tuple[float, float], tyro.conf.arg(metavar="LOW HIGH", help="Prior: flat in log(beta) over this range.")
    ] = (0.01, 10.0),
    lam_range: Annotated[
        tuple[float, float], tyro.conf.arg(metavar="LOW HIGH", help="Prior: flat in arcsinh(lam) over this range.")
    ] = (-20.0, 100.0),
    contrast_spread: Annotated[
        float, tyro.conf.arg(help="Prior: typical standard deviation of a curve over its positions.")
    ] = 0.2,
    level: Annotated[float, tyro.conf.arg(help="Probability of intervals and bands.")] = 0.9,
    next_questions: Annotated[
        tuple[float, ...],
        tyro.conf.arg(
            metavar="N ...",
            help="Say where one more point with so many questions would be most informative.",
            help_behavior_hint="",
        ),
    ] = (),
) -> Results:
    """Posterior of beta and lam from measured retrieval curves; without arguments from those of MPT-30B-Instruct.

    Integrates out offset and contrast of each curve, and weighs the evidence against a constant, a quadratic and
    free-form curves. Writes a table (posterior.txt), the numbers (posterior.json) and a figure of each model
    (posterior.png): regions, marginals beside their priors, and predicted curves. With --next-questions also the
    information expected from one more point, for every length and position (next-measurement.png).
    """
    from jaxkinetic import Priors, curve_posterior, next_measurement, plotting, theories

    groups = curves.groups()
    if pool and len(groups) < 2:
        raise ValueError("Argument `pool` needs curves of several models, but there is one.")
    for name, values in (("time", time), ("vocab_size", vocab_size)):
        if not values:
            raise ValueError(f"Argument `{name}` must hold one value or several.")
    priors = Priors(contrast_spread=contrast_spread)
    weighed = [
        theories.paper(t, m, beta_range=beta_range, lam_range=lam_range)
        for t, m in itertools.product(time, vocab_size)
    ]
    wanted = [[curve for group in groups for curve in group], *groups] if pool else groups
    found = [
        curve_posterior(each, theory=weighed, priors=priors, level=level) for each in bar(wanted, "posteriors")
    ]
    shown, apart = (found[:1], found[1:]) if pool else (found, [])
    more = [next_measurement(p, n_questions=next_questions) for p in shown] if next_questions else []
    table = "\n".join(
        [*(_table(p, time, vocab_size) for p in shown), *_pooling(shown[0], apart), *(str(n) for n in more)]
    )
    record: dict[str, Any] = {"posteriors": [_record(p, time, vocab_size) for p in shown]}
    if more:
        record["next_measurements"] = [_next(n) for n in more]
    if pool:
        record["log_evidence_apart"] = {p.curves[0].name: p.log_evidence for p in apart}
    files: dict[Any, Any] = {"posterior.txt": table, "posterior.json": record}
    for i, p in enumerate(shown, 1):
        files[f"posterior-{i}.png" if i > 1 else "posterior.png"] = partial(plotting.plot_posterior, p)
    for i, n in enumerate(more, 1):
        name = f"next-measurement-{i}.png" if i > 1 else "next-measurement.png"
        files[name] = partial(plotting.plot_next_measurement, n)
    return Results(table, record, files)


def _weights(p: "Posterior", time: tuple[float, ...], vocab_size: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Posterior probabilities of the depths, and of the vocabularies."""
    share = p.probabilities.reshape(len(time), len(vocab_size))
    return {
        "time": {"values": list(time), "share": share.sum(axis=1)},
        "vocab_size": {"values": list(vocab_size), "share": share.sum(axis=0)},
    }


def _table(p: "Posterior", time: tuple[float, ...], vocab_size: tuple[int, ...]) -> str:
    depths, sizes = (", ".join(f"{x:g}" for x in values) for values in (time, vocab_size))
    lines = [
        title(p.curves),
        f"  model       accuracy = c0 + c1 S_t(sigma_0; beta, lam), t = {depths}, M = {sizes}",
    ]
    lines += [
        f"  {'priors' if i == 0 else '':<12}{line}" for i, line in enumerate(p.describe_priors().splitlines())
    ]
    lines += [f"  {name:<12}{p.describe(name)}" for name in p.intervals]
    for name, weighed in _weights(p, time, vocab_size).items():
        if len(weighed["values"]) > 1:
            shares = ", ".join(
                f"{s:.3g} at {x:g}" for x, s in zip(weighed["values"], weighed["share"], strict=True)
            )
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
        pick(c, "name", "n_items") | {"information": information, "error": error}
        for c, information, error in zip(found.posterior.curves, found.information, found.error, strict=True)
    ]
    return pick(found, "sources", "n_questions") | {"curves": curves}


def _record(p: "Posterior", time: tuple[float, ...], vocab_size: tuple[int, ...]) -> dict[str, Any]:
    marginals = {name: dict(zip(("edges", "share"), p.marginal(name), strict=True)) for name in p.intervals}
    names = ("intervals", "identifiable", "log_evidence", "log_evidence_of", "level")
    bands = [dict(zip(("low", "median", "high"), p.predict(c), strict=True)) for c in p.curves]
    return pick(p, *names) | {
        "priors": {q.name: pick(q, "low", "high", "scale") for q in p.parameters}
        | pick(p.priors, "mean", "mean_spread", "contrast_spread"),
        "marginals": marginals | _weights(p, time, vocab_size),
        "curves": [curve_record(c, **band) for c, band in zip(p.curves, bands, strict=True)],
    }
