"""How finely the limit is resolved, how that is checked, and how "auto" finds it.

Spectral representations tell themselves whether they resolve: the last coefficients of a resolved solution
are at rounding level. A solution whose tails exceed the tolerance is an error, never a result.
"""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic._types import (
    Scalar,
    check_at_least,
    check_positive,
    check_scalar,
    check_type,
    is_concrete,
    round_up,
)

_LARGEST = {"nodes": 257, "source_nodes": 129, "modes": 1024}
_WHAT = {
    "nodes": "polynomials in sigma",
    "source_nodes": "polynomials from the source on",
    "modes": "Fourier modes in theta",
}
_S = TypeVar("_S")


class Resolution(eqx.Module):
    """Sizes of a limit solver and the tolerance to which it must resolve.

    Attributes:
        nodes: Chebyshev nodes in sigma on [0, 1].
        source_nodes: Chebyshev nodes from each source on, see `SourceNodes`, for correlations.
        modes: Fourier modes n = 1..K in theta. Characteristics of smooth laws use 4 K labels.
        tolerance: largest tail of the expansions, relative to the solution's scale; 1e-11 in double
            and 1e-4 in single precision if None.
    """

    nodes: int = eqx.field(default=33, static=True)
    source_nodes: int = eqx.field(default=33, static=True)
    modes: int = eqx.field(default=64, static=True)
    tolerance: float | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        for name, smallest in (("nodes", 3), ("source_nodes", 3), ("modes", 2)):
            check_at_least(name, getattr(self, name), smallest)
        if self.tolerance is not None and self.tolerance != np.inf:
            check_scalar("tolerance", self.tolerance)
            check_positive("tolerance", self.tolerance)

    def finer(self, names: list[str]) -> "Resolution":
        """Return the resolution with the named sizes raised by half, up to the largest that "auto" tries."""
        sizes = {name: getattr(self, name) for name in _LARGEST}
        for name in names:
            raised = round_up(1.5 * sizes[name], 8) + (name != "modes")
            sizes[name] = max(min(raised, _LARGEST[name]), sizes[name])
        return Resolution(**sizes, tolerance=self.tolerance)


class Tails(eqx.Module):
    """What each expansion leaves unresolved, relative to the solution's scale.

    Attributes:
        nodes: in sigma.
        source_nodes: from the source on; zero where there is none.
        modes: in theta; zero where the representation is exact.
    """

    nodes: Scalar
    source_nodes: Scalar
    modes: Scalar


def settle(solve: Callable[[Resolution], tuple[_S, Tails]], resolution: Resolution | None, first: Resolution) -> _S:
    """Solve at the given resolution, or at one found by raising what falls short; fail if unresolved.

    Args:
        solve: resolution -> solution and tails.
        resolution: None finds one, starting from ``first``, provided the values are concrete. Under a
            transformation sizes cannot depend on values, and ``first`` is used as it is.
        first: where to start.
    """
    if resolution is not None:
        check_type("resolution", resolution, Resolution)
    if resolution is not None and first.tolerance is not None:
        raise ValueError("Argument `tolerance` must be None where a `Resolution` is given, which has its own.")
    chosen, before = first if resolution is None else resolution, {}
    while True:
        solution, tails = solve(chosen)
        tolerance = _tolerance(chosen, tails)
        if not is_concrete(*jax.tree.leaves(tails)):
            for name in _LARGEST:
                solution = _fail_at_run_time(solution, getattr(tails, name), tolerance, name, chosen)
            return solution
        short = [name for name in _LARGEST if not np.all(np.asarray(getattr(tails, name)) <= tolerance)]
        if not short:
            return solution
        finer = chosen.finer(short)
        stuck = [name for name in short if getattr(finer, name) == getattr(chosen, name)]
        left = {name: float(jnp.max(getattr(tails, name))) for name in short}
        # Small tails that no longer fall are rounding, of which finer sizes only make more.
        rounding = float(jnp.finfo(tails.nodes.dtype).eps) ** 0.5
        if all(left[name] < rounding and left[name] > before.get(name, np.inf) / 2 for name in short):
            stuck = short
        before = left
        if resolution is not None or stuck:
            name = (stuck or short)[0]
            raise RuntimeError(_message(name, chosen, tolerance, float(jnp.max(getattr(tails, name)))))
        chosen = finer


def _tolerance(resolution: Resolution, tails: Tails) -> float:
    if resolution.tolerance is not None:
        return resolution.tolerance
    return 1e-11 if jnp.finfo(tails.nodes.dtype).bits >= 64 else 1e-4  # rounding alone leaves 3e-5 of 129 nodes


def _fail_at_run_time(solution, tail, tolerance, name, resolution):
    arrays, rest = eqx.partition(solution, eqx.is_array)
    arrays = eqx.error_if(arrays, ~(tail <= tolerance), _message(name, resolution, tolerance))
    return eqx.combine(arrays, rest)


def _message(name: str, resolution: Resolution, tolerance: float, tail: float | None = None) -> str:
    size = getattr(resolution, name)
    found = "above" if tail is None else f"{tail:.1e}, above"
    return (
        f"The limit is not resolved: the last of {size} {_WHAT[name]} are {found} the tolerance {tolerance:.0e} "
        f"relative to the solution. Raise `{name}` of the `Resolution`, or the `tolerance`, or stop at an earlier "
        "time: angles draw together exponentially in t."
    )
