"""`jaxkinetic sweep`: run, status, plot and extend."""

import contextlib
import itertools
import json as json_module
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxkinetic.cli.command import JsonFile, Results, check_json, command
from jaxkinetic.cli.common import configure
from jaxkinetic.cli.distributed import Hosts, SeveralHosts, check_hosts, start
from jaxkinetic.cli.output import emit

if TYPE_CHECKING:
    import xarray

    from jaxkinetic import SweepConfig, SweepPlan

Store = Annotated[
    str,
    tyro.conf.arg(metavar="DIR", help="The store: a folder, or a URL as file:///folder or s3://bucket/prefix."),
]
_STORE = "jaxkinetic-sweep"
Memory = Annotated[float, tyro.conf.arg(metavar="GIB", help="Memory budget on each device, in GiB.")]
DryRun = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Estimate the work, and write nothing.")]
_MANY = 40

sweep = tyro.extras.SubcommandApp()


@sweep.command
def run(
    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG", help="TOML file of the sweep.")],
    store: Store = _STORE,
    dry_run: DryRun = False,
    memory: Memory = 1.0,
    hosts: SeveralHosts = Hosts(),  # noqa: B008
    json: JsonFile = None,
) -> None:
    """Compute a grid of estimates into a store, or continue after an interruption.

    Every key of the TOML file is optional. The first seven take a value or a list; the grid is their product:

        beta = [0.5, 1, 2]
        lam = 1.0
        time = 1.0
        n_tokens = [64, 128]
        vocab_size = 8
        law = "uniform"                 # or smooth, codewords, or the NAME of a table [laws.NAME]
        estimator = "auto"
        sources = [0.1, 0.3, 0.5]       # or "all"
        accuracy = "soft"
        control_variate = true
        joint = false                   # keep the covariance between sources
        seed = 0
        n_steps = 4                     # constant steps to depth t; by default chosen on the first prompts
        n_prompts = 1024                # prompts at each point, and/or
        standard_error = 0.01           # the error to reach at the worst source,
        max_prompts = 65536             # with at most so many prompts
        chunk = 1024                    # prompts per commit

        [laws.mine]                     # as for `jaxkinetic limit`
        waves = [{ n = 1, cos = [0.6], turn = 2 }]
    """
    check_hosts(hosts)
    _check_memory(memory)
    check_json(json)
    configure()
    from jaxkinetic import plan_sweep, read_config, run_sweep

    # Processes must join before anything is computed, and reading a configuration builds its laws.
    writes = start(hosts)
    settings = read_config(config)
    if dry_run:
        plan = plan_sweep(settings, store, memory=memory * 2**30)
        _tell(plan, writes, json)
        return
    with _interruptible():
        run_sweep(settings, store, memory=memory * 2**30, progress=writes)
    if writes:
        _report(store, json)


@sweep.command
def extend(
    store: Store = _STORE,
    n_prompts: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Prompts at each point, no fewer than before.")
    ] = None,
    standard_error: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help="Error to reach at the worst source, no larger than before."),
    ] = None,
    max_prompts: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Most prompts to spend on that error.")
    ] = None,
    chunk: Annotated[int | None, tyro.conf.arg(metavar="INT", help="Prompts from one commit to the next.")] = None,
    dry_run: DryRun = False,
    memory: Memory = 1.0,
    hosts: SeveralHosts = Hosts(),  # noqa: B008
    json: JsonFile = None,
) -> None:
    """Add prompts to a sweep or lower its target error; without either, continue it."""
    check_hosts(hosts)
    _check_memory(memory)
    check_json(json)
    configure()
    from jaxkinetic import extend_sweep, plan_extension

    writes = start(hosts)
    if dry_run:
        plan = plan_extension(
            store, n_prompts=n_prompts, standard_error=standard_error, max_prompts=max_prompts,
            memory=memory * 2**30,
        )  # fmt: skip
        _tell(plan, writes, json)
        return
    with _interruptible():
        extend_sweep(
            store, n_prompts=n_prompts, standard_error=standard_error, max_prompts=max_prompts, chunk=chunk,
            memory=memory * 2**30, progress=writes,
        )  # fmt: skip
    if writes:
        _report(store, json)


@sweep.command
def status(store: Store = _STORE, json: JsonFile = None) -> None:
    """Show the progress and results of a sweep, even while it runs."""
    check_json(json)
    configure()
    _report(store, json)


