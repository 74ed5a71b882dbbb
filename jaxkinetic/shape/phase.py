"""Where the profile is a U: the phases of S_t in (beta, lam, t, M), at a million points at once.

The model is the paper's, or any with ALiBi weights and growth rates a_n >= 0.

In the variable y = Y(1; sigma_0) of (1.24) the profile of uniform prompts is, up to a factor lam / E,

    H(y) = (1 + E e^{-y}) Psi(y),   E = e^lam - 1,   Psi(y) = sum_n w_n psi_{c_n}(y),   c_n = a_n t.

For lam <= 0 it has no minimum. Otherwise H' has the sign of Psi' - R Psi with R(y) = E / (E + e^y), and Psi is a
power series of positive terms, sum_k (sum_n w_n c_n^{k+1}) y^k / (k! (k+1)!): one product of matrices evaluates it
for many points on many nodes, with no cancellation.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import (
    Scalar,
    as_numbers,
    check_finite,
    check_function,
    check_positive,
    check_times,
    round_up,
    trusted,
)
from jaxkinetic.limit import closed_form
from jaxkinetic.model import CausalAttention, required_modes
from jaxkinetic.model.positions import log_sinhc, require_alibi
from jaxkinetic.theories import OneHead

_NODES = 192
_SPREAD = np.linspace(0, 1, _NODES) ** 2  # crowded towards the end of the prompt, where wells are born
_NEWTON_STEPS = 8
_MOST_TERMS = 1024
_BATCH = 256
_LARGEST_LAM = 1000.0

Model = Callable[[Scalar, Scalar], CausalAttention]


class PhaseDiagram(eqx.Module):
    """Shape of the profile of uniform prompts at many points (beta, lam, t, M); every array has their shape.

    Attributes:
        beta: sharpness.
        lam: positional bias.
        time: depth t.
        vocab_size: vocabulary size M of the decoder, a real number.
        n_minima: number of interior minima of S_t.
        argmin: position sigma_0 of the lowest interior minimum; 1 where there is none.
        drop: S_t(1) - S_t(argmin), how far the middle lies below the end; 0 where there is no minimum.
        relative_drop: drop / S_t(1).
        has_recency: S_t'(1) > 0, from the slope of the profile itself.
        is_u_shaped: recency and exactly one interior minimum; primacy always holds for t > 0.
        theorem_holds: lam > 0 and (1.22), where Theorem 1.3 proves the U.
        recency_time: depth 2 (1 - e^{-lam}) sum w a / sum w a^2 below which recency holds, exactly; 0 for lam <= 0,
            where it never does.
        theorem_time: depth min(3 - sqrt 3, 2 (1 - e^{-lam})) / sup a_n up to which (1.22) holds; 0 for lam <= 0.
    """

    beta: Float[Array, "..."]
    lam: Float[Array, "..."]
    time: Float[Array, "..."]
    vocab_size: Float[Array, "..."]
    n_minima: Int[Array, "..."]
    argmin: Float[Array, "..."]
    drop: Float[Array, "..."]
    relative_drop: Float[Array, "..."]
    has_recency: Bool[Array, "..."]
    is_u_shaped: Bool[Array, "..."]
    theorem_holds: Bool[Array, "..."]
    recency_time: Float[Array, "..."]
    theorem_time: Float[Array, "..."]

    @property
    def outlives(self) -> Array:
        """Factor by which recency outlives the theorem's condition in depth, recency_time / theorem_time.

        NaN for lam <= 0, where there is neither.
        """
        return self.recency_time / self.theorem_time


def phase_diagram(
    beta: Any, lam: Any, time: Any, vocab_size: Any = 8, *, model: Model | None = None
) -> PhaseDiagram:
    """Classify the profile S_t (1.21) of uniform prompts at many points (beta, lam, t, M).

    Minima are bracketed by the sign changes of S_t' on 192 nodes in Y that reach as far as a minimum can lie, and
    the lowest is found by Newton's method within its bracket. Two minima closer than a node are not told apart.

    Args:
        beta: sharpness > 0; scalars and arrays of all four arguments are broadcast.
        lam: positional bias of any sign, at most 1000.
        time: depth t >= 0.
        vocab_size: vocabulary size M >= 2; real numbers are allowed.
        model: traceable (beta, lam) -> model, with ALiBi weights and no negative growth rate, such as
            ``theory.model`` of a theory; the paper's if None.

    Returns:
        The phases, arrays of the common shape.

    Raises:
        ValueError: on arguments out of range, shapes that do not broadcast, a model of other weights or with
            negative rates, a lam above 1000, or a lam t so large that more than 1024 terms would be needed.
    """
    points = _points(beta=beta, lam=lam, time=time, vocab_size=vocab_size)
    model, columns, n_kept, survey = _prepare(model, *points)
    n_terms = _terms(float(survey.reach.max()), float(jnp.finfo(points[0].dtype).eps))
    largest = float(survey.lam.max())
    if largest > _LARGEST_LAM:
        # The minimum then lies within 1e-5 of the start, where the nodes in y do not resolve it.
        raise ValueError(f"Argument `lam` must be at most {_LARGEST_LAM:g} in a phase diagram, but is {largest:g}.")
    found = _phases(model, columns, n_kept, n_terms)
    edges = {"recency_time": survey.recency_time, "theorem_time": survey.theorem_time}
    whole = jax.tree.map(lambda x: x.reshape(-1)[: points[0].size].reshape(points[0].shape), found | edges)
    return PhaseDiagram(*(jnp.asarray(p) for p in points), **whole)


def phase_edges(
    beta: Any, lam: Any, vocab_size: Any = 8, *, model: Model | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Depths (recency_time, theorem_time) of `PhaseDiagram`, where the phases change, at many (beta, lam, M).

    Args:
        beta: sharpness > 0; scalars and arrays of all three arguments are broadcast.
        lam: positional bias of any sign; for lam <= 0 both depths are 0.
        vocab_size: vocabulary size M >= 2; real numbers are allowed.
        model: as for `phase_diagram`.

    Raises:
        ValueError: on arguments out of range, shapes that do not broadcast, or a model that `phase_diagram`
            refuses.
    """
    beta, lam, vocab_size = _points(beta=beta, lam=lam, vocab_size=vocab_size)
    *_, survey = _prepare(model, beta, lam, np.zeros_like(beta), vocab_size)
    recency, theorem = (
        np.asarray(x).reshape(-1)[: beta.size].reshape(beta.shape)
        for x in (survey.recency_time, survey.theorem_time)
    )
    return recency, theorem


