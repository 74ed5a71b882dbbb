"""The limit of uniform prompts in closed form, (1.19)-(1.25): exact, no solver.

Growth rates a_n are data here, not beta: the same functions serve any kernel. Everything is smooth in
every argument, through lam = 0, a = 0 and sigma_0 = sigma, with derivatives.

S_t may be as large as e^{10^5} or as small as e^{-|lam|}. So it is computed as a value of order one and the
logarithm of a scale, and nothing on the way leaves the floating-point range.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar
from jaxkinetic.limit.bessel import scaled_entire_bessel
from jaxkinetic.model.positions import PositionalWeights, log_graphon, log_mean_decay, require_alibi, sign_and_size

CONVEXITY_BOUND = 3 - math.sqrt(3)
_FEWEST_MODES = 26
_INSTEAD = "Use `iterated_kernels` for other weights."


def mode_weights(vocab_size: float | Scalar, n_modes: int) -> Float[Array, " mode"]:
    """Weights e^{-pi^2 n^2 / (2 M^2)}, n = 1..K, of the modes in (1.6) and (1.21); smooth in a real M."""
    return jnp.exp(log_mode_weights(vocab_size, n_modes))


def log_mode_weights(vocab_size: float | Scalar, n_modes: int) -> Float[Array, " mode"]:
    """Logarithms of `mode_weights`, which underflow for small M."""
    n = jnp.arange(1, n_modes + 1)
    return -((math.pi * n / vocab_size) ** 2) / 2


def needed_modes(vocab_size: float) -> int:
    """Number of modes whose weight in (1.21) exceeds 1e-22."""
    return math.ceil(3.2 * vocab_size)


def growing_modes(vocab_size: float) -> int:
    """Number of modes that carry (1.21): those above, and for small M those that outgrow their small weight.

    At depth t mode n grows as e^{2 sqrt(a_n t Y)}. For M = 2 and beta = 40 that of n = 9 exceeds that of n = 7, the
    last above, by more than its weight is less, once S_t reaches e^100.
    """
    return max(needed_modes(vocab_size), _FEWEST_MODES)


def goursat_variable(sigma: Scalar, source: Scalar, lam: Scalar) -> Scalar:
    """The variable Y(sigma; sigma_0) = log((e^{lam sigma} - 1) / (e^{lam sigma_0} - 1)) of (1.24).

    With mu = |lam| and d = sigma - sigma_0 it is

        Y = max(lam, 0) d + log(1 + e^{-mu sigma_0} (1 - e^{-mu d}) / (1 - e^{-mu sigma_0})),

    a sum of positive terms for either sign, so that its relative error is a few roundings even where Y is tiny.

    Args:
        sigma: reader's position in (0, 1].
        source: source position sigma_0 in (0, sigma].
        lam: positional bias of any sign; log(sigma / sigma_0) where it is zero.
    """
    rising, size = sign_and_size(lam)
    distance = sigma - source
    large = size * sigma > 1
    some = jnp.where(large, size, 1.0)
    plain = jnp.expm1(-some * distance) / jnp.expm1(-some * source) * jnp.exp(-some * source)
    few = jnp.where(large, 0.0, size)
    smooth = log_mean_decay(few * distance) - log_mean_decay(few * source) - few * source
    excess = jnp.where(large, plain, distance / source * jnp.exp(smooth))
    return jnp.where(rising, size, 0.0) * distance + jnp.log1p(excess)


@jax.custom_jvp
def source_position(y: Scalar, lam: Scalar) -> Scalar:
    """Invert the variable at the output layer: the sigma_0 with Y(1; sigma_0) = y.

    sigma_0 = log(1 + (e^lam - 1) e^{-y}) / lam, and e^{-y} where lam is zero.
    """
    tiny = jnp.abs(lam) < float(jnp.finfo(jnp.result_type(y, lam)).eps) ** (1 / 3)
    decay, rest = jnp.exp(-y), -jnp.expm1(-y)
    # At lam = 0 to third order, which is below rounding here.
    expansion = decay * (1 + lam * rest / 2 * (1 + lam * (1 - 2 * decay) / 3))
    size = jnp.where(tiny, 1.0, jnp.abs(lam))
    share = -jnp.expm1(-size)
    rising = jnp.logaddexp(0.0, size + jnp.log(share) - y)
    # 1 - share e^{-y} = (1 - e^{-y}) + e^{-|lam| - y}, where the left-hand side would cancel.
    near_end = share * decay > 0.5
    falling = jnp.where(near_end, -jnp.logaddexp(jnp.log(rest), -size - y), -jnp.log1p(-share * decay))
    return jnp.where(tiny, expansion, jnp.where(lam > 0, rising, falling) / size)


@source_position.defjvp
def _source_position_jvp(primals, tangents):
    (y, lam), (dy, dlam) = primals, tangents
    source = source_position(y, lam)
    one = jnp.ones_like(source)
    _, slope = jax.jvp(lambda s: goursat_variable(one, s, lam), (source,), (one,))
    _, in_lam = jax.jvp(lambda l: goursat_variable(one, source, l), (lam,), (jnp.ones_like(lam),))
    return source, (dy - in_lam * dlam) / slope


def volterra_hardy(
    rate: Scalar, time: Scalar, sigma: Scalar, source: Scalar, positions: PositionalWeights, signed: bool = True
) -> Scalar:
    """The profile g_a(t, sigma; sigma_0) of (1.23), and of (1.25) where lam = 0.

    g_a = k(sigma, sigma_0) psi_{a t}(Y(sigma; sigma_0)), the solution of (1.19), with the entire function

    psi_c(y) = sqrt(c / y) I_1(2 sqrt(c y)) = c 0F1(; 2; c y).

    Args:
        rate: growth rate a of any sign.
        time: depth t >= 0.
        sigma: reader's position in (0, 1].
        source: source position sigma_0 in (0, sigma]; the profile is zero beyond.
        positions: ALiBi weights; others are refused.
        signed: whether the rate may be negative; False is cheaper.
    """
    positions = require_alibi(positions, "the closed form (1.23)", _INSTEAD)
    inside, c = source <= sigma, rate * time
    source = jnp.where(inside, source, sigma)
    y = goursat_variable(sigma, source, positions.lam)
    return jnp.where(
        inside, c * scaled_entire_bessel(1, c * y, log_graphon(positions.lam, sigma, source), signed), 0.0
    )


def profile(
    rates: Float[Array, " mode"],
    log_weights: Float[Array, " mode"],
    time: Scalar,
    source: Scalar,
    positions: PositionalWeights,
    signed: bool = True,
) -> Scalar:
    """The retrieval profile S_t(sigma_0) = sum_n w_n g_{a_n}(t, 1; sigma_0) of (1.21).

    It is infinite where it exceeds the floating-point range, and zero where it lies below: see `scaled_profile`.

    Args:
        rates: a_n, n = 1..K.
        log_weights: log w_n, see `log_mode_weights`.
        time: depth t >= 0.
        source: source position sigma_0 in (0, 1].
        positions: ALiBi weights; others are refused.
        signed: whether rates may be negative.
    """
    value, log_scale = scaled_profile(rates, log_weights, time, source, positions, signed)
    return value * jnp.exp(log_scale)


def scaled_profile(
    rates: Float[Array, " mode"],
    log_weights: Float[Array, " mode"],
    time: Scalar,
    source: Scalar,
    positions: PositionalWeights,
    signed: bool = True,
) -> tuple[Scalar, Scalar]:
    """S_t as a value of order one and the logarithm of its scale.

    Arguments are those of `profile`.

    Returns:
        (value, log_scale) with S_t(sigma_0) = value e^{log_scale}; log_scale counts as a constant, so that all
        derivatives are those of the value.
    """
    positions = require_alibi(positions, "the closed form (1.21)", _INSTEAD)
    return _scaled_profile(rates, log_weights, time, source, positions.lam, signed)


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def _scaled_profile(rates, log_weights, time, source, lam, signed):
    y, log_graphon = _geometry(source, lam)
    return _scaled_sum(rates * time, log_weights, y, log_graphon, signed)


@_scaled_profile.defjvp
def _scaled_profile_jvp(signed, primals, tangents):
    # Whole derivatives multiply the tangents: the reverse mode starts from the scale, which may be as small or as
    # large as the precision holds, and partial ones would leave the range on its way.
    rates, log_weights, time, source, lam = primals
    drates, dlog_weights, dtime, dsource, dlam = tangents
    value, log_scale = _scaled_profile(rates, log_weights, time, source, lam, signed)
    y, log_graphon = _geometry(source, lam)
    (y_source, y_lam), (k_source, k_lam) = jax.jacfwd(_geometry, argnums=(0, 1))(source, lam)
    c, log_factor = rates * time, log_weights + log_graphon - jax.lax.stop_gradient(log_scale)
    # (z Phi_1)' = Phi_0 and Phi_1' = Phi_2
    in_c, terms, bends = (scaled_entire_bessel(m, c * y, log_factor, signed) for m in range(3))
    # The large exponents are rounded alike in all sums and in the total, which is the value but for that rounding.
    total = jnp.sum(c * terms)
    share = jnp.where(total == 0, 1.0, value / jnp.where(total == 0, 1.0, total))
    in_c, terms, in_y = share * in_c, share * c * terms, share * jnp.sum(c * (c * bends))
    slope = jnp.sum(in_c * time * drates) + jnp.sum(in_c * rates) * dtime + jnp.sum(terms * dlog_weights)
    slope += (in_y * y_source + value * k_source) * dsource + (in_y * y_lam + value * k_lam) * dlam
    return (value, log_scale), (slope, jnp.zeros_like(log_scale))


def _geometry(source, lam):
    """Y(1; sigma_0) and log k(1, sigma_0)."""
    one = jnp.ones_like(source)
    return goursat_variable(one, source, lam), log_graphon(lam, one, source)


def scaled_profile_at(
    y: Scalar,
    rates: Float[Array, " mode"],
    log_weights: Float[Array, " mode"],
    time: Scalar,
    lam: Scalar,
    signed: bool = True,
) -> tuple[Scalar, Scalar]:
    """`scaled_profile` as a function H(y) of y = Y(1; sigma_0) > 0, where sigma_0 itself may underflow.

    H(y) = (lam / (e^lam - 1) + lam e^{-y}) sum_n w_n psi_{c_n}(y), c_n = a_n t.
    """
    rising, size = sign_and_size(lam)
    growing, _, log_factor = _slope_factors(y, lam)
    # lam / (e^lam - 1) + lam e^{-y} = lam / (e^lam - 1) e^{-y} (e^y + e^lam - 1)
    log_mean = -jnp.where(rising, size, 0.0) - log_mean_decay(size)
    return _scaled_sum(rates * time, log_weights, y, log_mean - y + jnp.log(growing) + log_factor, signed)


def profile_slope(
    y: Scalar,
    rates: Float[Array, " mode"],
    log_weights: Float[Array, " mode"],
    time: Scalar,
    lam: Scalar,
    signed: bool = True,
) -> Scalar:
    """Derivative H'(y) of S_t in y = Y(1; sigma_0), divided by a positive scale.

    With Psi = sum_n w_n psi_{c_n} and E = e^lam - 1, H'(y) is lam / E times

        (1 + E e^{-y}) Psi'(y) - E e^{-y} Psi(y).

    Zeros and signs are those of H', and so are the derivatives of its zeros.
    """
    c = rates * time
    growing, falling, _ = _slope_factors(y, lam)
    log_factor = log_weights - _log_largest_term(c, log_weights, y)
    value = c * scaled_entire_bessel(1, c * y, log_factor, signed)
    slope = c * (c * scaled_entire_bessel(2, c * y, log_factor, signed))
    return jnp.sum(growing * slope - falling * value)


def _slope_factors(y, lam):
    """e^y + E and E, with E = e^lam - 1, both divided by e^m with m = max(y, lam); and m.

    For lam < 0, e^y + E = (e^y - 1) + e^lam does not cancel.
    """
    rising, size = sign_and_size(lam)
    m = jax.lax.stop_gradient(jnp.maximum(y, lam))
    share = jnp.expm1(-size)
    falling = jnp.where(rising, -share * jnp.exp(lam - m), share * jnp.exp(-m))
    # m = y for lam < 0.
    return (
        jnp.where(rising, falling + jnp.exp(y - m), jnp.exp(lam - m) - jnp.expm1(-y) * jnp.exp(y - m)),
        falling,
        m,
    )


def _scaled_sum(c, log_weights, y, log_factor, signed):
    """e^{log_factor} sum_n w_n psi_{c_n}(y) as a value of order one and the logarithm of its scale."""
    log_largest = _log_largest_term(c, log_weights, y)
    total = jnp.sum(c * scaled_entire_bessel(1, c * y, log_weights - log_largest, signed))
    size = jax.lax.stop_gradient(jnp.abs(total))
    size, constant = jnp.where(size > 0, size, 1.0), jax.lax.stop_gradient(log_factor)
    return total / size * jnp.exp(log_factor - constant), log_largest + jnp.log(size) + constant


def _log_largest_term(c, log_weights, y):
    """About the logarithm of the largest |w_n psi_{c_n}(y)|; it counts as a constant."""
    c, log_weights, y = jax.lax.stop_gradient((c, log_weights, y))
    floor = 0.5 * math.log(jnp.finfo(c.dtype).tiny)
    z = jnp.maximum(c, 0) * y
    # Phi_1(z) is 1 at z = 0 and tends to e^{2 sqrt z} / (2 sqrt(pi) z^{3/4}).
    growth = 2 * jnp.sqrt(z) - 0.75 * jnp.log1p(z)
    return jnp.maximum(jnp.max(log_weights + jnp.log(jnp.abs(c)) + growth), floor)


def soft_accuracy(profile: Array, vocab_size: int, n_tokens: int | Array) -> Array:
    """Expand the soft accuracy to first order (1.20): sqrt(pi / 2) / M + sqrt(2 pi) / (M N) S_t(sigma_0)."""
    return math.sqrt(math.pi / 2) / vocab_size + math.sqrt(2 * math.pi) / (vocab_size * n_tokens) * profile


def smallness_bound(lam: Scalar) -> Scalar:
    """Right-hand side min(3 - sqrt 3, 2 (1 - e^{-lam})) of condition (1.22) on t sup a_n; 0 where lam <= 0."""
    return jnp.minimum(CONVEXITY_BOUND, -2 * jnp.expm1(-jnp.maximum(lam, 0)))


def recency_threshold(rates: Float[Array, " mode"], weights: Float[Array, " mode"], lam: Scalar) -> Scalar:
    """Depth t below which the profile rises at the end of the prompt, exactly; 0 where it never does.

    S_t'(1) > 0 if and only if t < 2 (1 - e^{-lam}) sum_n w_n a_n / sum_n w_n a_n^2, which is not positive for
    lam <= 0 and rates that are not negative.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rates)))
    # Squares of the rates themselves may overflow.
    shares = rates / jnp.where(largest > 0, largest, 1.0)
    first, second = jnp.sum(weights * shares), jnp.sum(weights * shares**2)
    ever = first * lam > 0
    first, second = (jnp.where(ever, x, 1.0) for x in (first, second))
    factor = -2 * jnp.expm1(-jnp.where(ever, lam, 1.0))
    return jnp.where(ever, factor * (first / second) / jnp.where(largest > 0, largest, 1.0), 0.0)
