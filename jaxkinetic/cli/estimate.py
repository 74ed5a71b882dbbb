"""`jaxkinetic estimate`: the profile of finite prompts, from particles, with error bars."""

import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxkinetic.cli.command import Results, command
from jaxkinetic.cli.common import Time, VocabSize, option, pick
from jaxkinetic.cli.distributed import Hosts, SeveralHosts, check_hosts, start
from jaxkinetic.cli.law_file import Beta, ConfigFile, Lam, LawName, law_option, settle, table_of
from jaxkinetic.cli.output import show
from jaxkinetic.law_table import build_law

if TYPE_CHECKING:
    from jaxkinetic import ProfileEstimate

_DEFAULTS: dict[str, Any] = {"beta": 1.0, "lam": 1.0, "law": "uniform", "sources": None}
# Resolution of the limit that is drawn: a finer one takes longer than a line in a picture is worth.
_SIZE, _TOLERANCE, _MOST_STEPS = (49, 49, 96), 1e-6, 1024


@command("estimate.png")
def estimate(
    beta: Beta = None,
    lam: Lam = None,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    n_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens N.")] = 256,
    n_prompts: Annotated[int, tyro.conf.arg(help="Number of prompts.")] = 1024,
    estimator: Annotated[
        Literal["auto", "naive", "glauber", "adjoint"],
        tyro.conf.arg(help="naive; glauber (re-draw one token); adjoint (every source at once)."),
    ] = "auto",
    control_variate: Annotated[bool, tyro.conf.arg(help="Subtract the limit's prediction.")] = True,
    accuracy: Annotated[Literal["soft", "hard"], tyro.conf.arg(help="Decoder: (1.5) or (1.4).")] = "soft",
    sources: Annotated[
        tuple[float, ...] | Literal["all"],
        option("SIGMA ...|all", "Source positions in (0, 1).", "all, or 9 where each has its own cost"),
    ] = (),
    joint: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Also give the 95 % band that holds the whole curve at once."),
    ] = False,
    law: Annotated[LawName | None, law_option("uniform")] = None,
    config: ConfigFile = None,
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompts.")] = 0,
    hosts: SeveralHosts = Hosts(),  # noqa: B008
) -> Results | None:
    """Estimate the retrieval profile S_N(sigma_0) of prompts of N tokens, with standard errors.

    A TOML file as for `jaxkinetic limit` gives the law, beta, lam and sources where no flag does; its times,
    observable_mode and tolerance are for `limit` alone.

    Draws the estimate, its 95 % band, and the limit S_t(sigma_0) as N tends to infinity (estimate.png).
    """
    settings = settle(locals() | {"sources": sources or None}, config, _DEFAULTS)
    check_hosts(hosts)
    if n_prompts < 2:
        raise ValueError(f"Argument `n_prompts` must be at least 2 for error bars, but is {n_prompts}.")
    import jax

    from jaxkinetic import ALiBi, CausalAttention, ExpCosine, estimate_profile
    from jaxkinetic._types import check_at_least, check_seed
    from jaxkinetic.retrieval.band import FEWEST_PROMPTS
    from jaxkinetic.retrieval.estimators import ESTIMATORS
    from jaxkinetic.retrieval.profile_ensemble import NoControlWarning, why_no_control

    check_seed(seed)
    if joint:
        check_at_least("n_prompts", n_prompts, FEWEST_PROMPTS)
    writes = start(hosts)
    table = table_of(settings["law"])
    model, prompts = CausalAttention(ExpCosine(settings["beta"]), ALiBi(settings["lam"])), build_law(table)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", UserWarning)
        found = estimate_profile(
            model, time, vocab_size, n_tokens, n_prompts=n_prompts, key=jax.random.key(seed), prompts=prompts,
            estimator=estimator, control_variate=None if control_variate else False,
            sources=settings["sources"], accuracy=accuracy, joint=joint, progress=writes,
        )  # fmt: skip
    if not writes:
        return None
    for warning in raised:
        show(f"jaxkinetic: warning: {warning.message}", sys.stderr)
    unresolved = any(issubclass(warning.category, NoControlWarning) for warning in raised)
    why = why_no_control(prompts, ESTIMATORS[found.estimator], accuracy) or "it would not lower these errors"
    text = _table(found, why if control_variate and not unresolved else None)
    limit, missing = None, "it is not resolved, as the warning says" if unresolved else None
    if accuracy == "soft" and not unresolved:
        limit, missing = _limit(model, prompts, time, vocab_size, found.sources)
    name = settings["law"] if config is None or isinstance(settings["law"], str) else config.name
    title = _title(settings, name, time, found)
    record = {
        "beta": settings["beta"], "lam": settings["lam"], "law": table, "time": time, "seed": seed, "limit": limit,
        "simultaneous_error": found.simultaneous_error() if joint else None,
    } | pick(
        found, "vocab_size", "n_tokens", "n_prompts", "estimator", "control_variate", "accuracy", "n_steps",
        "step_error", "sources", "values", "standard_error",
    )  # fmt: skip
    return Results(
        text + _distance(found, limit, missing),
        record,
        {"estimate.png": lambda: _draw(found, limit, model if not table else None, time, title)},
    )


