"""The command line: parses, calls, writes. The only place that touches global JAX configuration.

JAX is imported inside the commands, so that help appears at once.
"""

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from jaxkinetic import CurveFit, UShape

app = tyro.extras.SubcommandApp()

OutFolder = Annotated[
    Path, tyro.conf.arg(name="out", metavar="DIR", help="Folder for figures and results; made if missing.")
]
JsonFile = Annotated[
    str | None,
    tyro.conf.arg(name="json", metavar="FILE", help="Also write the numbers as JSON; - for standard output."),
]
Time = Annotated[float, tyro.conf.arg(help="Depth t of the last layer.")]
VocabSize = Annotated[int, tyro.conf.arg(help="Vocabulary size M of the decoder.")]
Beta = Annotated[float, tyro.conf.arg(help="Sharpness of attention.")]
Lam = Annotated[float, tyro.conf.arg(help="Positional bias: positive favours recent tokens, negative early ones.")]


@app.command
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
    _folder(out)
    _configure()
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
    _say(table, json)
    out.mkdir(parents=True, exist_ok=True)
    (out / "fit.txt").write_text(table + "\n")
    figure = plotting.plot_fits(fits) if all else plotting.plot_fit(fits[0])
    record = {"fits": [_fit_record(f) for f in fits]}
    (out / "fit.json").write_text(_dump(record))
    _save(figure, out / "fit.png", json)
    _write_json(record, json)


