"""How finely a limit solver resolves, how that is measured, and how the sizes are found automatically.

The last coefficients of a resolved spectral expansion are at rounding level. Their size, the tail, estimates the
error of the solution. A solution whose tails exceed the tolerance is an error, with one exception: where the sizes
were found automatically, the tolerance is the default one, and finer sizes no longer help, the solution is returned
with a warning that states its error.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

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


class ResolutionWarning(UserWarning):
    """A result has a larger numerical error than the default tolerance; the message states it."""


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
        """Return the resolution with the named sizes raised by half, up to the largest that the search tries."""
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

    @property
    def largest(self) -> Scalar:
        """The largest of them: the estimated error of the solution."""
        return jnp.max(jnp.stack(jax.tree.leaves(self)))


def solve_resolved(
    solve: Callable[[Resolution], tuple[_S, Tails]], resolution: Resolution | None, first: Resolution
) -> _S:
    """Solve at the given resolution, or search for one that meets the tolerance.

    The search raises every size whose tail exceeds the tolerance, as long as that lowers the tail. Small tails
    that no longer fall consist of rounding and of errors of the steps in t, which finer sizes do not reduce.

    Args:
        solve: resolution -> solution and tails.
        resolution: sizes to use; None searches, starting from ``first``, if the tails are concrete. Under a
            transformation sizes cannot depend on values: ``first`` is used, and checked at run time.
        first: where the search starts, with the caller's ``tolerance``.

    Raises:
        ValueError: if ``resolution`` is not a `Resolution`, or both it and a tolerance are given.
        RuntimeError: if the tolerance is not met. A search with the default tolerance returns its best solution
            with a `ResolutionWarning` instead, if its error is below the square root of rounding.
    """
    if resolution is not None:
        check_type("resolution", resolution, Resolution)
    if resolution is not None and first.tolerance is not None:
        raise ValueError("Argument `tolerance` must be None where a `Resolution` is given, which has its own.")
    size = first if resolution is None else resolution
    best, error, before = None, math.inf, {}
    while True:
        solution, tails = solve(size)
        dtype = tails.nodes.dtype
        floor, tolerance = float(jnp.finfo(dtype).eps) ** 0.5, _tolerance(size, dtype)
        if not is_concrete(*jax.tree.leaves(tails)):
            return _check_at_run_time(solution, tails, tolerance, size)
        left = {name: float(jnp.max(getattr(tails, name))) for name in _LARGEST}
        # A NaN is short of any tolerance.
        short = [name for name in _LARGEST if not left[name] <= tolerance]
        if not short:
            return solution
        if (largest := float(np.max(list(left.values())))) < error:
            best, error = solution, largest
        stalled = [name for name in short if before.get(name, math.inf) / 2 < left[name] < floor]
        raised = [name for name in short if name not in stalled]
        finer = size.finer(raised)
        if resolution is not None or finer == size:
            break
        size, before = finer, {name: left[name] for name in raised}
    if best is not None and resolution is None and first.tolerance is None and error < floor:
        warnings.warn(
            f"The limit is resolved to {error:.1e} relative to the solution, not to the default tolerance "
            f"{tolerance:.0e}, and finer sizes do not help. A `tolerance` above {error:.1e} accepts this silently.",
            ResolutionWarning,
            stacklevel=3,
        )
        return best
    raise RuntimeError(_refusal(short[0], size, tolerance, left[short[0]]))


def _tolerance(resolution: Resolution, dtype: Any) -> float:
    if resolution.tolerance is not None:
        return resolution.tolerance
    return 1e-11 if jnp.finfo(dtype).bits >= 64 else 1e-4  # rounding alone leaves 3e-5 of 129 nodes


def _check_at_run_time(solution: _S, tails: Tails, tolerance: float, size: Resolution) -> _S:
    arrays, rest = eqx.partition(solution, eqx.is_array)
    for name in _LARGEST:
        unresolved = ~(getattr(tails, name) <= tolerance)
        arrays = eqx.error_if(arrays, unresolved, _refusal(name, size, tolerance))
    return eqx.combine(arrays, rest)


def _refusal(name: str, size: Resolution, tolerance: float, tail: float | None = None) -> str:
    found = "above" if tail is None else f"{tail:.1e}, above"
    return (
        f"The limit is not resolved: the last of {getattr(size, name)} {_WHAT[name]} are {found} the tolerance "
        f"{tolerance:.0e} relative to the solution. Pass a `resolution` with more `{name}`, a larger `tolerance`, "
        "or an earlier time: angles draw together exponentially in t."
    )
