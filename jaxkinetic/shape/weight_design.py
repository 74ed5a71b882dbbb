"""Positional weights designed for a profile: as flat as can be, or like a target, at a mean attention distance.

The profile S_t(sigma_0) of (1.21) is differentiable in b through the iterated kernels, so that the parameters x of
a family of weights are found by least squares: Levenberg-Marquardt on the residuals

    r_i = S(sigma_i) - T(sigma_i) - mean_j (S(sigma_j) - T(sigma_j)),    T = 0 for a flat profile.

The mean attention distance is held exactly, whatever x: see `weights_at_distance`.
"""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    Scalar,
    as_float,
    as_numbers,
    check_at_least,
    check_choice,
    check_finite,
    check_positions,
    check_positive_number,
    check_scalar,
    require_double,
    trusted,
)
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.iterated_kernels import iterated_kernels
from jaxkinetic.model import ALiBi, Kernel, PositionalWeights
from jaxkinetic.shape.weights_at_distance import (
    STEEPEST,
    ExponentialFamily,
    Family,
    PowerFamily,
    SplineFamily,
    hold_mean_distance,
)

FAMILIES = ("spline", "exponentials", "power-law")
_SEARCH_NODES, _NODES = 8, 24
_FINE = 181
_STEPS = 400
_HELD = 1e-9
# The search passes weights that few nodes do not resolve; what it finds is checked.
_UNCHECKED = float(np.finfo(np.float64).max)


@dataclasses.dataclass(frozen=True, repr=False)
class DesignedWeights(Shown):
    """Positional weights, their profile, and that of ALiBi at the same mean attention distance.

    Attributes:
        positions: the weights.
        alibi: ALiBi of the same mean attention distance.
        sources: positions sigma_0, (S,): 181 from the first to the last asked for, or those of the target.
        profile: S_t(sigma_0) of the weights, (S,).
        alibi_profile: S_t(sigma_0) of ALiBi, (S,).
        target: what the profile was to follow up to an offset, (S,); zero for a flat one.
        mean_distance: mean attention distance of the last token, as asked for.
        converged: whether the search ended at a minimum.
        n_steps: steps it took.
    """

    positions: PositionalWeights
    alibi: ALiBi
    sources: Float[np.ndarray, " source"]
    profile: Float[np.ndarray, " source"]
    alibi_profile: Float[np.ndarray, " source"]
    target: Float[np.ndarray, " source"]
    mean_distance: float
    converged: bool
    n_steps: int

    @property
    def range(self) -> float:
        """Largest less smallest value of profile minus target."""
        return float(np.ptp(self.profile - self.target))

    @property
    def alibi_range(self) -> float:
        """The same for ALiBi."""
        return float(np.ptp(self.alibi_profile - self.target))

    @property
    def gain(self) -> float:
        """How many times closer to the target, or flatter, than ALiBi."""
        return self.alibi_range / self.range


def design_weights(
    kernel: Kernel,
    time: float,
    vocab_size: int,
    *,
    mean_distance: float,
    target: Any = None,
    sources: Any = None,
    n_knots: int = 41,
    family: Literal["spline", "exponentials", "power-law"] = "spline",
    n_terms: int = 2,
) -> DesignedWeights:
    """Design positional weights b(s) whose retrieval profile is as flat as can be, or follows a target.

    Args:
        kernel: interaction kernel w.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2 of the decoder.
        mean_distance: int_0^1 s b / int_0^1 b to hold; ALiBi has ``ALiBi(lam).mean_distance``.
        target: profile to follow at the sources up to an offset, (S,); a flat one if None.
        sources: positions sigma_0 in (0, 1), increasing, (S,); if None 0.05 to 0.95.
        n_knots: number of evenly spaced distances at which log b of a "spline" is free.
        family: "spline" for any smooth weights, "exponentials" for `ExponentialSum`, which particles run in linear
            time, or "power-law" for `PowerLaw`.
        n_terms: number of "exponentials".

    Returns:
        The weights and their profile. The profile is checked with three times the nodes of the search.

    Raises:
        ValueError: on arguments out of range, or a mean distance that no weights within a factor e^75 have, or, of
            1/2 and more, no power law.
        RuntimeError: if the weights that are found are not resolved.
    """
    if not isinstance(kernel, Kernel):
        raise ValueError(f"Argument `kernel` must be a Kernel, but is {type(kernel).__name__}.")
    require_double("Designs")
    check_positive_number("time", time)
    check_at_least("vocab_size", vocab_size, 2)
    check_at_least("n_knots", n_knots, 4)
    check_at_least("n_terms", n_terms, 1)
    check_choice("family", family, ("spline", "exponentials", "power-law"))
    check_sensible(time=time, vocab_size=vocab_size, n_knots=n_knots, n_terms=n_terms)
    at, wanted = _check_target(target, sources)
    alibi = alibi_of_mean_distance(mean_distance)
    rates = kernel.growth_rates()
    rates = rates[: min(rates.size, closed_form.growing_modes(vocab_size))]
    depth, distance = as_float(time), as_float(mean_distance)
    searched, smallest = _family(family, n_knots, n_terms, mean_distance), float(at[0])
    starts = jnp.asarray(searched.starts(float(alibi.lam)))
    problem = rates, depth, jnp.asarray(at), jnp.asarray(wanted), distance, vocab_size, smallest
    found, misses, n_steps, converged = _search(searched, starts, *problem)
    best = int(jnp.argmin(jnp.where(jnp.isfinite(misses), misses, jnp.inf)))
    positions = searched.weights(found[best], distance)
    if target is None:
        at, wanted = np.linspace(at[0], at[-1], _FINE), np.zeros(_FINE)
    profile, of_alibi = (
        np.asarray(kernels.correction(rates, depth, vocab_size, jnp.asarray(at)))
        for kernels in (iterated_kernels(p, smallest, n_nodes=_NODES) for p in (positions, alibi))
    )
    held = float(positions.mean_distance)
    converged = bool(converged[best]) and abs(held - mean_distance) <= _HELD
    return DesignedWeights(positions, alibi, at, profile, of_alibi, wanted, held, converged, int(n_steps[best]))