@sweep.command
@command("sweep.png")
def plot(
    store: Store = _STORE,
    select: Annotated[
        tuple[tuple[str, ...], ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(metavar="NAME=VALUE ...", help="Draw these points only, as in lam=1; may be repeated."),
    ] = (),
) -> Results:
    """Draw profiles over the grid with 95 % error bars, and the limit where it has a closed form (sweep.png)."""
    from jaxkinetic import open_sweep, plotting

    found = open_sweep(store)
    for choice in itertools.chain.from_iterable(select):
        found = _select(found, choice)
    return Results("", _record(store, found), {"sweep.png": lambda: plotting.plot_sweep(found)})


def _tell(plan: "SweepPlan", writes: bool, json: str | None) -> None:
    """Print the plan of a sweep in the process that prints."""
    if writes:
        emit(str(plan), vars(plan), json)


def _check_memory(memory: float) -> None:
    if not 0 < memory < float("inf"):
        raise ValueError(f"Argument `memory` must be positive and finite, but is {memory}.")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Say what an interruption leaves; the command line prints that and exits with code 130."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("Finished chunks are safe; the same command goes on from there.") from stop


def _select(found: "xarray.Dataset", choice: str) -> "xarray.Dataset":
    """Select one value along one dimension."""
    import numpy as np

    from jaxkinetic.law_table import check_keys
    from jaxkinetic.sweep.config import DIMS

    name, is_pair, text = choice.partition("=")
    if not is_pair:
        raise ValueError(f"Argument `select` must be made of NAME=VALUE, but holds {choice}.")
    check_keys({name: text}, DIMS, "`select`")
    labels = found[name].values
    if labels.dtype.kind == "U":
        hits = labels == text
    else:
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(f"Argument `select` must give a number for {name}, but gives {text}.") from error
        hits = np.isclose(labels, value, rtol=1e-9, atol=0)
    if not hits.any():
        values = ", ".join(str(v) for v in labels.tolist())
        raise ValueError(f"Argument `select` must name a value of the sweep, {values}, but is {choice}.")
    return found.isel({name: hits.nonzero()[0]})


def _report(store: str, json: str | None) -> None:
    from jaxkinetic import open_sweep

    record = _record(store, open_sweep(store))
    emit(_table(record), record, json)


def _record(store: str, found: "xarray.Dataset") -> dict[str, Any]:
    """The manifest and every point, for JSON."""
    import numpy as np

    from jaxkinetic.particles.ensemble import Moments
    from jaxkinetic.sweep.config import DIMS

    config = _config(found)
    dims = list(DIMS)
    points = []
    for index in np.ndindex(*(found.sizes[name] for name in dims)):
        at = found.isel(dict(zip(dims, index, strict=True)))
        used = ~np.isnan(at["sigma_0"].values)
        count = int(at["count"])
        m2 = at["m2"].values
        m2 = m2[np.ix_(used, used)] if config.joint else m2[used]
        moments = Moments(count, at["mean"].values[used], m2) if count else None
        joint = {"covariance": at["covariance"].values[np.ix_(used, used)].tolist()} if config.joint else {}
        points.append(
            {name: at[name].item() for name in dims}
            | {
                "n_prompts": count,
                "done": config.is_done(moments),
                "n_steps": int(at["n_steps"]),
                "step_error": float(at["step_error"]),
                "sources": at["sigma_0"].values[used].tolist(),
                "values": at["values"].values[used].tolist(),
                "standard_error": at["standard_error"].values[used].tolist(),
            }
            | joint
        )
    manifest = {name: value for name, value in found.attrs.items() if name not in ("configuration", "title")}
    for name in ("versions", "estimators", "model", "laws", "sessions"):
        manifest[name] = json_module.loads(manifest[name])
    return {"store": store, "configuration": config.record(), "manifest": manifest, "points": points}


def _config(found: "xarray.Dataset") -> "SweepConfig":
    from jaxkinetic import SweepConfig

    return SweepConfig(**json_module.loads(found.attrs["configuration"]))


def _table(record: dict[str, Any]) -> str:
    points, config, manifest = record["points"], record["configuration"], record["manifest"]
    versions = manifest["versions"]
    goal = f"{config['n_prompts']} prompts at each point"
    if config["standard_error"] is not None:
        goal += f", then to an error of {config['standard_error']:g} or {config['max_prompts']} prompts"
    lines = [
        f"store       {record['store']}, made {manifest['created']} by jaxkinetic {versions['jaxkinetic']}, "
        f"jax {versions['jax']} on {manifest['device']}",
        *_later_sessions(manifest["sessions"]),
        f"goal        {goal}",
        f"points      {sum(p['done'] for p in points)} of {len(points)} done, "
        f"{sum(p['n_prompts'] for p in points)} prompts in all",
    ]
    varied = [
        name for name in points[0] if name in config and isinstance(config[name], list) and len(config[name]) > 1
    ]
    varied = [name for name in varied if name != "sources"]
    lines.append("".join(f"{name:>12}" for name in varied) + f"{'prompts':>12}{'worst error':>14}{'steps':>8}")
    for point in points[:_MANY]:
        worst = f"{max(point['standard_error']):.2g}" if point["n_prompts"] else "-"
        row = "".join(
            f"{point[name] if isinstance(point[name], str) else format(point[name], 'g'):>12}" for name in varied
        )
        mark = "" if point["done"] else "  not done"
        if point["done"] and max(point["standard_error"]) > (config["standard_error"] or math.inf):
            mark += "  error not reached"
        if point["n_prompts"] and point["step_error"] > max(point["standard_error"]):
            mark += "  steps too long for this error: begin another sweep with more `n_steps`"
        lines.append(f"{row}{point['n_prompts']:>12}{worst:>14}{point['n_steps']:>8}{mark}")
    if len(points) > _MANY:
        lines.append(f"... and {len(points) - _MANY} more: --json has all")
    return "\n".join(lines)


def _later_sessions(sessions: list[dict[str, Any]]) -> list[str]:
    """One line on the last run that continued the sweep."""
    if len(sessions) < 2:
        return []
    last = sessions[-1]
    return [
        f"continued   {len(sessions) - 1} times, last {last['event']} {last['time']} by jaxkinetic "
        f"{last['versions']['jaxkinetic']}, jax {last['versions']['jax']} on {last['device']}"
    ]
