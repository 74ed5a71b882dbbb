"""`jaxkinetic estimate`: the profile of finite prompts, from particles, with error bars."""

import sys
import warnings
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
    save,
    say,
    write_json,
)
from jaxkinetic.cli.distributed import Hosts, SeveralHosts, check_hosts, start
from jaxkinetic.cli.law_file import Beta, ConfigFile, Lam, LawName, law_option, settle, table_of
from jaxkinetic.law_table import build_law

if TYPE_CHECKING:
    from jaxkinetic import ProfileEstimate

# Of the limit in a picture: what is not resolved so takes longer than a line is worth.
_SIZE, _TOLERANCE, _MOST_STEPS = (49, 49, 96), 1e-6, 1024


def estimate(
    beta: Beta = None,
    lam: Lam = None,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    n_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens N.")] = 256,
    n_prompts: Annotated[int, tyro.conf.arg(help="Number of prompts.")] = 1024,
    estimator: Annotated[
        Literal["auto", "naive", "glauber", "adjoint"],
        tyro.conf.arg(help="naive; glauber (draw a token again); adjoint (every source at once)."),
    ] = "auto",
    control_variate: Annotated[bool, tyro.conf.arg(help="Subtract the limit's prediction.")] = True,
    accuracy: Annotated[Literal["soft", "hard"], tyro.conf.arg(help="Decoder: (1.5) or (1.4).")] = "soft",
    sources: Annotated[
        tuple[float, ...] | Literal["all"],
        tyro.conf.arg(
            metavar="SIGMA ...|all",
            help="Source positions in (0, 1); if none all, or 9 where each costs.",
            help_behavior_hint="",
        ),
    ] = (),
    joint: Annotated[
        bool, tyro.conf.arg(help="Also the band that holds the whole curve at once, with 95 %.")
    ] = False,
    law: Annotated[LawName | None, law_option("uniform")] = None,
    config: ConfigFile = None,
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompts.")] = 0,
    hosts: SeveralHosts = Hosts(),  # noqa: B008
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Estimate the retrieval profile S_N(sigma_0) of prompts of N tokens, with standard errors.

    A TOML file as for `jaxkinetic limit` gives the law, beta, lam and sources where no flag does; its times,
    observable_mode and tolerance are for `limit` alone.

    Writes a figure (estimate.png) of the estimate, its 95 % band, and the limit S_t(sigma_0) of N to infinity.
    """
    check_outputs(out, json)
    check_hosts(hosts)
    if n_prompts < 2:
        raise ValueError(f"Argument `n_prompts` must be at least 2, for an error to be seen, but is {n_prompts}.")
    given = {"beta": beta, "lam": lam, "law": law, "sources": sources or None}
    settings = settle(given, config, {"beta": 1.0, "lam": 1.0, "law": "uniform", "sources": None})
    table = table_of(settings["law"])
    configure()
    import jax
    import matplotlib.pyplot as plt
    import numpy as np

    from jaxkinetic import ALiBi, CausalAttention, ExpCosine, estimate_profile, plotting
    from jaxkinetic._types import check_at_least, check_seed
    from jaxkinetic.retrieval.band import FEWEST_PROMPTS
    from jaxkinetic.retrieval.estimators import ESTIMATORS
    from jaxkinetic.retrieval.profile_ensemble import NoControlWarning, why_no_control

    check_seed(seed)
    if joint:
        check_at_least("n_prompts", n_prompts, FEWEST_PROMPTS)
    writes = start(hosts)
    model = CausalAttention(ExpCosine(settings["beta"]), ALiBi(settings["lam"]))
    prompts = build_law(table)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        found = estimate_profile(
            model, time, vocab_size, n_tokens, n_prompts=n_prompts, key=jax.random.key(seed), prompts=prompts,
            estimator=estimator, control_variate=None if control_variate else False,
            sources=settings["sources"], accuracy=accuracy, joint=joint, progress=writes,
        )  # fmt: skip
    if not writes:
        return
    for warning in told:
        print(f"jaxkinetic: warning: {warning.message}", file=sys.stderr)
    unresolved = any(issubclass(warning.category, NoControlWarning) for warning in told)
    why = why_no_control(prompts, ESTIMATORS[found.estimator], accuracy) or "it would not lower these errors"
    say(_table(found, why if control_variate and not unresolved else None), json)
    limit, missing = None, "it is not resolved, as the warning says" if unresolved else None
    if accuracy == "soft" and not unresolved:
        limit, missing = _limit(model, prompts, time, vocab_size, found.sources)
    if limit is not None:
        distance = np.abs(found.values - limit)
        say(
            f"limit       S_N differs from S_t by {np.median(distance):.2g} (median), {distance.max():.2g} (most)",
            json,
        )
    if missing is not None:
        say(f"limit       not available: {missing}", json)
    figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
    plotting.plot_estimate(found, ax)
    if limit is not None:
        if table:
            ax.plot(found.sources, limit, "x", color=plotting.COLOURS[1], label=r"limit, $S_t(\sigma_0)$")
        else:
            plotting.plot_profile_line(model, time, vocab_size, ax)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    name = settings["law"] if config is None or isinstance(settings["law"], str) else config.name
    ax.set_title(_title(settings, name, time, found), fontsize=10)
    save(figure, out / "estimate.png", json)
    record = {
        "beta": settings["beta"], "lam": settings["lam"], "law": table, "time": time, "vocab_size": vocab_size,
        "n_tokens": n_tokens,
        "n_prompts": found.n_prompts, "seed": seed, "estimator": found.estimator,
        "control_variate": found.control_variate, "accuracy": accuracy, "n_steps": found.n_steps,
        "step_error": found.step_error, "sources": found.sources.tolist(), "values": found.values.tolist(),
        "standard_error": found.standard_error.tolist(),
        "limit": None if limit is None else limit.tolist(),
        "simultaneous_error": found.simultaneous_error().tolist() if joint else None,
    }  # fmt: skip
    write_json(record, json)


def _table(found: "ProfileEstimate", why_no_control: str | None) -> str:
    """What particles say; before the limit, which may take as long again."""
    import numpy as np

    error = found.step_error
    left = f"leave {error:.1e} in one prompt's values" if error else "change no value if doubled"
    lines = [
        f"estimator   {found.estimator}{', control variate' if found.control_variate else ''}, {found.accuracy} "
        f"accuracy, {found.n_prompts} prompts of {found.n_tokens} tokens",
        f"S_N         {found.values.min():.4g} to {found.values.max():.4g}, lowest at sigma_0 = "
        f"{found.sources[found.values.argmin()]:.4g}",
        f"error       {np.median(found.standard_error):.2g} (median over {found.sources.size} sources)",
        f"steps       {found.n_steps}, which {left}",
    ]
    if why_no_control is not None and not found.control_variate:
        lines.insert(1, f"control     none: {why_no_control}")
    return "\n".join(lines)


def _title(settings: dict[str, Any], law: str, time: float, found: "ProfileEstimate") -> str:
    """What a picture of an estimate is of."""
    control = ", control variate" if found.control_variate else ""
    return (
        rf"$\beta$ = {settings['beta']:g}, $\lambda$ = {settings['lam']:g}, t = {time:g}, M = {found.vocab_size}, "
        f"{law} prompts\n{found.accuracy} accuracy, {found.estimator}{control}"
    )


def _limit(model: Any, prompts: Any, time: float, vocab_size: int, sources: Any) -> tuple[Any, str | None]:
    """S_t at the sources, or why it is not to be had."""
    import numpy as np

    from jaxkinetic.integrate import Solve, reason
    from jaxkinetic.limit import Resolution
    from jaxkinetic.retrieval import law_profile, retrieval_profile

    try:
        if prompts.is_uniform:
            values = retrieval_profile(model, time, vocab_size, sources).values
        else:
            size = Resolution(*_SIZE, tolerance=_TOLERANCE)
            options = Solve(rtol=_TOLERANCE / 100, atol=_TOLERANCE / 100, max_steps=_MOST_STEPS)
            values = law_profile(
                model, prompts, time, vocab_size, sources=sources, resolution=size, options=options
            ).values
    except RuntimeError as error:
        return None, reason(error)
    if not np.all(np.isfinite(values)):
        return None, "its values are not finite."
    return np.asarray(values), None
