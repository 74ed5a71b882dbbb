"""The U shape of the retrieval profile of uniform prompts (Theorem 1.3): its minimum, and whether it is a U."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from jaxkinetic._show import Shown
from jaxkinetic._types import Scalar, check
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.bessel import scaled_entire_bessel
from jaxkinetic.model import ALiBi, CausalAttention, Kernel
from jaxkinetic.model.positions import require_alibi
from jaxkinetic.retrieval.law_profile import check_range
from jaxkinetic.retrieval.profile import check_profile, profile_modes

_SCAN_NODES = {False: 1024, True: 2048}  # by whether rates may be negative
_PHASE_PER_NODE = 0.4  # radians of the fastest oscillation: about 16 nodes to a period
_BISECTIONS = 60
_LARGEST_LAM = 1e6


class UShape(Shown, eqx.Module):
    """Shape of the retrieval profile of uniform prompts.

    Attributes:
        argmin: position sigma_0 of the lowest interior minimum; 1 where there is none.
        minimum: S_t at ``argmin``.
        drop: S_t(1) - minimum, how far the middle lies below the end; the start is infinitely high.
        n_minima: number of interior minima above ``scanned_from``, by the sign changes of S_t'.
        scanned_from: position sigma_0 down to which minima were counted. It is 0, everywhere, but for kernels with
            negative rates whose oscillations outlast the scan.
        has_primacy: S_t grows to infinity as sigma_0 goes to 0, which holds once some a_n t > 0.
        has_recency: S_t'(1) > 0, exactly.
        is_u_shaped: primacy, recency and exactly one interior minimum anywhere.
        smallness: t sup_n a_n, the left-hand side of (1.22).
        smallness_bound: min(3 - sqrt 3, 2 (1 - e^{-lam})), its right-hand side; 0 where lam <= 0.
        theorem_holds: lam > 0, no negative rates, and (1.22): Theorem 1.3 proves the U. Otherwise it is silent.
        recency_threshold: depth t below which recency holds, exactly; 0 where it never does.
    """

    argmin: Scalar
    minimum: Scalar
    drop: Scalar
    n_minima: Int[Array, ""]
    scanned_from: Scalar
    has_primacy: Bool[Array, ""]
    has_recency: Bool[Array, ""]
    is_u_shaped: Bool[Array, ""]
    smallness: Scalar
    smallness_bound: Scalar
    theorem_holds: Bool[Array, ""]
    recency_threshold: Scalar


def u_shape(model: CausalAttention, time: Any, vocab_size: int) -> UShape:
    """Locate the minimum of the retrieval profile and say whether the profile is a U.

    S_t' is scanned from the end of the prompt to where the growing modes decide its sign. Minima are bracketed
    where it changes sign, and the lowest is found by bisection to rounding; its location and value are
    differentiable in beta, lam and t by the implicit function theorem.

    Args:
        model: kernel and ALiBi weights, others are refused; lam at most 1e6.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2.

    Raises:
        ValueError: on t < 0, M < 2, a larger lam, or weights other than ALiBi.
        RuntimeError: if S_t at the end or in the minimum exceeds the floating-point range.
    """
    time = check_profile(model, time, vocab_size)
    lam = require_alibi(
        model.positions, "`u_shape`", "Use `retrieval_profile` for the profile of other weights."
    ).lam
    lam = check("lam", lam, f"be at most {_LARGEST_LAM:g}", lambda x: x <= _LARGEST_LAM)
    log_weights = profile_modes(model, vocab_size)[1]
    return shape_of_modes(model.kernel, lam, time, log_weights)


@eqx.filter_jit
def shape_of_modes(kernel: Kernel, lam: Scalar, time: Scalar, log_weights: Float[Array, " mode"]) -> UShape:
    """See `u_shape`; differentiable in the logarithms of the decoder's weights too, of the modes that count."""
    rates, signed = kernel.growth_rates()[: log_weights.size], kernel.has_signed_rates
    dtype = jnp.result_type(rates, time)

    def slope(y, args):
        rates, log_weights, time, lam = args
        return closed_form.profile_slope(y, rates, log_weights, time, lam, signed)

    def scaled_value(y):
        return closed_form.scaled_profile_at(y, rates, log_weights, time, lam, signed)

    args = (rates, log_weights, time, lam)
    last, is_all = scan_end(*jax.lax.stop_gradient((rates * time, log_weights, lam)), signed)
    # Equal steps in sqrt(y) are equal steps in the phase of an oscillating mode.
    nodes = (last * jnp.linspace(0, 1, _SCAN_NODES[signed]) ** 2).astype(dtype)
    slopes = jax.lax.stop_gradient(jax.vmap(lambda y: slope(y, args))(nodes))
    turns = (slopes[:-1] < 0) & (slopes[1:] >= 0)
    lowest = _lowest(turns, *jax.lax.stop_gradient(jax.vmap(scaled_value)(nodes[1:])))
    n_minima = jnp.sum(turns)
    exists = n_minima > 0
    y = _zero(slope, args, exists, nodes[lowest], nodes[lowest + 1])
    value, log_scale = scaled_value(y)
    end = closed_form.profile(rates, log_weights, time, jnp.ones((), dtype), ALiBi(lam), signed)
    end = check_range(end)
    minimum = check_range(jnp.where(exists, value * jnp.exp(log_scale), end))
    has_primacy = (time > 0) & (jnp.max(rates) > 0)
    has_recency = slopes[0] < 0
    smallness = time * jnp.maximum(jnp.max(rates), 0)
    bound = closed_form.smallness_bound(lam)
    return UShape(
        argmin=jnp.where(exists, closed_form.source_position(y, lam), 1),
        minimum=minimum,
        drop=end - minimum,
        n_minima=n_minima,
        scanned_from=jnp.where(is_all, 0.0, closed_form.source_position(last, lam)).astype(dtype),
        has_primacy=has_primacy,
        has_recency=has_recency,
        is_u_shaped=has_primacy & has_recency & (n_minima == 1) & is_all,
        smallness=smallness,
        smallness_bound=bound,
        theorem_holds=jnp.all(rates >= 0) & (smallness > 0) & (smallness <= bound),
        recency_threshold=closed_form.recency_threshold(rates, jnp.exp(log_weights), lam),
    )


