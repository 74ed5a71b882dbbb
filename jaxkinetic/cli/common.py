"""What the commands share: their options, the configuration of JAX, and how results are written.

JAX is imported inside functions, so that help appears at once.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from jaxkinetic import RetrievalCurve

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
LAM_HELP = "Positional bias: positive favours recent tokens, negative early ones."
LAM_ALIASES = ("--lambda",)
Lam = Annotated[float, tyro.conf.arg(help=LAM_HELP, aliases=LAM_ALIASES)]


def configure() -> None:
    """Double precision, and compiled code kept between runs (in JAX_COMPILATION_CACHE_DIR if that is set)."""
    import jax
    import matplotlib

    jax.config.update("jax_enable_x64", True)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxkinetic"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    matplotlib.use("Agg")


def explain(error: Exception) -> str | None:
    """One line for a solver that failed, or for a missing device; None for what is a fault of the program."""
    import jax

    from jaxkinetic.integrate import reason

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as missing:
        wanted = os.environ.get("JAX_PLATFORMS")
        asked = f"JAX_PLATFORMS is {wanted!r}. " if wanted else ""
        why = f"{reason(missing)} " if str(missing) else ""
        return f"There is no device: {asked}{why}Leave JAX_PLATFORMS out, or install jax for that device."
    return reason(error) if isinstance(error, RuntimeError) else None


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made or written, before anything is computed; nothing is made yet."""
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not writable" if nearest.is_dir() else "is not a folder"
        raise ValueError(f"Argument `out` must be a folder that can be written, but is {path}: {nearest} {why}.")


def check_file(name: str, path: Path, out: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed; ``out`` counts as made."""
    folder = path.parent
    writable = folder.is_dir() and os.access(path if path.exists() else folder, os.W_OK)
    writable = writable or folder.absolute() == out.absolute()
    if path.is_dir() or not writable:
        raise ValueError(f"Argument `{name}` must be a file that can be written, but is {path}.")


def check_json(json_file: str | None, out: Path = Path()) -> None:
    """Refuse a JSON file that cannot be written, before anything is computed."""
    if json_file not in (None, "-"):
        check_file("json", Path(json_file), out)


def check_outputs(out: Path, json_file: str | None) -> None:
    """Refuse a folder or a JSON file that cannot be written, before anything is computed."""
    check_folder(out)
    check_json(json_file, out)


def say(text: str, json_file: str | None) -> None:
    """Print for people."""
    # Standard output belongs to the JSON where that was asked for.
    print(text, file=sys.stderr if json_file == "-" else sys.stdout)


def save(figure: Any, path: Path, json_file: str | None) -> None:
    """Write a figure and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    say(f"wrote {path}", json_file)


def write_json(record: Any, json_file: str | None) -> None:
    """Write the numbers for machines, to a file or to standard output."""
    if json_file == "-":
        print(dump(record))
    elif json_file is not None:
        Path(json_file).write_text(dump(record) + "\n")


def dump(record: Any) -> str:
    """JSON of a record; what is not finite becomes null."""

    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(plain(record), indent=2)


def title(curves: "list[RetrievalCurve]") -> str:
    """What curves that are fitted together are of."""
    lengths = ", ".join(str(c.n_items) for c in curves if c.n_items)
    name = ", ".join(text for text in (curves[0].name or "curve", curves[0].task) if text)
    return f"{name}: {sum(c.sources.size for c in curves)} points" + (f", {lengths} items" if lengths else "")


def p_text(p_value: float) -> str:
    """A p-value, or that it is not known."""
    return "p unknown" if math.isnan(p_value) else f"p = {p_value:.3g}"


def curve_record(curve: "RetrievalCurve") -> dict[str, Any]:
    """A measured curve for machines."""
    return {
        "name": curve.name, "task": curve.task, "n_items": curve.n_items, "origin": curve.origin,
        "sources": curve.sources.tolist(), "accuracy": curve.accuracy.tolist(),
        "standard_error": curve.standard_error.tolist(),
    }  # fmt: skip
