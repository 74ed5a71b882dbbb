"""The limit of uniform prompts in closed form, (1.19)-(1.25): exact, no solver.

Growth rates a_n are data here, not beta: the same functions serve any kernel. Everything is smooth in
every argument, through lam = 0, a = 0 and sigma_0 = sigma, with derivatives.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar
from jaxkinetic.limit.bessel import entire_bessel, scaled_entire_bessel, slope_cap
from jaxkinetic.model.positions import PositionalWeights, log_sinhc, require_alibi

CONVEXITY_BOUND = 3 - math.sqrt(3)
_FEWEST_MODES = 26
_INSTEAD = "Use `iterated_kernels` for other weights."


def mode_weights(vocab_size: float | Scalar, n_modes: int) -> Float[Array, " mode"]:
    """Weights e^{-pi^2 n^2 / (2 M^2)}, n = 1..K, of the modes in (1.6) and (1.21); smooth in a real M."""
    n = jnp.arange(1, n_modes + 1)
    return jnp.exp(-((math.pi * n / vocab_size) ** 2) / 2)


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

    Args:
        sigma: reader's position in (0, 1].
        source: source position sigma_0 in (0, sigma].
        lam: positional bias of any sign; log(sigma / sigma_0) where it is zero.
    """
    smooth = log_sinhc(lam * sigma / 2) - log_sinhc(lam * source / 2)
    return jnp.log(sigma / source) + lam * (sigma - source) / 2 + smooth


def source_position(y: Scalar, lam: Scalar) -> Scalar:
    """Invert the variable at the output layer: the sigma_0 with Y(1; sigma_0) = y.

    sigma_0 = log(1 + (e^lam - 1) e^{-y}) / lam, and e^{-y} where lam is zero. Where that would overflow or
    cancel it is 1 + (log(1 + (1 - e^{-y}) e^{y - lam}) - y) / lam, which serves lam > -600, in single precision
    lam > -75.
    """
    precision = jnp.finfo(jnp.result_type(y, lam))
    largest = 0.9 * math.log(precision.max)
    decay, rest = jnp.exp(-y), -jnp.expm1(-y)
    tiny, far_from_end = jnp.abs(lam) < float(precision.eps) ** (1 / 3), lam - y <= 1
    divisor = jnp.where(tiny, 1.0, lam)
    # The two factorings of x keep exponents small for either sign of lam.
    rising = jnp.exp(jnp.where(far_from_end, lam - y, 0.0)) * -jnp.expm1(-jnp.maximum(lam, 0.0))
    x = jnp.where(lam > 0, rising, decay * jnp.expm1(jnp.minimum(lam, 0.0)))
    near_end = ~far_from_end | (x < -0.5)
    plain = jnp.log1p(jnp.where(near_end | tiny, 1.0, x)) / divisor
    exponent = jnp.where(near_end, jnp.minimum(y - lam, largest), 0.0)
    from_end = 1 + (jnp.log1p(rest * jnp.exp(exponent)) - y) / divisor
    # At lam = 0 to third order, which is below rounding here.
    expansion = decay * (1 + lam * rest / 2 * (1 + lam * (1 - 2 * decay) / 3))
    return jnp.where(tiny, expansion, jnp.where(near_end, from_end, plain))


def psi(c: Float[Array, "*shape"], y: Scalar, signed: bool = True) -> Float[Array, "*shape"]:
    """Evaluate psi_c(y) = sqrt(c / y) I_1(2 sqrt(c y)) = c 0F1(; 2; c y), entire in c and y.

    Args:
        c: a_n t, of any sign.
        y: the variable Y of (1.24).
        signed: whether c may be negative.
    """
    return _product(c, entire_bessel(1, c * y, signed))


@jax.custom_jvp
def _product(factor: Array, growing: Array) -> Array:
    """A product whose second factor may be infinite; its slope is then cut, as that of `entire_bessel`."""
    return factor * growing


@_product.defjvp
def _product_jvp(primals, tangents):
    (factor, growing), (dfactor, dgrowing) = primals, tangents
    bounded = jnp.minimum(growing, slope_cap(growing.dtype))
    return _product(factor, growing), dfactor * bounded + factor * dgrowing


def volterra_hardy(
    rate: Scalar, time: Scalar, sigma: Scalar, source: Scalar, positions: PositionalWeights, signed: bool = True
) -> Scalar:
    """The profile g_a(t, sigma; sigma_0) of (1.23), and of (1.25) where lam = 0.

    g_a = k(sigma, sigma_0) psi_{a t}(Y(sigma; sigma_0)), the solution of (1.19).

    Args:
        rate: growth rate a of any sign.
        time: depth t >= 0.
        sigma: reader's position in (0, 1].
        source: source position sigma_0 in (0, sigma]; the profile is zero beyond.
        positions: ALiBi weights; others are refused.
        signed: whether the rate may be negative; False is cheaper.
    """
    positions = require_alibi(positions, "the closed form (1.23)", _INSTEAD)
    y = goursat_variable(sigma, source, positions.lam)
    return _product(positions.graphon(sigma, source), psi(rate * time, y, signed))


