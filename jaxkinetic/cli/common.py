"""Options that commands share, and the configuration of JAX.

JAX is imported inside functions, so that help appears at once.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import tyro

Time = Annotated[float, tyro.conf.arg(help="Depth t of the last layer.")]
VocabSize = Annotated[int, tyro.conf.arg(help="Vocabulary size M of the decoder.")]
Beta = Annotated[float, tyro.conf.arg(help="Sharpness of attention.")]
LAM_HELP = "Positional bias: positive favours recent tokens, negative early ones."
LAM_ALIASES = ("--lambda",)
Lam = Annotated[float, tyro.conf.arg(help=LAM_HELP, aliases=LAM_ALIASES)]


def option(kind: str, help: str, default: str = "", aliases: tuple[str, ...] = ()) -> Any:
    """A flag whose value is None where it is not given; ``default`` says in words what happens then."""
    hint = f"(default: {default})" if default else ""
    return tyro.conf.arg(metavar=kind, help=help, help_behavior_hint=hint, aliases=aliases)


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
    """One line for a solver that failed, or for a missing device; None for a fault of the program."""
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


def bar(items: list[Any], name: str) -> Iterable[Any]:
    """Show progress through several items on a terminal."""
    from tqdm import tqdm

    return tqdm(items, desc=name, disable=None if len(items) > 1 else True)


def pick(source: Any, *names: str) -> dict[str, Any]:
    """Attributes by name, for a record."""
    return {name: getattr(source, name) for name in names}