def alibi_of_mean_distance(mean_distance: float) -> ALiBi:
    """ALiBi with a given mean attention distance.

    Raises:
        ValueError: outside (0, 1), or where |lam| would exceed 75.
    """
    check_scalar("mean_distance", mean_distance)
    check_finite("mean_distance", mean_distance)
    low, high = (float(ALiBi(lam).mean_distance) for lam in (STEEPEST, -STEEPEST))
    if not 0 < mean_distance < 1:
        raise ValueError(f"Argument `mean_distance` must lie in (0, 1), but is {float(mean_distance):g}.")
    if not low <= mean_distance <= high:
        raise ValueError(
            f"Argument `mean_distance` must lie in [{low:.3g}, {high:.3g}], which weights within a factor "
            f"e^{STEEPEST:g} can have, but is {float(mean_distance):g}."
        )
    tilted = hold_mean_distance(jnp.zeros(41), jnp.asarray(float(mean_distance)))
    return ALiBi(tilted[0] - tilted[-1])


@trusted()
def profile_of_member(
    family: Family,
    x: Float[Array, " parameter"],
    rates: Float[Array, " mode"],
    time: Scalar,
    vocab_size: int,
    sources: Float[Array, " source"],
    mean_distance: Scalar,
    smallest: float,
) -> Float[Array, " source"]:
    """The profile of the member of a family at x, as the search sees it."""
    kernels = iterated_kernels(
        family.weights(x, mean_distance), smallest, n_nodes=_SEARCH_NODES, tolerance=_UNCHECKED
    )
    return kernels.correction(rates, time, vocab_size, sources)


@eqx.filter_jit
def _search(family, starts, rates, time, sources, target, mean_distance, vocab_size, smallest):
    """From every start: parameters, sum of squares, steps, and whether the search ended at a minimum."""

    def residuals(x, start):
        profile = profile_of_member(family, x, rates, time, vocab_size, sources, mean_distance, smallest)
        miss = profile - target
        return jnp.concatenate([miss - jnp.mean(miss), family.penalty(x, start)])

    def one(start):
        solver = optx.LevenbergMarquardt(rtol=1e-8, atol=1e-10)
        solution = optx.least_squares(residuals, solver, start, args=start, max_steps=_STEPS, throw=False)
        left = jnp.sum(residuals(solution.value, start) ** 2)
        ended = solution.result == optx.RESULTS.successful
        return solution.value, left, solution.stats["num_steps"], ended

    return jax.lax.map(one, starts)


def _family(name: str, n_knots: int, n_terms: int, mean_distance: float) -> Family:
    check_choice("family", name, FAMILIES)
    if name == "spline":
        return SplineFamily(n_knots)
    if name == "exponentials":
        check_at_least("n_terms", n_terms, 2)
        return ExponentialFamily(n_terms)
    if mean_distance >= 0.5:
        raise ValueError(
            "Argument `mean_distance` must be below 1/2 for power laws, which favour what is near, but is "
            f"{float(mean_distance):g}."
        )
    return PowerFamily()


def _check_target(target: Any, sources: Any) -> tuple[np.ndarray, np.ndarray]:
    if sources is None:
        if target is not None:
            raise ValueError("Argument `sources` must be given with `target`: the positions at which it is given.")
        sources = np.linspace(0.05, 0.95, 61)
    at = as_numbers("sources", sources)
    if at.ndim != 1 or at.size < 3:
        raise ValueError(
            f"Argument `sources` must be one-dimensional with at least 3 positions, but has shape {at.shape}."
        )
    check_positions("sources", at)
    if not np.all(np.diff(at) > 0) or at[-1] >= 1:
        raise ValueError("Argument `sources` must increase strictly and end below 1.")
    wanted = np.zeros_like(at) if target is None else as_numbers("target", target)
    if wanted.shape != at.shape:
        raise ValueError(
            f"Argument `target` must have shape {at.shape}, as `sources`, but has shape {wanted.shape}."
        )
    check_finite("target", wanted)
    return at, wanted