def retrieval_correction(
    rates: Float[Array, " mode"],
    weights: Float[Array, " mode"],
    time: Scalar,
    source: Scalar,
    positions: PositionalWeights,
    signed: bool = True,
) -> Scalar:
    """The retrieval profile S_t(sigma_0) = sum_n w_n g_{a_n}(t, 1; sigma_0) of (1.21).

    Args:
        rates: a_n, n = 1..K.
        weights: w_n, see `mode_weights`.
        time: depth t >= 0.
        source: source position sigma_0 in (0, 1].
        positions: ALiBi weights; others are refused.
        signed: whether rates may be negative.
    """
    positions = require_alibi(positions, "the closed form (1.21)", _INSTEAD)
    one = jnp.ones_like(source)
    y = goursat_variable(one, source, positions.lam)
    return _product(positions.graphon(one, source), jnp.sum(weights * psi(rates * time, y, signed)))


def soft_accuracy(correction: Array, vocab_size: int, n_tokens: int | Array) -> Array:
    """Expand the soft accuracy to first order (1.20): sqrt(pi / 2) / M + sqrt(2 pi) / (M N) S_t(sigma_0)."""
    return math.sqrt(math.pi / 2) / vocab_size + math.sqrt(2 * math.pi) / (vocab_size * n_tokens) * correction


def smallness_bound(lam: Scalar) -> Scalar:
    """Right-hand side min(3 - sqrt 3, 2 (1 - e^{-lam})) of condition (1.22) on t sup a_n."""
    return jnp.minimum(CONVEXITY_BOUND, -2 * jnp.expm1(-lam))


def recency_threshold(rates: Float[Array, " mode"], weights: Float[Array, " mode"], lam: Scalar) -> Scalar:
    """Depth t below which the profile rises at the end of the prompt, exactly, for lam > 0.

    S_t'(1) > 0 if and only if t < 2 (1 - e^{-lam}) sum_n w_n a_n / sum_n w_n a_n^2. Zero or negative: never.
    """
    return -2 * jnp.expm1(-lam) * jnp.sum(weights * rates) / jnp.sum(weights * rates**2)


def correction_slope(
    y: Scalar,
    rates: Float[Array, " mode"],
    weights: Float[Array, " mode"],
    time: Scalar,
    lam: Scalar,
    signed: bool = True,
) -> Scalar:
    """Derivative H'(y) of S_t in y = Y(1; sigma_0), divided by its growth e^{2 sqrt(y max c_n)}.

    H(y) = (lam / (e^lam - 1) + lam e^{-y}) sum_n w_n psi_{c_n}(y), c_n = a_n t. Zeros and signs are those
    of H', and so are the derivatives of its zeros.
    """
    c = rates * time
    log_scale = 2 * jnp.sqrt(jnp.maximum(jnp.max(c), 0) * y)
    log_scale = jnp.broadcast_to(jax.lax.stop_gradient(log_scale), c.shape)
    mean = jnp.exp(-lam / 2 - log_sinhc(lam / 2))
    tilt = lam * jnp.exp(-y)
    value = c * scaled_entire_bessel(1, c * y, log_scale, signed)
    slope = c**2 * scaled_entire_bessel(2, c * y, log_scale, signed)
    return jnp.sum(weights * ((mean + tilt) * slope - tilt * value))


def correction_shape(
    rates: Float[Array, " mode"],
    weights: Float[Array, " mode"],
    time: Scalar,
    sources: Float[Array, " source"],
    positions: PositionalWeights,
    signed: bool = True,
) -> tuple[Float[Array, " source"], Scalar]:
    """S_t at several sources with its largest exponential taken out, so that it never overflows.

    Returns:
        (values, log_scale) with S_t(sigma_0) = values e^{log_scale}; log_scale counts as a constant.
    """
    positions = require_alibi(positions, "the closed form (1.21)", _INSTEAD)
    one = jnp.ones((), sources.dtype)
    y = jax.vmap(lambda s: goursat_variable(one, s, positions.lam))(sources)
    graphon = jax.vmap(lambda s: positions.graphon(one, s))(sources)
    c = rates * time
    log_scale = jax.lax.stop_gradient(2 * jnp.sqrt(jnp.maximum(jnp.max(c), 0) * jnp.maximum(jnp.max(y), 0)))
    z = c[None, :] * y[:, None]
    waves = scaled_entire_bessel(1, z, jnp.broadcast_to(log_scale, z.shape), signed)
    return graphon * (waves @ (weights * c)), log_scale