@app.command
def profile(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    time: Time = 1.0,
    vocab_size: VocabSize = 8,
    n_sources: Annotated[int, tyro.conf.arg(help="Number of source positions in the JSON output.")] = 400,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Predict the retrieval profile S_t(sigma_0) of uniform prompts and say whether it is a U."""
    if n_sources < 1:
        raise ValueError(f"Argument `n_sources` must be at least 1, but is {n_sources}.")
    _folder(out)
    _configure()
    import numpy as np

    from jaxkinetic import ALiBi, CausalAttention, ExpCosine, plotting, retrieval_profile, u_shape

    model = CausalAttention(ExpCosine(beta), ALiBi(lam))
    shape = u_shape(model, time, vocab_size)
    sources = np.arange(1, n_sources + 1) / n_sources
    values = retrieval_profile(model, time, vocab_size, sources).values
    _say(_shape_table(shape), json)
    figure, ax = plotting.plt.subplots(figsize=(5.6, 4), layout="constrained")
    plotting.plot_profile(model, time, vocab_size, ax)
    ax.set_title(rf"$\beta$ = {beta:g}, $\lambda$ = {lam:g}, t = {time:g}, M = {vocab_size}", fontsize=11)
    _save(figure, out / "profile.png", json)
    parameters = {"beta": beta, "lam": lam, "time": time, "vocab_size": vocab_size}
    record = {**parameters, "u_shape": _shape_record(shape), "sources": sources.tolist(), "values": values.tolist()}
    _write_json(record, json)


@app.command
def simulate(
    beta: Beta = 1.0,
    lam: Lam = 1.0,
    n_tokens: Annotated[int, tyro.conf.arg(help="Number of tokens N.")] = 64,
    times: Annotated[tuple[float, ...], tyro.conf.arg(metavar="T ...", help="Saved depths.")] = (
        0.0,
        1.0,
        3.0,
        10.0,
    ),
    prompts: Annotated[
        Literal["clusters", "uniform"], tyro.conf.arg(help="Four clusters as in Figure 3, or uniform angles.")
    ] = "clusters",
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompt.")] = 0,
    progress: Annotated[bool, tyro.conf.arg(help="Show a progress bar.")] = False,
    out: OutFolder = Path("jaxkinetic-results"),
    json: JsonFile = None,
) -> None:
    """Move one prompt of N tokens through depth by (1.1) and draw it on the circle."""
    _folder(out)
    _configure()
    import jax

    import jaxkinetic as jk
    from jaxkinetic import plotting

    model = jk.CausalAttention(jk.ExpCosine(beta), jk.ALiBi(lam))
    theta0 = (_four_clusters() if prompts == "clusters" else jk.UniformPrompts()).sample(
        jax.random.key(seed), n_tokens
    )
    saved = sorted({0.0, *times})
    trajectory = jk.simulate(model, theta0, saved, jk.Solve(progress=progress))
    _say(str(trajectory), json)
    _save(plotting.plot_snapshots(trajectory), out / "simulate.png", json)
    parameters = {"beta": beta, "lam": lam, "n_tokens": n_tokens, "prompts": prompts, "seed": seed}
    _write_json({**parameters, "times": trajectory.ts.tolist(), "angles": trajectory.angles.tolist()}, json)


@app.command
def figures(
    out: OutFolder = Path("jaxkinetic-results"),
    seed: Annotated[int, tyro.conf.arg(help="Seed of the prompt of Figure 3.")] = 0,
) -> None:
    """Draw the paper's figures: 1 (measured), 2 (profiles at several depths), 3 (tokens on the circle)."""
    _folder(out)
    _configure()
    import jax

    import jaxkinetic as jk
    from jaxkinetic import plotting

    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    _save(plotting.plot_measured(), out / "figure1.png", None)
    _save(plotting.plot_profiles(model, (0.25, 0.5, 1.0, 1.5, 2.0, 2.4), vocab_size=8), out / "figure2.png", None)
    trajectory = jk.simulate(model, _four_clusters().sample(jax.random.key(seed), 64), [0.0, 1.0, 3.0, 10.0])
    _save(plotting.plot_snapshots(trajectory), out / "figure3.png", None)


def main() -> None:
    """Run the command line; errors in what the user gave are one line and exit code 2."""
    try:
        app.cli(
            prog="jaxkinetic", description="Causal self-attention as interacting particles: lost in the middle."
        )
    except (ValueError, OSError) as error:
        sys.exit(_fail(str(error)))


def _fail(message: str) -> int:
    print(f"jaxkinetic: error: {message}", file=sys.stderr)
    return 2


def _configure() -> None:
    """Double precision, and compiled code kept between runs (in JAX_COMPILATION_CACHE_DIR if that is set)."""
    import jax
    import matplotlib

    jax.config.update("jax_enable_x64", True)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxkinetic"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    matplotlib.use("Agg")


def _folder(path: Path) -> None:
    """Refuse a folder that cannot be made or written, before anything is computed; nothing is made yet."""
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not writable" if nearest.is_dir() else "is not a folder"
        raise ValueError(f"Argument `out` must be a folder that can be written, but is {path}: {nearest} {why}.")


def _four_clusters() -> Any:
    """Prompts of Figure 3: four stretches near four directions."""
    from jaxkinetic import ClusterPrompts

    return ClusterPrompts(centers=[0.5, 2.2, 3.6, 5.2], width=0.12)


def _say(text: str, json_file: str | None) -> None:
    # Standard output belongs to the JSON where that was asked for.
    print(text, file=sys.stderr if json_file == "-" else sys.stdout)


def _save(figure: Any, path: Path, json_file: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    _say(f"wrote {path}", json_file)


def _write_json(record: Any, json_file: str | None) -> None:
    if json_file == "-":
        print(_dump(record))
    elif json_file is not None:
        Path(json_file).write_text(_dump(record) + "\n")


def _dump(record: Any) -> str:
    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(plain(record), indent=2)


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


def _shape_record(shape: "UShape") -> dict[str, Any]:
    return {field.name: getattr(shape, field.name).item() for field in dataclasses.fields(shape)}


def _shape_table(shape: "UShape") -> str:
    s = _shape_record(shape)
    yes = {True: "yes", False: "no"}
    minimum = (
        f"minimum     S = {s['minimum']:.6g} at sigma_0 = {s['argmin']:.6g}, {s['depth']:.6g} below the end"
        if s["n_minima"]
        else "minimum     none in the interior"
    )
    return "\n".join(
        [
            f"U-shaped    {yes[s['is_u_shaped']]} ({s['n_minima']} interior minima)",
            minimum,
            f"primacy     {yes[s['has_primacy']]}",
            f"recency     {yes[s['has_recency']]} (exactly below t = {s['recency_threshold']:.6g})",
            f"theorem 1.3 {'holds' if s['theorem_holds'] else 'is silent'}: t sup a_n = {s['smallness']:.6g}, "
            f"bound {s['smallness_bound']:.6g}",
        ]
    )


if __name__ == "__main__":
    main()
