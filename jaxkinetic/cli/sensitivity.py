"""`jaxkinetic sensitivity`: what moves the U, and what an experiment would tell."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Beta, Lam, Time, pick

if TYPE_CHECKING:
    from jaxkinetic import PlannedExperiment, Sensitivity


@command("sensitivity.png")
def sensitivity(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: Annotated[float, tyro.conf.arg(help="Vocabulary size M of the decoder; need not be whole.")] = 8.0,
    edge: Annotated[
        float, tyro.conf.arg(help="Distance from the ends at which primacy and recency are read.")
    ] = 0.05,
    n_positions: Annotated[int, tyro.conf.arg(help="Planned experiment: positions, item i at (i + 1/2) / n.")] = 10,
    n_questions: Annotated[float, tyro.conf.arg(help="Planned experiment: questions at each position.")] = 2655.0,
    c0: Annotated[float, tyro.conf.arg(help="Planned experiment: accuracy where S_t = 0.")] = 0.4,
    c1: Annotated[float, tyro.conf.arg(help="Planned experiment: accuracy per unit of S_t.")] = 0.1,
    level: Annotated[float, tyro.conf.arg(help="Coverage of the band.")] = 0.95,
) -> Results:
    """Say what moves the U, and how well an experiment would determine beta and lam.

    Prints derivatives and elasticities in beta, lam, t and M of the location of the minimum, of drop, primacy,
    recency and asymmetry, and the standard errors of these, of beta and of lam that a planned curve would give at
    known t and M; draws the elasticities, the curve and the band that it would leave (sensitivity.png).
    """
    if n_positions < 1:
        raise ValueError(f"Argument `n_positions` must be at least 1, but is {n_positions}.")
    import numpy as np

    from jaxkinetic import plan_experiment, plotting, theories, u_sensitivity

    sources = (np.arange(n_positions) + 0.5) / n_positions
    (low, high), (left, right) = theories.BETA_RANGE, theories.LAM_RANGE
    theory = theories.paper(
        time,
        vocab_size,
        beta_range=(min(low, beta), max(high, beta)),
        lam_range=(min(left, lam), max(right, lam)),
    )
    values = {"beta": beta, "lam": lam}
    found = u_sensitivity(values, theory=theory, edge=edge)
    planned = plan_experiment(sources, n_questions, values, c0=c0, c1=c1, theory=theory)
    figures = {"sensitivity.png": lambda: plotting.plot_sensitivity(found, planned, level)}
    return Results(_table(found, planned), _record(found, planned), figures)


def _table(found: "Sensitivity", planned: "PlannedExperiment") -> str:
    import numpy as np

    from jaxkinetic.shape.sensitivity import QUANTITIES

    names = ("beta", "lam", "t", "M")
    errors = found.standard_errors(planned.covariance[:2, :2])
    lines = [
        f"{'':<12}{'value':>10}{'planned +-':>12}"
        + "".join(f"{f'd/d{n}':>12}" for n in names)
        + "".join(f"{f'el. {n}':>11}" for n in names)
    ]
    for i, quantity in enumerate(QUANTITIES):
        slopes = "".join(f"{d:>12.4g}" for d in found.derivatives[i])
        shares = "".join(f"{e:>11.3g}" for e in found.elasticities[i])
        error = f"{errors[i]:.2g}" if np.isfinite(errors[i]) else "blind"
        lines.append(f"{quantity:<12}{found.values[i]:>10.4g}{error:>12}{slopes}{shares}")
    lines.append(
        "el.         elasticity (p / q) dq / dp: per cent of the quantity for one per cent of the parameter"
    )
    lines.append(f"planned     {planned.sources.size} positions, {planned.n_questions[0]:g} questions each")
    lines += [f"  {name:<10}{planned.describe(name)}" for name in planned.names]
    return "\n".join(lines)


def _record(found: "Sensitivity", planned: "PlannedExperiment") -> dict[str, Any]:
    from jaxkinetic.shape.sensitivity import QUANTITIES

    of_quantities, of_parameters = (partial(_named, names) for names in (QUANTITIES, found.names))
    names = ("sources", "n_questions", "accuracy", "information", "standard_errors", "identifiable")
    return {
        "parameters": of_parameters(found.parameters),
        "edge": found.edge,
        "values": of_quantities(found.values),
        "standard_errors": of_quantities(found.standard_errors(planned.covariance[:2, :2])),
        "derivatives": of_quantities(map(of_parameters, found.derivatives)),
        "elasticities": of_quantities(map(of_parameters, found.elasticities)),
        "experiment": pick(planned, *names),
    }


def _named(names: tuple[str, ...], values: Any) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))