def _distance(found: "ProfileEstimate", limit: Any, missing: str | None) -> str:
    """How far the estimate is from the limit, or why that is not known."""
    import numpy as np

    if limit is None:
        return f"\nlimit       not available: {missing}" if missing else ""
    distance = np.abs(found.values - limit)
    return f"\nlimit       |S_N - S_t| is {np.median(distance):.2g} (median), {distance.max():.2g} (largest)"


def _draw(found: "ProfileEstimate", limit: Any, model: Any, time: float, title: str) -> Any:
    """The estimate with its limit: a line for the model of uniform prompts, points without one."""
    import matplotlib.pyplot as plt

    from jaxkinetic import plotting

    figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
    plotting.plot_estimate(found, ax)
    if limit is not None and model is not None:
        plotting.plot_profile_line(model, time, found.vocab_size, ax)
    elif limit is not None:
        ax.plot(found.sources, limit, "x", color=plotting.COLOURS[1], label=r"limit, $S_t(\sigma_0)$")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    ax.set_title(title, fontsize=10)
    return figure


def _table(found: "ProfileEstimate", why_no_control: str | None) -> str:
    """What the particles say."""
    import numpy as np

    error = found.step_error
    left = f"with an error of {error:.1e} in one prompt's values" if error else "and twice as many change no value"
    lines = [
        f"estimator   {found.estimator}{', control variate' if found.control_variate else ''}, {found.accuracy} "
        f"accuracy, {found.n_prompts} prompts of {found.n_tokens} tokens",
        f"S_N         {found.values.min():.4g} to {found.values.max():.4g}, lowest at sigma_0 = "
        f"{found.sources[found.values.argmin()]:.4g}",
        f"error       {np.median(found.standard_error):.2g} (median over {found.sources.size} sources)",
        f"steps       {found.n_steps}, {left}",
    ]
    if why_no_control is not None and not found.control_variate:
        lines.insert(1, f"control     none: {why_no_control}")
    return "\n".join(lines)


def _title(settings: dict[str, Any], law: str, time: float, found: "ProfileEstimate") -> str:
    """Parameters, law and estimator, above the figure."""
    control = ", control variate" if found.control_variate else ""
    return (
        rf"$\beta$ = {settings['beta']:g}, $\lambda$ = {settings['lam']:g}, t = {time:g}, M = {found.vocab_size}, "
        f"{law} prompts\n{found.accuracy} accuracy, {found.estimator}{control}"
    )


def _limit(model: Any, prompts: Any, time: float, vocab_size: int, sources: Any) -> tuple[Any, str | None]:
    """S_t at the sources, or the reason why it could not be computed."""
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
