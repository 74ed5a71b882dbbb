"""The search over (beta, lam): coordinates along the ridge, a grid, many Levenberg-Marquardt starts at once.

As beta and lam go to 0 together, the shape of S_t tends to r sigma_0 - log(sigma_0) with r = 2 lam / (a_1 t):
the likelihood has a ridge lam ~ beta. The coordinates (b, q) straighten it,

    log beta = low + (high - low) sigmoid(b),      lam = clip(q beta / (1 + beta)),

with a smooth clip that keeps lam inside its range.
"""

import math
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from jaxkinetic.inference.fit.likelihood import CurveData, chi_squared, residuals

Values = TypeVar("Values", Array, np.ndarray)
LANES = 64
# Lanes and steps of one call, how often it is repeated, and the relative gain below which it is not.
_CHUNK, _STEPS, _ROUNDS, _GAIN = 16, 30, 6, 1e-13
GRID = (64, 128)
_REPEATS = 6
_EDGE = 1 / (1 + math.exp(12.0))
FREE, FIXED_BETA, FIXED_LAM = 0, 1, 2


class Range(NamedTuple):
    """Bounds within which beta and lam are searched."""

    beta: tuple[float, float]
    lam: tuple[float, float]


class Surface(NamedTuple):
    """Chi-squared on a grid of (beta, lam); lam varies with beta along the first axis.

    Attributes:
        beta: sharpness, (B, Q).
        lam: positional bias, (B, Q).
        chi2: chi-squared with the nuisances at their best, (B, Q).
    """

    beta: Float[np.ndarray, "b q"]
    lam: Float[np.ndarray, "b q"]
    chi2: Float[np.ndarray, "b q"]


# These run on NumPy arrays as on traced ones: outside a compiled function each JAX operation would be compiled
# by itself, which for a first fit adds up to a second.
def beta_of(b: Values, bounds: Range) -> Values:
    """Sharpness at coordinate b."""
    xp = b.__array_namespace__()
    low, high = _log_beta(bounds, xp)
    return xp.exp(low + (high - low) / (1 + xp.exp(-b)))


def b_of(beta: Values, bounds: Range) -> Values:
    """Coordinate b of a sharpness; the edges of the range map to +-12, where it is as good as reached."""
    xp = beta.__array_namespace__()
    low, high = _log_beta(bounds, xp)
    share = xp.clip((xp.log(beta) - low) / (high - low), _EDGE, 1 - _EDGE)
    return xp.log(share) - xp.log1p(-share)


def lam_of(q: Values, beta: Values, bounds: Range) -> Values:
    """Positional bias at coordinate q for a given sharpness."""
    x = q * beta / (1 + beta)
    xp = x.__array_namespace__()
    edge = xp.where(x > 0, bounds.lam[1], -bounds.lam[0])
    return edge * xp.tanh(x / edge)


def q_of(lam: Values, beta: Values, bounds: Range) -> Values:
    """Coordinate q of a positional bias for a given sharpness."""
    xp = lam.__array_namespace__()
    edge = xp.where(lam > 0, bounds.lam[1], -bounds.lam[0])
    return edge * xp.atanh(xp.clip(lam / edge, -1 + 1e-9, 1 - 1e-9)) * (1 + beta) / beta


def _log_beta(bounds, xp):
    low, high = bounds.beta
    return xp.log(xp.asarray(low)), xp.log(xp.asarray(high))


def chi2_at(
    beta: Float[np.ndarray, "b q"], lam: Float[np.ndarray, "b q"], data: CurveData
) -> Float[np.ndarray, "b q"]:
    """Chi-squared at every pair, a batch at a time; infinite where it cannot be evaluated."""
    chi2 = np.asarray(_chi2_at(jnp.asarray(beta.ravel()), jnp.asarray(lam.ravel()), data)).reshape(beta.shape)
    return np.where(np.isfinite(chi2), chi2, np.inf)


@eqx.filter_jit
def _chi2_at(beta, lam, data):
    return jax.lax.map(lambda p: chi_squared(p[0], p[1], data), (beta, lam), batch_size=256)


class Polished(NamedTuple):
    """Local minima of chi-squared, one per lane."""

    beta: Float[np.ndarray, " lane"]
    lam: Float[np.ndarray, " lane"]
    chi2: Float[np.ndarray, " lane"]


def polish(
    beta: Float[np.ndarray, " lane"],
    lam: Float[np.ndarray, " lane"],
    modes: Int[np.ndarray, " lane"] | int,
    data: CurveData,
    bounds: Range,
) -> Polished:
    """Minimise chi-squared from many starts by Levenberg-Marquardt, all lanes at once.

    Args:
        beta: starts.
        lam: starts.
        modes: FREE, or FIXED_BETA or FIXED_LAM to hold that parameter at its start; one for all, or one a lane.
        data: the curves.
        bounds: the search range.
    """
    edges = jax.tree.map(jnp.asarray, bounds)
    beta, lam = np.asarray(beta, float), np.asarray(lam, float)
    held = np.stack([b_of(beta, bounds), lam, np.broadcast_to(modes, beta.shape)], axis=1)
    at = np.stack([held[:, 0], q_of(lam, beta, bounds)], axis=1)
    ends = np.full((beta.size, 3), np.inf)
    moving = np.arange(beta.size)
    # A lane waits for the slowest beside it: those that are not there yet go on together.
    for _ in range(_ROUNDS):
        before, there = ends[:, 2].copy(), np.zeros(beta.size, bool)
        for lanes in np.split(moving, range(_CHUNK, moving.size, _CHUNK)):
            # Chunks of one shape: a fit compiles this search once.
            padded = np.pad(lanes, (0, _CHUNK - lanes.size), mode="edge")
            found = _polish(jnp.asarray(at[padded]), jnp.asarray(held[padded]), data, edges)
            at[lanes], ends[lanes], there[lanes] = (np.asarray(x)[: lanes.size] for x in found)
        gained = before[moving] - ends[moving, 2] > _GAIN * (1 + ends[moving, 2])
        moving = moving[gained & ~there[moving]]
        if not moving.size:
            break
    beta, lam, chi2 = ends.T
    return Polished(beta, lam, np.where(np.isfinite(chi2), chi2, np.inf))