def _points(**given):
    """Checked and broadcast arrays."""
    arrays = {name: as_numbers(name, value).astype(jnp.result_type(float)) for name, value in given.items()}
    check_sensible(**arrays)
    check_positive("beta", arrays["beta"])
    check_finite("lam", arrays["lam"])
    check_times("time", arrays.get("time", 0.0))
    check_finite("vocab_size", arrays["vocab_size"])
    if np.any(arrays["vocab_size"] < 2):
        raise ValueError(f"Argument `vocab_size` must be at least 2, but is {arrays['vocab_size'].min():g}.")
    try:
        points = np.broadcast_arrays(*arrays.values())
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"Arguments must have shapes that broadcast, but have {shapes}.") from None
    if points[0].size == 0:
        raise ValueError("Arguments must hold at least one point, but hold none.")
    return points


def _prepare(model, beta, lam, time, vocab_size):
    """The model, points in batches of equal size, the number of modes that count, and the survey of all points."""
    if model is None:
        model = OneHead(round_up(required_modes(float(beta.max()), beta.dtype), 8))
    check_function("model", model)
    made = eqx.filter_eval_shape(model, *(jnp.asarray(p.ravel()[0]) for p in (beta, lam)))
    if not isinstance(made, CausalAttention):
        raise ValueError(f"Argument `model` must build a CausalAttention, but builds {type(made).__name__}.")
    n_kept = min(made.kernel.n_modes, closed_form.growing_modes(float(vocab_size.max())))
    batch = min(_BATCH, round_up(beta.size, 16))
    columns = [
        jnp.asarray(np.pad(p.ravel(), (0, -p.size % batch), mode="edge").reshape(-1, batch))
        for p in (beta, lam, time, vocab_size)
    ]
    survey = _survey(model, columns, n_kept)
    if (least := survey.smallest_rate.min()) < 0:
        raise ValueError(
            f"Argument `model` must have a kernel without negative growth rates a_n, but has a_n = {least:.3g}. "
            "Use `u_shape`."
        )
    if not survey.is_resolved.all():
        raise ValueError("Argument `model` must have a kernel that its modes resolve everywhere: raise `n_modes`.")
    return model, columns, n_kept, survey


