"""Prompt laws from a name, or from a table of numbers such as a TOML file holds.

    [law]                        # either waves, for a density, or probabilities, for codewords
    waves = [{ n = 1, cos = [0.6], turn = 2 }, { n = 2, sin = [0, 0.2] }]

Lists of amplitudes and probabilities are coefficients of 1, sigma, sigma^2, ...
JAX is imported inside functions, so that the command line's help appears at once.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxkinetic.model import PromptLaw

_MOST_WAVES = 4096

LAWS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "smooth": {"waves": [{"n": 1, "cos": [0.6], "turn": 2}, {"n": 2, "sin": [0, 0.2]}]},
    "codewords": {"probabilities": [[0.4, -0.2], [0.3], [0.2, -0.1], [0.1, 0.3]]},
}


def build_law(law: Any) -> "PromptLaw":
    """Build a prompt law from its name or its table.

    ``waves`` give a density: each adds to f_o = 1, with polynomials c (``cos``) and s (``sin``) and a turning rate
    r (``turn``),

        c(sigma) cos(n theta - r sigma) + s(sigma) sin(n theta - r sigma).

    ``probabilities`` give codewords: row m holds the coefficients of p_m(sigma), the probability of the codeword at
    angle 2 pi m / M. An empty table is the uniform law.

    Args:
        law: "uniform", "smooth" or "codewords", or a table with ``waves`` or ``probabilities``.

    Raises:
        ValueError: on an unknown name or key, a value of the wrong kind, and as `DensityPrompts` and
            `CodewordPrompts` on a density or probabilities that are not valid.
    """
    from jaxkinetic.model import CodewordPrompts, UniformPrompts
    from jaxkinetic.model.tables import Polynomials

    if isinstance(law, str):
        if law not in LAWS:
            raise ValueError(f"Argument `law` must be one of {', '.join(LAWS)} or a table, but is {law!r}.")
        law = LAWS[law]
    if not isinstance(law, Mapping):
        raise ValueError(f"Argument `law` must be one of {', '.join(LAWS)} or a table, but is {law!r}.")
    check_keys(law, ("waves", "probabilities"), "law")
    if len(law) > 1:
        raise ValueError("Argument `law` must have either `waves` or `probabilities`, but has both.")
    if "probabilities" in law:
        return CodewordPrompts(Polynomials(_padded(_rows(law["probabilities"], "probabilities"))))
    return _density(law["waves"]) if "waves" in law else UniformPrompts()


def _density(waves: Any) -> "PromptLaw":
    from jaxkinetic.model import DensityPrompts
    from jaxkinetic.model.tables import Polynomials, Waves

    if not isinstance(waves, Sequence) or isinstance(waves, str) or not waves:
        raise ValueError(f"Argument `waves` must be a list of tables, but is {waves!r}.")
    for wave in waves:
        if not isinstance(wave, Mapping):
            raise ValueError(f"Argument `waves` must be a list of tables, but holds {wave!r}.")
        check_keys(wave, ("n", "cos", "sin", "turn"), "waves")
        n = wave.get("n")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"Argument `n` of a wave must be a positive integer, but is {n!r}.")
        if n > _MOST_WAVES:
            raise ValueError(f"Argument `n` of a wave must be at most {_MOST_WAVES}, but is {n}.")
    turn = [number(wave.get("turn", 0), "turn") for wave in waves]
    cos, sin = (
        Polynomials(_padded([numbers(wave.get(name, [0]), name) for wave in waves])) for name in ("cos", "sin")
    )
    return DensityPrompts(Waves(cos, sin, turn, tuple(wave["n"] for wave in waves)))


def _padded(rows: list[list[float]]) -> list[list[float]]:
    """Extend every row of coefficients with zeros to the highest degree among them."""
    degree = max(len(row) for row in rows)
    return [row + [0.0] * (degree - len(row)) for row in rows]


def _rows(value: Any, key: str) -> list[list[float]]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"Argument `{key}` must be a list of lists of numbers, but is {value!r}.")
    return [numbers(row, key) for row in value]


def numbers(value: Any, key: str) -> list[float]:
    """Convert a list of numbers to floats; raise with the name of the key for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"Argument `{key}` must be a list of numbers, but is {value!r}.")
    return [number(x, key) for x in value]


def number(value: Any, key: str) -> float:
    """Convert a number to a float; raise with the name of the key for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"Argument `{key}` must be made of numbers, but holds {value!r}.")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(
            f"Argument `{key}` must be finite, but holds an integer of {value.bit_length()} bits."  # pyright: ignore
        ) from error


def read_toml(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """Read a TOML file, in UTF-8 whatever the locale.

    Args:
        path: the file.
        known: keys that it may hold.

    Raises:
        ValueError: if the file cannot be read, is not TOML, or holds another key.
    """
    from jaxkinetic._types import check_path

    check_path("path", path)
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    check_keys(table, known, str(path))
    return table


def check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise if a key is unknown, with the nearest known one."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.0)[0]
            names = ", ".join(f"`{name}`" for name in known)
            raise ValueError(f"Key `{key}` of {where} is unknown; the nearest is `{near}`, of {names}.")
