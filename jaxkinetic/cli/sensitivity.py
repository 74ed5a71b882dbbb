"""`jaxkinetic sensitivity`: what moves the U, and what an experiment would tell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.common import (
    Beta,
    JsonFile,
    Lam,
    OutFolder,
    Time,
    check_outputs,
    configure,
    save,
    say,
    write_json,
)

if TYPE_CHECKING:
    from jaxkinetic import PlannedExperiment, Sensitivity


def sensitivity(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: Annotated[float, tyro.conf.arg(help="Vocabulary size M of the decoder; real numbers too.")] = 8.0,
    edge: Annotated[float, tyro.conf.arg(help="Distance from the ends where primacy and recency are read.")] = 0.05,
    n_positions: Annotated[int, tyro.conf.arg(help="Planned experiment: positions, item i at (i + 1/2) / n.")] = 10,
    n_questions: Annotated[float, tyro.conf.arg(help="Planned experiment: questions at each position.")] = 2655.0,
    c0: Annotated[float, tyro.conf.arg(help="Planned experiment: accuracy where S_t = 0.")] = 0.4,
    c1: Annotated[float, tyro.conf.arg(help="Planned experiment: accuracy for a unit of S_t.")] = 0.1,
    level: Annotated[float, tyro.conf.arg(help="Coverage of the band.")] = 0.95,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Say what moves the U and how well an experiment would tell beta and lam.

    Derivatives and elasticities of the minimum's location, of drop, primacy, recency and asymmetry in beta, lam, t
    and M, by implicit differentiation; Fisher information of a planned curve, expected standard errors of beta,
    lam and of these quantities at known t and M, and the band that they leave (sensitivity.png).
    """
    if n_positions < 1:
        raise ValueError(f"Argument `n_positions` must be at least 1, but is {n_positions}.")
    check_outputs(out, json)
    configure()
    import numpy as np

    from jaxkinetic import plan_experiment, plotting, u_sensitivity

    sources = (np.arange(n_positions) + 0.5) / n_positions
    found = u_sensitivity(beta, lam, time, vocab_size, edge)
    planned = plan_experiment(sources, n_questions, beta, lam, c0, c1, time, vocab_size)
    figure = plotting.plot_sensitivity(found, planned, level)
    say(_table(found, planned), json)
    save(figure, out / "sensitivity.png", json)
    write_json(_record(found, planned), json)


def _table(found: "Sensitivity", planned: "PlannedExperiment") -> str:
    import numpy as np

    from jaxkinetic.inference.experiment import PARAMETERS
    from jaxkinetic.inference.sensitivity import QUANTITIES

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
    lines.append("el.         elasticity (p / q) dq / dp: per cent of a quantity's own value, whatever its sign")
    lines.append(f"planned     {planned.sources.size} positions, {planned.n_questions[0]:g} questions each")
    lines += [f"  {name:<10}{planned.describe(name)}" for name in PARAMETERS]
    return "\n".join(lines)


def _record(found: "Sensitivity", planned: "PlannedExperiment") -> dict[str, Any]:
    from jaxkinetic.inference.sensitivity import PARAMETERS, QUANTITIES

    return {
        "parameters": dict(zip(PARAMETERS, found.parameters.tolist(), strict=True)),
        "edge": found.edge,
        "values": dict(zip(QUANTITIES, found.values.tolist(), strict=True)),
        "standard_errors": dict(
            zip(QUANTITIES, found.standard_errors(planned.covariance[:2, :2]).tolist(), strict=True)
        ),
        "derivatives": {
            q: dict(zip(PARAMETERS, row.tolist(), strict=True))
            for q, row in zip(QUANTITIES, found.derivatives, strict=True)
        },
        "elasticities": {
            q: dict(zip(PARAMETERS, row.tolist(), strict=True))
            for q, row in zip(QUANTITIES, found.elasticities, strict=True)
        },
        "experiment": {
            "sources": planned.sources.tolist(),
            "n_questions": planned.n_questions.tolist(),
            "accuracy": planned.accuracy.tolist(),
            "information": planned.information.tolist(),
            "standard_errors": planned.standard_errors,
            "identified": planned.identified,
        },
    }