class _Survey(eqx.Module):
    """Of every point: what decides how many terms its phase needs, and the depths at which phases end."""

    reach: Array
    lam: Array
    smallest_rate: Array
    is_resolved: Array
    recency_time: Array
    theorem_time: Array


@eqx.filter_jit
@trusted()
def _survey(model, columns, n_kept):
    def one(beta, lam, time, vocab_size):
        modes, kernel = _modes(model, beta, lam, time, vocab_size, n_kept), model(beta, lam).kernel
        rates = kernel.growth_rates()
        return _Survey(
            reach=jnp.max(modes.growth) * modes.last,
            lam=modes.lam,
            smallest_rate=jnp.min(rates),
            is_resolved=kernel.is_resolved(),
            recency_time=closed_form.recency_threshold(rates[:n_kept], modes.weights, modes.lam),
            theorem_time=closed_form.smallness_bound(modes.lam) / jnp.max(rates),
        )

    return jax.lax.map(lambda row: jax.vmap(one)(*row), columns)


@eqx.filter_jit
@trusted()
def _phases(model, columns, n_kept, n_terms):
    def one(beta, lam, time, vocab_size):
        return _phase(_modes(model, beta, lam, time, vocab_size, n_kept), time, n_terms)

    return jax.lax.map(lambda row: jax.vmap(one)(*row), columns)


class _Modes(eqx.Module):
    """What one point is made of: growth c_n, weights w_n, bias lam, and the y beyond which no minimum lies."""

    growth: Float[Array, " mode"]
    weights: Float[Array, " mode"]
    largest_rate: Scalar
    lam: Scalar
    last: Scalar


def _modes(model, beta, lam, time, vocab_size, n_kept):
    made = model(beta, lam)
    lam = require_alibi(made.positions, "a phase diagram", "Use `retrieval_profile` for other weights.").lam
    rates = made.kernel.growth_rates()
    growth, weights = time * rates[:n_kept], closed_form.mode_weights(vocab_size, n_kept)
    # Psi' / Psi >= m / (2 + sqrt(c y)), m the mean growth and c the largest, exceeds R at every y >= last, and
    # at every y where the bound is above R(0).
    tiny = jnp.finfo(rates.dtype).tiny ** 0.25
    mean = jnp.maximum(jnp.sum(weights * growth**2) / jnp.maximum(jnp.sum(weights * growth), tiny), tiny)
    root = jnp.sqrt(jnp.maximum(jnp.max(growth), 0))
    bias = jnp.maximum(lam, tiny)
    first = bias + jnp.log(-jnp.expm1(-bias)) + jnp.log(2 / mean)
    last = jnp.maximum(first, 1.0)
    for _ in range(3):
        # Newton's steps for the convex y - first - log(1 + root sqrt(y) / 2) end above its zero.
        bend = root * jnp.sqrt(last)
        gap = last - first - jnp.log1p(bend / 2)
        last = jnp.maximum(last - gap / (1 - bend / (2 * last * (2 + bend))), 1.0)
    everywhere = (mean / -jnp.expm1(-bias) - 2) > root * jnp.sqrt(last)
    last = jnp.where(everywhere | (lam <= 0) | (time <= 0), 0.0, last)
    return _Modes(growth, weights, jnp.max(rates), lam, last)