def _lowest(turns, values, log_scales):
    """Index of the lowest value at a turn: by sign first, then by logarithms, which do not underflow."""
    size = jnp.log(jnp.abs(values)) + log_scales
    smallest = jnp.min(jnp.where(turns, size, jnp.inf))
    return jnp.argmin(jnp.where(turns, jnp.sign(values) * (size - smallest + 1), jnp.inf))


def _zero(slope, args, exists, lower, upper):
    """Zero of the slope in a bracket, with its implicit derivatives; 1 where there is none."""
    eps = float(jnp.finfo(lower.dtype).eps)
    # Without a turn the bracket is a dummy on which y - 1 changes sign, so that the search stays defined.
    bracket = {"lower": jnp.where(exists, lower, 0.0), "upper": jnp.where(exists, upper, 2.0)}
    return optx.root_find(
        lambda y, args: jnp.where(exists, slope(y, args), y - 1),
        optx.Bisection(rtol=2 * eps, atol=float(jnp.finfo(lower.dtype).tiny), flip="detect"),
        jnp.where(exists, (lower + upper) / 2, 1.5),
        args=args,
        options=jax.lax.stop_gradient(bracket),
        max_steps=_BISECTIONS + 68,
        throw=False,
    ).value


def scan_end(
    c: Float[Array, " mode"], log_weights: Float[Array, " mode"], lam: Scalar, signed: bool
) -> tuple[Scalar, Bool[Array, ""]]:
    """The y beyond which no minimum lies, or how far oscillations are resolved if that is less; and which it is.

    With Psi = sum_n w_n psi_{c_n} split by the sign of c_n, H' has the sign of Psi' - R Psi, R = E / (E + e^y). For
    lam > 0 the growing part obeys Psi_+' / Psi_+ >= m / (2 + sqrt(y max c)), m = sum w c^2 / sum w c, which exceeds
    2 R at large y. Then Psi_+ >= 2 N_0 and Psi_+' >= 4 N_1 suffice, N_0 and N_1 bounds of |Psi_-| and |Psi_-'| that
    decrease. For lam <= 0, where R <= 0, these alone suffice.

    Args:
        c: a_n t.
        log_weights: log w_n.
        lam: positional bias.
        signed: whether some c_n may be negative.
    """
    root = jnp.sqrt(jnp.maximum(jnp.max(c), 0))
    sizes = log_weights + jnp.log(jnp.abs(c))
    growing = jnp.where(c > 0, sizes, -jnp.inf)
    mean = jnp.sum(jnp.where(c > 0, jax.nn.softmax(growing), 0.0) * c)
    log_mean = jnp.log(jnp.where(root > 0, mean, 1.0))
    bias = jnp.where(lam > 0, lam, 1.0)
    # m / (2 + sqrt(y max c)) >= 2 E e^{-y} holds from y = first + log(1 + root sqrt(y) / 2) on, and that is at most
    # start + sqrt(y) for the start below.
    first = bias + jnp.log(-jnp.expm1(-bias)) + jnp.log(4.0) - log_mean
    start = jnp.maximum(first, 0) + jnp.log1p(root)
    last = jnp.where((lam > 0) & (root > 0), ((1 + jnp.sqrt(1 + 4 * start)) / 2) ** 2, 1.0)
    if not signed:
        return last, jnp.asarray(True)
    fastest = -jnp.min(c)
    oscillates = fastest > 0
    resolved = (_SCAN_NODES[signed] * _PHASE_PER_NODE / 2) ** 2 / jnp.where(oscillates, fastest, 1.0)

    def is_outgrown(log_y):
        y = jnp.exp(log_y)
        z = jnp.maximum(c, 0) * y
        growth = 2 * jnp.sqrt(z)
        waves = jax.nn.logsumexp(growing + growth + jnp.log(scaled_entire_bessel(1, z, -growth, False)))
        slopes = waves + log_mean - jnp.log(2 + root * jnp.sqrt(y))
        # |J_1(x)| <= 0.85 / sqrt(x) and |J_2(x)| <= 0.9 / sqrt(x) with x = 2 sqrt(u): |Phi_1(-u)| <= 0.61 u^{-3/4},
        # |Phi_2(-u)| <= 0.64 u^{-5/4}.
        falling = jnp.where(c < 0, sizes, -jnp.inf)
        log_u = jnp.log(jnp.abs(c)) + log_y
        bound = jax.nn.logsumexp(falling + jnp.minimum(0.0, jnp.log(0.61) - 0.75 * log_u))
        slope_bound = jax.nn.logsumexp(
            falling + jnp.log(jnp.abs(c)) + jnp.minimum(jnp.log(0.5), jnp.log(0.64) - 1.25 * log_u)
        )
        return (waves >= bound + jnp.log(2.0)) & (slopes >= slope_bound + jnp.log(4.0))

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        outgrown = is_outgrown(middle)
        return jnp.where(outgrown, low, middle), jnp.where(outgrown, middle, high)

    ends = jnp.log(resolved) - 40, jnp.log(resolved)
    outgrown = jnp.exp(jax.lax.fori_loop(0, _BISECTIONS, halve, ends)[1])
    is_all = ~oscillates | (is_outgrown(ends[1]) & (last <= resolved))
    return jnp.where(oscillates, jnp.where(is_all, jnp.maximum(last, outgrown), resolved), last), is_all
