"""`jaxkinetic fit`: beta and lam from measured curves, by the closed form or through the simulator."""

from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Time, VocabSize, bar, option, pick
from jaxkinetic.cli.curves import CurveOptions, Curves, fit_record, p_text, title
from jaxkinetic.cli.simulation_fit import SimulatedPrompts, Simulator, check_simulator, fit_simulated

if TYPE_CHECKING:
    from jaxkinetic import CurveFit


@command("fit.txt", "fit.json", "fit.png")
def fit(
    curves: CurveOptions = Curves(),  # noqa: B008
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    level: Annotated[float, tyro.conf.arg(help="Coverage of intervals and bands.")] = 0.95,
    beta_range: Annotated[
        tuple[float, float] | None,
        option("LOW HIGH", "Range of beta to search.", "0.01 10, or 0.01 3 through the simulator"),
    ] = None,
    lam_range: Annotated[tuple[float, float], tyro.conf.arg(metavar="LOW HIGH", help="Range of lam to search.")] = (
        -20.0,
        100.0,
    ),
    simulator: SimulatedPrompts = Simulator(),  # noqa: B008
) -> Results:
    """Fit beta and lam to measured retrieval curves; without arguments to those of MPT-30B-Instruct.

    Each model and task is fitted by itself. Writes a table (fit.txt), the numbers (fit.json) and a figure
    (fit.png): data with error bars, fitted curves, the band of curves that the data allow, and the likelihood of
    beta and lam.
    With --n-tokens the fit goes through the simulator instead of the closed form: prompts of N tokens of any law.
    """
    from jaxkinetic import fit_curves, plotting, theories

    check_simulator(simulator)
    groups = curves.groups()
    default = theories.BETA_RANGE if simulator.n_tokens is None else (0.01, 3.0)
    theory = theories.paper(time, vocab_size, beta_range=beta_range or default, lam_range=lam_range)
    if simulator.n_tokens is not None:
        return fit_simulated(groups, simulator, theory, level)
    fits = [fit_curves(each, theory=theory, level=level) for each in bar(groups, "fits")]
    table = "\n".join(_table(f) for f in fits)
    record = {"fits": [_record(f) for f in fits]}
    return Results(
        table,
        record,
        {
            "fit.txt": table,
            "fit.json": record,
            "fit.png": lambda: plotting.plot_fits(fits) if len(fits) > 1 else plotting.plot_fit(fits[0]),
        },
    )


def _table(f: "CurveFit") -> str:
    lines = [
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
        lines.append("  errors      not given: taken from the scatter around the best fit")
    return "\n".join(lines)


def _record(f: "CurveFit") -> dict[str, Any]:
    ends = {name: pick(interval, "low", "high", "low_open", "high_open") for name, interval in f.intervals.items()}
    more = pick(f, "quantities", "aic", "errors_known", "alternatives")
    return fit_record(f, str(f.theory), f.level, ends) | more
