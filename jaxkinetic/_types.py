"""Array aliases, the glossary of axes, and the checks that every door uses.

Axes, by the letter that stands for them in shapes:

- ``prompt``: one sequence of tokens; ensembles put it first.
- ``token`` (N): position j = 1..N in reading order; token j sits at sigma = j / N.
- ``mode`` (K): Fourier index n = 1..K on the circle.
- ``node``: collocation point in sigma.
- ``time`` (T): saved values of the paper's depth t.
- ``source`` (S): position sigma_0 of the token to be retrieved.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, PRNGKeyArray, Shaped

__all__ = [
    "Angles",
    "Modes",
    "PRNGKeyArray",
    "Scalar",
    "as_float",
    "as_floats",
    "as_numbers",
    "as_positions",
    "check",
    "check_at_least",
    "check_choice",
    "check_finite",
    "check_flags",
    "check_function",
    "check_increasing",
    "check_key",
    "check_path",
    "check_positions",
    "check_positive",
    "check_positive_number",
    "check_scalar",
    "check_seed",
    "check_texts",
    "check_times",
    "check_type",
    "check_within",
    "finite_array",
    "finite_scalar",
    "is_concrete",
    "positive_array",
    "positive_scalar",
    "require_double",
    "round_up",
    "trusted",
]

Scalar = Float[Array, ""]
Angles = Float[Array, " token"]
Modes = Complex[Array, " mode"]


def as_float(x: Any) -> Shaped[Array, ""]:
    """Convert a number to a floating-point array, so that it can be traced and differentiated."""
    return as_floats("x", x)


def as_floats(name: str, x: Any) -> Shaped[Array, "..."]:
    """Convert to a floating-point array of JAX's default precision, keeping one that already is; refuse complex."""
    if not hasattr(x, "dtype"):
        try:
            return jnp.asarray(x, dtype=jnp.result_type(float))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Argument `{name}` must be a real number or several, but is {x!r}.") from error
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"Argument `{name}` must be real, but has dtype {x.dtype}.")
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def as_numbers(name: str, value: Any) -> np.ndarray:
    """Convert what is known now to an array in double precision; refuse what is no number."""
    try:
        if np.asarray(value).dtype.kind in "SUc":
            raise TypeError
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"Argument `{name}` must be a real number or several, but is {value!r}.") from None


def as_positions(name: str, value: Any) -> np.ndarray:
    """Convert to positions sigma that are known now, (S,) in (0, 1]; refuse what is none."""
    at = as_numbers(name, value)
    if at.ndim != 1 or not at.size or not np.all((at > 0) & (at <= 1)):
        raise ValueError(f"Argument `{name}` must lie in (0, 1], but is {at}.")
    return at


def is_concrete(*values: Any) -> bool:
    """Tell whether all values are numbers that can be looked at now, rather than tracers."""
    return not any(isinstance(v, Tracer) for v in values)


_TRACED_CHECKS = ContextVar("traced checks", default=True)


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """Leave out the checks of traced values, for inner loops whose entry point has made them already.

    A check of a traced value calls back to the host when it fails, which no hot loop should wait for.
    """
    token = _TRACED_CHECKS.set(False)
    try:
        yield
    finally:
        _TRACED_CHECKS.reset(token)


def check(name: str, value: Any, requirement: str, holds: Callable[[Any], Any]) -> Any:
    """Return ``value`` if it satisfies ``holds`` everywhere; else raise an error that names the argument.

    A value that is known now is refused at once. A traced value carries the same check with it, and the program
    that uses it fails when it runs.

    Args:
        name: name of the argument.
        value: array or number, or numbers in a list.
        requirement: what it must do, as in "be finite".
        holds: condition, elementwise, on a NumPy or a JAX array.

    Raises:
        ValueError: if the value is known and the condition fails.
        RuntimeError: at run time, if it is traced and the condition fails.
    """
    traced = not is_concrete(value)
    known = value if traced else np.asarray(value)
    if jnp.issubdtype(known.dtype, jnp.complexfloating):
        raise ValueError(f"Argument `{name}` must be real, but has dtype {known.dtype}.")
    if known.dtype.kind in "OSU":
        raise ValueError(f"Argument `{name}` must {requirement}, but is {value!r}.")
    if traced:
        if not _TRACED_CHECKS.get():
            return value
        return eqx.error_if(value, ~jnp.all(holds(value)), f"Argument `{name}` must {requirement}.")
    if not np.all(holds(known)):
        raise ValueError(f"Argument `{name}` must {requirement}, but is {known if known.size <= 6 else '...'}.")
    return value


def check_finite(name: str, value: Any) -> Any:
    """Return a value without NaN or infinity."""
    return check(name, value, "be finite", lambda x: abs(x) < math.inf)