def settle(points: Polished, data: CurveData, bounds: Range) -> tuple[float, float, float]:
    """Polish again from where a search ended until that gains nothing: (beta, lam, chi2) of the lowest point.

    In a flat valley Levenberg-Marquardt runs out of steps short of the bottom.
    """
    lowest = np.inf
    for _ in range(_REPEATS):
        i = int(np.argmin(points.chi2))
        best = float(points.beta[i]), float(points.lam[i]), float(points.chi2[i])
        if not best[2] < lowest - 1e-10 * (1 + best[2]):
            break
        lowest = best[2]
        again = polish(points.beta, points.lam, FREE, data, bounds)
        points = Polished(*(np.append(x, b) for x, b in zip(again, best, strict=True)))
        kept = np.argsort(points.chi2)[:LANES]
        points = Polished(*(x[kept] for x in points))
    return min(zip(*(x.tolist() for x in points), strict=True), key=lambda point: point[2])


@eqx.filter_jit
def _polish(at: Float[Array, "lane 2"], held: Float[Array, "lane 3"], data: CurveData, bounds: Range):
    """Steps from (b, q), with b or lam held where the mode says so: (b, q), (beta, lam, chi2), whether done."""

    def unpack(v, held):
        b, lam, mode = held
        beta = beta_of(jnp.where(mode == FIXED_BETA, b, v[0]), bounds)
        return beta, jnp.where(mode == FIXED_LAM, lam, lam_of(v[1], beta, bounds))

    # The search calls these at many places: traced once each, and the Jacobian as one matrix, it compiles in
    # a fraction of the time.
    @jax.jit
    def residual(v, held):
        return residuals(*unpack(v, held), data).ravel()

    @jax.jit
    def linearised(v, held):
        return residual(v, held), jax.jacfwd(residual)(v, held)

    def one(start, held):
        @jax.custom_jvp
        def standardised(v):
            return residual(v, held)

        @standardised.defjvp
        def _(primals, tangents):
            value, jacobian = linearised(*primals, held)
            return value, jacobian @ tangents[0]

        def objective(v, _):
            r = standardised(v)
            return r, jnp.sum(r**2)

        solver = optx.LevenbergMarquardt(rtol=1e-12, atol=1e-12)
        found = optx.least_squares(objective, solver, start, has_aux=True, max_steps=_STEPS, throw=False)
        # A lane that runs out of steps has still only gone downhill: its end counts for what it is worth.
        end = jnp.stack([*unpack(found.value, held), found.aux])
        return found.value, end, found.result == optx.RESULTS.successful

    return jax.vmap(one)(at, held)


def is_local_minimum(values: Float[np.ndarray, "b q"]) -> Bool[np.ndarray, "b q"]:
    """Whether no neighbour along either axis is lower."""
    ringed = np.pad(values, 1, constant_values=np.inf)
    around = [np.roll(ringed, s, axis=a)[1:-1, 1:-1] for a in (0, 1) for s in (-1, 1)]
    return np.all([values <= x for x in around], axis=0)


def lam_grid(beta: Float[np.ndarray, " b"], n_lam: int, bounds: Range) -> Float[np.ndarray, "b q"]:
    """Values of lam that cover its range at each beta: dense on the scale of beta, where the ridge is."""
    scale = (beta / (1 + beta))[:, None]
    low, high = (np.arcsinh(3 * edge / scale) for edge in bounds.lam)
    q = np.sinh(low + np.linspace(0, 1, n_lam) * (high - low))
    return lam_of(q, beta[:, None], bounds)


def surface(
    data: CurveData,
    bounds: Range,
    b_range: tuple[float, float] = (-12.0, 12.0),
    q_range: tuple[float, float] | None = None,
) -> Surface:
    """Chi-squared on the whole search range, or on a part of it given in the coordinates (b, q)."""
    n_beta, n_lam = GRID
    first, last = 1 / (1 + np.exp(-np.asarray(b_range)))
    share = np.linspace(first, last, n_beta)
    beta = beta_of(np.log(share) - np.log1p(-share), bounds)
    if q_range is None:
        lam = lam_grid(beta, n_lam, bounds)
    else:
        q = np.sinh(np.linspace(np.arcsinh(q_range[0]), np.arcsinh(q_range[1]), n_lam))
        lam = lam_of(q[None, :], beta[:, None], bounds)
    beta = beta[:, None] * np.ones(n_lam)
    return Surface(beta, lam, chi2_at(beta, lam, data))