def _phase(modes, time, n_terms):
    """Classify one point with a power series of Psi of so many terms."""
    growth, weights, lam, last = modes.growth, modes.weights, modes.lam, modes.last
    possible = last > 0
    last = jnp.where(possible, last, 1.0)
    strength = jnp.where(possible, growth, 0.0)
    bias = jnp.where(possible, lam, 1.0)
    log_e = bias + jnp.log(-jnp.expm1(-bias))

    def next_term(term, k):
        return term * (strength * last) / ((k + 1) * (k + 2)), jnp.sum(term)

    order = np.arange(float(n_terms))
    series = jax.lax.scan(next_term, weights * strength, jnp.asarray(order, growth.dtype))[1]
    powers = jnp.asarray(_SPREAD ** order[:, None], growth.dtype)
    slopes = jnp.asarray(order[1:, None] * _SPREAD ** (order[1:, None] - 1), growth.dtype)

    share = jnp.asarray(_SPREAD, growth.dtype)
    rest = jnp.exp(last * share - log_e)  # e^y / E
    value, slope = series @ powers, (series[1:] @ slopes) / last
    excess = slope * (1 + rest) - value
    downhill = excess < 0
    turns = downhill[:-1] & ~downhill[1:] & possible
    n_minima = jnp.sum(turns)
    exists = n_minima > 0
    height = (1 + 1 / rest[:-1]) * value[:-1]
    lowest = jnp.argmin(jnp.where(turns, height, jnp.inf))
    x = _zero(series, last, log_e, share[lowest], share[lowest + 1], excess[lowest] / excess[lowest + 1])
    y = jnp.where(exists, x * last, 0.0)

    mean = jnp.exp(-lam / 2 - log_sinhc(lam / 2))
    end = (mean + lam) * jnp.sum(weights * growth)
    bottom = (mean + bias * jnp.exp(-y)) * _horner(series, jnp.where(exists, x, 0.0))[0]
    drop = jnp.where(exists, end - bottom, 0.0)
    # The slope of the profile at its end: H'(0) = (mean + lam) Psi'(0) - lam Psi(0).
    recency = (mean + lam) * jnp.sum(weights * growth**2) / 2 < lam * jnp.sum(weights * growth)
    return {
        "n_minima": n_minima,
        "argmin": jnp.where(exists, closed_form.source_position(y, bias), 1.0),
        "drop": drop,
        "relative_drop": jnp.where(exists, drop / jnp.where(exists, end, 1.0), 0.0),
        "has_recency": recency,
        "is_u_shaped": recency & (n_minima == 1),
        "theorem_holds": (lam > 0) & (time > 0) & (time * modes.largest_rate <= closed_form.smallness_bound(lam)),
    }


def _horner(series, x):
    """The series in x and its first two derivatives."""

    def step(carry, coefficient):
        value, slope, half_bend = carry
        return (value * x + coefficient, slope * x + value, half_bend * x + slope), None

    zero = jnp.zeros_like(x)
    (value, slope, half_bend), _ = jax.lax.scan(step, (zero, zero, zero), series[::-1], unroll=8)
    return value, slope, 2 * half_bend


def _zero(series, last, log_e, lower, upper, ratio):
    """Zero of Psi' - R Psi in a bracket: Newton's method from the secant's zero, bisection where it leaves.

    The ratio is that of the values at both ends, and not positive.
    """
    # Beside the zero rounding may set a side wrongly: that must not send the search to the middle.
    slack = 1e-5 * (upper - lower)

    def step(_, state):
        lower, upper, x = state
        value, slope, bend = _horner(series, x)
        r = 1 / (1 + jnp.exp(last * x - log_e))
        excess = slope / last - r * value
        tilt = bend / last - r * slope + last * r * (1 - r) * value
        lower, upper = jnp.where(excess < 0, x, lower), jnp.where(excess < 0, upper, x)
        newton = x - excess / jnp.where(tilt == 0, 1.0, tilt)
        inside = (newton >= lower - slack) & (newton <= upper + slack) & (tilt > 0)
        return lower, upper, jnp.where(inside, newton, (lower + upper) / 2)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, (lower, upper, (lower - ratio * upper) / (1 - ratio)))[2]


def _terms(reach: float, eps: float) -> int:
    """Number of terms that leave sum_k z^k / (k! (k+1)!) right to rounding for z up to the given one."""
    k = np.arange(_MOST_TERMS + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, _MOST_TERMS + 2)))])
    log_term = k * math.log(max(reach, 1e-3)) - log_factorial[:-1] - log_factorial[1:]
    # The second derivative carries k^2 more.
    enough = (k > math.sqrt(max(reach, 0))) & (log_term + 2 * np.log(k + 1) < log_term.max() + math.log(eps) - 5)
    if not enough.any() or log_term.max() > math.log(np.finfo(np.float64 if eps < 1e-10 else np.float32).max) - 20:
        raise ValueError(
            "Arguments `lam` and `time` must be smaller for a phase diagram: the profile's series would need more "
            f"than {_MOST_TERMS} terms (largest a_n t Y is {reach:.3g})."
        )
    return round_up(int(np.argmax(enough)), 32)
