"""Settings of `jaxkinetic limit` from a TOML file.

    beta = 1.0
    lam = 1.0
    times = [0, 0.5, 1]
    sources = [0.1, 0.3, 0.7]
    observable_mode = 1

    [law]                        # see `jaxkinetic.law_table`
    waves = [{ n = 1, cos = [0.6], turn = 2 }, { n = 2, sin = [0, 0.2] }]

Every key may be left out.
"""

import tomllib
from pathlib import Path
from typing import Any

from jaxkinetic.law_table import LAWS, check_keys, number, numbers

_KEYS = ("beta", "lam", "times", "sources", "observable_mode", "law", "tolerance")


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a TOML file; ``law`` is a name or a table.

    Raises:
        ValueError: on text that is not TOML, unknown keys, and values of another kind than the key's.
    """
    try:
        settings = tomllib.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    check_keys(settings, _KEYS, str(path))
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
    """The law of a TOML file that may say nothing else: the rest is for flags.

    Raises:
        ValueError: as `read_settings` does, and on other keys.
    """
    settings = read_settings(path)
    others = sorted(set(settings) - {"law"})
    if others:
        raise ValueError(f"{path} may give the law only, but also gives {', '.join(others)}: use flags.")
    law = settings.get("law", {})
    return LAWS[law] if isinstance(law, str) and law in LAWS else law
