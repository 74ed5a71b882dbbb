"""The search for minima of chi-squared: a grid over the parameters, then Levenberg-Marquardt from many starts."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from jaxkinetic._types import Scalar
from jaxkinetic.inference.fit.likelihood import CurveData, chi_squared, residuals

N_STARTS = 64
# Starts and steps of one call, how often it is repeated, and the relative gain below which it is not.
_CHUNK, _STEPS, _ROUNDS, _GAIN = 16, 30, 6, 1e-13
_REPEATS = 6
_UNDAMPED = 1e4


class Scan(NamedTuple):
    """Values of the parameters, and the smallest chi-squared there with offset and contrast at their best.

    Attributes:
        values: in the order of the theory's parameters, (..., P).
        chi2: chi-squared, (...).
    """

    values: Float[np.ndarray, "*points parameter"]
    chi2: Float[np.ndarray, "*points"]

    def lowest(self) -> "Scan":
        """The one point where chi-squared is smallest."""
        i = np.unravel_index(np.argmin(self.chi2), self.chi2.shape)
        return Scan(self.values[i], self.chi2[i])

    def flat(self) -> "Scan":
        """All points in one row."""
        return Scan(self.values.reshape(self.chi2.size, self.values.shape[-1]), self.chi2.ravel())

    def and_also(self, *others: "Scan") -> "Scan":
        """These points and others, in one row."""
        rows = [scan.flat() for scan in (self, *others)]
        return Scan(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def chi2_at(values: Float[np.ndarray, "*points parameter"], data: CurveData) -> Float[np.ndarray, "*points"]:
    """Chi-squared at every point, a batch at a time; infinite where it cannot be evaluated."""
    flat = jnp.asarray(values.reshape(math.prod(values.shape[:-1]), values.shape[-1]))
    chi2 = np.asarray(_chi2_at(flat, data)).reshape(values.shape[:-1])
    return np.where(np.isfinite(chi2), chi2, np.inf)


@eqx.filter_jit
def _chi2_at(values, data):
    return jax.lax.map(lambda v: chi_squared(v, data), values, batch_size=256)


def scan_all(data: CurveData) -> Scan:
    """Chi-squared on a grid over the whole search range."""
    values = data.theory.coordinates.grid()
    return Scan(values, chi2_at(values, data))


def polish(
    values: Float[np.ndarray, "start parameter"],
    held: Bool[np.ndarray, "start parameter"],
    data: CurveData,
    unit: float = 1.0,
) -> Scan:
    """Minimise chi-squared from many starts by Levenberg-Marquardt, all at once.

    Args:
        values: starts.
        held: parameters that stay as they are.
        data: the curves and their theory.
        unit: unit of the coordinates in which steps are damped; large ones begin with Gauss-Newton's.
    """
    values = np.asarray(values, float)
    if np.all(held):
        return Scan(values, chi2_at(values, data))
    start = data.theory.coordinates.coordinates_of(values)
    at, ends, chi2 = start.copy(), values.copy(), np.full(len(values), np.inf)
    moving = np.arange(len(values))
    # A start waits for the slowest beside it: those that are not there yet go on together.
    for _ in range(_ROUNDS):
        before, there = chi2.copy(), np.zeros(len(values), bool)
        for some in np.split(moving, range(_CHUNK, moving.size, _CHUNK)):
            # Chunks of one shape: a fit compiles this search once.
            padded = np.pad(some, (0, _CHUNK - some.size), mode="edge")
            lanes = [jnp.asarray(x[padded]) for x in (at, start, values, held)]
            found = _polish(lanes[0], lanes[1], lanes[2], lanes[3], jnp.asarray(unit), data)
            at[some], ends[some], chi2[some], there[some] = (np.asarray(x)[: some.size] for x in found)
        gained = before[moving] - chi2[moving] > _GAIN * (1 + chi2[moving])
        moving = moving[gained & ~there[moving]]
        if not moving.size:
            break
    return Scan(ends, np.where(np.isfinite(chi2), chi2, np.inf))


def polish_until_still(points: Scan, data: CurveData) -> Scan:
    """Polish again from where a search ended until that gains nothing, and return the lowest point.

    In a flat valley Levenberg-Marquardt runs out of steps, or stops, short of the bottom.
    """
    lowest = np.inf
    for _ in range(_REPEATS):
        best = points.lowest()
        if not best.chi2 < lowest - 1e-10 * (1 + best.chi2):
            break
        lowest = best.chi2
        again = polish(points.values, np.zeros(points.values.shape, bool), data)
        points = again.and_also(Scan(best.values[None], best.chi2[None]))
        kept = np.argsort(points.chi2)[:N_STARTS]
        points = Scan(points.values[kept], points.chi2[kept])
    return _descend(points.lowest(), data)


def _descend(best: Scan, data: CurveData) -> Scan:
    """Go on from the best point with undamped steps: along a flat valley damped ones are too short to count."""
    for _ in range(_REPEATS):
        below = polish(best.values[None], np.zeros((1, best.values.size), bool), data, _UNDAMPED).lowest()
        if not below.chi2 < best.chi2:
            break
        best = below
    return best


@eqx.filter_jit
def _polish(
    at: Float[Array, "start parameter"],
    start: Float[Array, "start parameter"],
    fixed: Float[Array, "start parameter"],
    held: Bool[Array, "start parameter"],
    unit: Scalar,
    data: CurveData,
):
    """Steps in the coordinates, but for what is held: coordinates, values, chi-squared, whether done."""
    coordinates = data.theory.coordinates

    def values_at(v, start, fixed, held):
        return jnp.where(held, fixed, coordinates.values_at(jnp.where(held, start, v)))

    # The search calls these at many places: traced once each, and the Jacobian as one matrix, it compiles in
    # a fraction of the time.
    @jax.jit
    def residual(v, *hold):
        return residuals(values_at(v, *hold), data).ravel()

    @jax.jit
    def linearised(v, *hold):
        return residual(v, *hold), jax.jacfwd(residual)(v, *hold)

    def one(v, *hold):
        @jax.custom_jvp
        def standardised(v):
            return residual(v, *hold)

        @standardised.defjvp
        def _(primals, tangents):
            value, jacobian = linearised(*primals, *hold)
            return value, jacobian @ tangents[0]

        def objective(u, _):
            r = standardised(unit * u)
            return r, jnp.sum(r**2)

        solver = optx.LevenbergMarquardt(rtol=1e-12, atol=1e-12)
        found = optx.least_squares(objective, solver, v / unit, has_aux=True, max_steps=_STEPS, throw=False)
        # A lane that runs out of steps has still only gone downhill: its end counts for what it is worth.
        v = unit * found.value
        return v, values_at(v, *hold), found.aux, found.result == optx.RESULTS.successful

    return jax.vmap(one)(at, start, fixed, held)


def is_local_minimum(values: Float[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """Whether no neighbour along any axis is lower."""
    ringed = np.pad(values, 1, constant_values=np.inf)
    inner = (slice(1, -1),) * values.ndim
    lowest = np.ones(values.shape, bool)
    for axis in range(values.ndim):
        for shift in (-1, 1):
            lowest &= values <= np.roll(ringed, shift, axis=axis)[inner]
    return lowest