def check_positive(name: str, value: Any) -> Any:
    """Return a value that is finite and above zero."""
    return check(name, value, "be positive and finite", lambda x: (x > 0) & (x < math.inf))


def check_within(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is not one known number between two others."""
    check_scalar(name, value)
    check(name, value, f"lie in ({low:g}, {high:g})", lambda x: (x > low) & (x < high))


def check_positive_number(name: str, value: Any) -> Any:
    """Return one number that is finite and above zero."""
    check_scalar(name, value)
    return check_positive(name, value)


def check_flags(**given: Any) -> None:
    """Refuse what is neither true nor false."""
    for name, value in given.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"Argument `{name}` must be true or false, but is {value!r}.")


def check_texts(**given: Any) -> None:
    """Refuse what is no string."""
    for name, value in given.items():
        check_type(name, value, str)


def check_path(name: str, value: Any) -> None:
    """Refuse what names no file."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError(f"Argument `{name}` must be a path, but is {value!r}.")


def check_function(name: str, value: Any) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise ValueError(f"Argument `{name}` must be a function, but is {type(value).__name__}.")


def check_key(name: str, value: Any) -> None:
    """Refuse what is no random key."""
    try:
        jax.random.key_data(value)
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"Argument `{name}` must be a random key of JAX, but is {value!r}.") from None


def check_type(name: str, value: Any, kind: type) -> None:
    """Refuse what is not an instance of a class."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"Argument `{name}` must be {article} {kind.__name__}, but is {type(value).__name__}.")


def check_scalar(name: str, value: Any) -> None:
    """Refuse an array where one number is meant."""
    if np.ndim(value):
        raise ValueError(
            f"Argument `{name}` must be a scalar, but has shape {np.shape(value)}. For many values use `jax.vmap`."
        )


def check_times(name: str, value: Any) -> Any:
    """Return times that are finite and not negative."""
    return check(name, value, "be non-negative and finite", lambda x: (x >= 0) & (x < math.inf))


def check_positions(name: str, value: Any) -> Any:
    """Return positions sigma that lie in (0, 1]."""
    return check(name, value, "lie in (0, 1]", lambda x: (x > 0) & (x <= 1))


def check_level(level: float) -> None:
    """Refuse what is not a probability within (0, 1)."""
    check_within("level", level, 0, 1)


def check_at_least(name: str, value: int, smallest: int) -> None:
    """Refuse a size that is not an integer of at least ``smallest``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"Argument `{name}` must be an integer, but is {value!r}.")
    if value < smallest:
        raise ValueError(f"Argument `{name}` must be at least {smallest}, but is {value}.")


def check_seed(seed: Any) -> None:
    """Refuse what no key can be made of: keys take integers of 63 bits."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise ValueError(f"Argument `seed` must be an integer in [0, 2^63), but is {seed!r}.")


def require_double(what: str) -> None:
    """Refuse single precision for ``what``, with the line that changes it."""
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            f"{what} need double precision: call `jax.config.update('jax_enable_x64', True)` first (the command "
            "line does)."
        )


def check_increasing(name: str, value: Any) -> Any:
    """Return a one-dimensional array whose values increase strictly."""
    if np.ndim(value) != 1 or np.size(value) == 0:
        raise ValueError(
            f"Argument `{name}` must be a non-empty one-dimensional array, but has shape {np.shape(value)}."
        )
    return check(name, value, "increase strictly", lambda x: x[1:] > x[:-1])


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse what is not one of the names that there are."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"Argument `{name}` must be one of {', '.join(known)}, but is {value!r}.")


def finite_array(name: str) -> Callable[[Any], Shaped[Array, "..."]]:
    """Converter for a field that holds finite numbers."""
    return lambda value: check_finite(name, as_floats(name, value))


def positive_array(name: str) -> Callable[[Any], Shaped[Array, "..."]]:
    """Converter for a field that holds positive numbers."""
    return lambda value: check_positive(name, as_floats(name, value))


def finite_scalar(name: str) -> Callable[[Any], Scalar]:
    """Converter for a field that holds one finite number."""
    return _scalar(name, check_finite)


def positive_scalar(name: str) -> Callable[[Any], Scalar]:
    """Converter for a field that holds one positive number."""
    return _scalar(name, check_positive)


def _scalar(name: str, checked: Callable[[str, Any], Any]) -> Callable[[Any], Scalar]:
    def convert(value: Any) -> Scalar:
        check_scalar(name, value)
        return as_floats(name, checked(name, value))

    return convert


def round_up(n: float, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is at least ``n``."""
    return math.ceil(n / multiple) * multiple
