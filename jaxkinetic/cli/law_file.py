"""Settings that `jaxkinetic limit` and `estimate` read from a TOML file; flags override them.

`jaxkinetic limit --help` shows such files; every key may be left out, and `jaxkinetic.law_table` describes [law].
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from jaxkinetic.cli.common import LAM_ALIASES, LAM_HELP, option
from jaxkinetic.law_table import LAWS, number, numbers, read_toml

_KEYS = ("beta", "lam", "times", "sources", "observable_mode", "law", "tolerance")


def law_option(default: str) -> Any:
    """Flag for a law by name."""
    return option(f"{{{','.join(LAWS)}}}", "Prompt law by name; any other by --config.", default)


LawName = Literal["uniform", "smooth", "codewords"]
Beta = Annotated[float | None, option("FLOAT", "Sharpness of attention.", "1.0")]
Lam = Annotated[float | None, option("FLOAT", LAM_HELP, "1.0", LAM_ALIASES)]
ConfigFile = Annotated[Path | None, option("FILE", "TOML file with the law, and values for flags not given.")]


def settle(given: dict[str, Any], path: Path | None, defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings named in ``defaults``: from a flag, else from a file, else the default.

    Raises:
        ValueError: as `read_settings`.
    """
    found = defaults | ({} if path is None else read_settings(path))
    return found | {name: given[name] for name in defaults if given.get(name) is not None}


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings in a TOML file; ``law`` is a name or a table.

    Raises:
        ValueError: as `read_toml`, and on a value of the wrong kind.
    """
    settings = read_toml(path, _KEYS)
    for key in ("beta", "lam", "tolerance"):
        if key in settings:
            settings[key] = number(settings[key], key)
    for key in ("times", "sources"):
        if key in settings:
            settings[key] = numbers(settings[key], key)
    mode = settings.get("observable_mode", 1)
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise ValueError(f"Argument `observable_mode` must be a non-zero integer, but is {mode!r}.")
    return settings


def law_of(path: Path) -> Any:
    """The law in a TOML file that holds nothing else.

    Raises:
        ValueError: as `read_settings` does, and on other keys.
    """
    settings = read_settings(path)
    others = sorted(set(settings) - {"law"})
    if others:
        raise ValueError(f"{path} must hold a law only, but also holds {', '.join(others)}: use flags for these.")
    return table_of(settings.get("law", {}))


def table_of(law: Any) -> Any:
    """The table that a name stands for; anything else unchanged, for `build_law` to judge."""
    return LAWS[law] if isinstance(law, str) and law in LAWS else law
