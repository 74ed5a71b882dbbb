"""Positional weights other than ALiBi: sums of exponentials, power laws, splines of the logarithm."""

import math
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import (
    Angles,
    Scalar,
    check,
    finite_array,
    finite_scalar,
    is_concrete,
    positive_array,
    positive_scalar,
)
from jaxkinetic.model.positions import ALiBi, PositionalWeights, log_sinhc
from jaxkinetic.sums import causal_sum, weight_totals

_GAUSS_NODES = 12
# e^{-80} is about the smallest number of single precision.
_LARGEST_RANGE = 80.0
# Closer to 1 than 2^{-36} positions differ by few roundings.
_FINEST_BREAK = 36


class ExponentialSum(PositionalWeights):
    """A sum of ALiBi weights, b(s) = sum_r A_r e^{-rate_r s}; particles run it in linear time, term by term.

    Attributes:
        amplitudes: A_r > 0, (R,).
        rates: rates of any sign, (R,).

    Raises:
        ValueError: on shapes that differ, amplitudes that are not positive, or rates that are not finite.
    """

    amplitudes: Float[Array, " term"] = eqx.field(converter=positive_array("amplitudes"))
    rates: Float[Array, " term"] = eqx.field(converter=finite_array("rates"))

    def __check_init__(self):
        if self.amplitudes.ndim != 1 or self.amplitudes.size == 0:
            raise ValueError(
                "Argument `amplitudes` must be a non-empty one-dimensional array, but has shape "
                f"{self.amplitudes.shape}."
            )
        if self.rates.shape != self.amplitudes.shape:
            raise ValueError(
                f"Argument `rates` must have shape {self.amplitudes.shape}, as `amplitudes`, but has shape "
                f"{self.rates.shape}."
            )

    def _total(self, terms: Float[Array, "term *shape"]) -> Float[Array, "*shape"]:
        log_amplitudes = jnp.log(self.amplitudes).reshape(-1, *[1] * (terms.ndim - 1))
        return jax.nn.logsumexp(log_amplitudes + terms, axis=0)

    def log_weight(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of sum_r A_r e^{-rate_r s}."""
        return self._total(-jnp.multiply.outer(self.rates, distance))

    def log_mass(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of sum_r A_r (1 - e^{-rate_r sigma}) / rate_r."""
        return self._total(jax.vmap(lambda rate: ALiBi(rate).log_mass(sigma))(self.rates))

    @property
    def mean_distance(self) -> Scalar:
        """Mean of the terms' mean distances, by their mass."""
        one = jnp.ones((), self.dtype)
        masses = jax.vmap(lambda rate: ALiBi(rate).log_mass(one))(self.rates)
        means = jax.vmap(lambda rate: ALiBi(rate).mean_distance)(self.rates)
        return jnp.sum(jax.nn.softmax(jnp.log(self.amplitudes) + masses) * means)

    def factors(
        self, n_tokens: int
    ) -> tuple[Float[Array, "term token"], Float[Array, " term"], Float[Array, " term"]]:
        """Each term as a factor times what the causal sum runs: A_r e^{-rate_r (j - k) / N} = e^{f_rj} W_jk.

        Returns:
            f (R, N), and the exponents d and g (R,) of W_jk = e^{-d (j - 1 - k)} e^{-g (k - 1)}, as for ALiBi.
        """
        decay, growth = jnp.maximum(self.rates, 0) / n_tokens, jnp.maximum(-self.rates, 0) / n_tokens
        j = jnp.arange(n_tokens, dtype=self.dtype)
        return (jnp.log(self.amplitudes) - decay)[:, None] + growth[:, None] * j[None, :], decay, growth

    def causal_average(
        self, theta: Angles, series: Float[Array, "kernel mode"], parities: tuple[str, ...] = ("odd",)
    ) -> Float[Array, "kernel token"]:
        """The same by a recurrence for each term, in linear time."""
        log_factors, *exponents = (x.astype(theta.dtype) for x in self.factors(theta.shape[0]))
        # For each token its largest term has factor one, so that growing terms do not overflow.
        factors = jnp.exp(log_factors - jax.lax.stop_gradient(jnp.max(log_factors, axis=0, keepdims=True)))
        sums = jax.vmap(lambda d, g: causal_sum(theta, series, (d, g), parities))(*exponents)
        totals = jnp.sum(factors * jax.vmap(lambda d, g: weight_totals(theta.shape[0], (d, g)))(*exponents), axis=0)
        return jnp.sum(factors[:, None, :] * sums, axis=0) / jnp.where(totals > 0, totals, 1)[None, :]


def _exponent(value: Any) -> Scalar:
    value = finite_scalar("exponent")(value)
    return check("exponent", value, "be at least 0", lambda p: p >= 0)


class PowerLaw(PositionalWeights):
    """Attention that decays as a power of the distance, b(s) = (s + scale)^{-exponent}.

    Attributes:
        exponent: p >= 0; zero is no bias.
        scale: distance c > 0 below which the power law flattens, in units of the prompt.

    Raises:
        ValueError: on a negative exponent, a scale that is not positive, or b(0) / b(1) above e^80.
    """

    exponent: Scalar = eqx.field(converter=_exponent)
    scale: Scalar = eqx.field(converter=positive_scalar("scale"))

    def __check_init__(self):
        if is_concrete(self.exponent, self.scale):
            # NumPy: under `jax.jit` numbers that are known stay known.
            exponent, scale = np.asarray(self.exponent), np.asarray(self.scale)
            _check_range("exponent", float(exponent * np.log1p(1 / scale)))

    def log_weight(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """-p log(1 + s / c)."""
        return -self.exponent * jnp.log1p(distance / self.scale)

    def log_mass(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """log(c ((1 + sigma / c)^{1 - p} - 1) / (1 - p)), smooth through p = 1."""
        length = jnp.log1p(sigma / self.scale)
        half = (1 - self.exponent) * length / 2
        return jnp.log(self.scale) + jnp.log(length) + half + log_sinhc(half)

    @property
    def mean_distance(self) -> Scalar:
        """By Gauss quadrature in x = log(1 + s / c), where both integrands are entire."""
        x, gauss = (jnp.asarray(a, self.dtype) for a in _gauss(64))
        x = x * jnp.log1p(1 / self.scale)
        density = jax.nn.softmax((1 - self.exponent) * x + jnp.log(gauss))
        return jnp.sum(density * self.scale * jnp.expm1(x))

    @property
    def breaks(self) -> tuple[float, ...]:
        """Graded towards 0, down to the scale where it is known, else to 2^{-11}."""
        finest = 11
        if is_concrete(self.scale):
            finest = min(max(finest, math.ceil(-math.log2(float(self.scale)))), _FINEST_BREAK)
        return (0.0, *(2.0**-k for k in range(finest, -1, -1)))


class SplineWeights(PositionalWeights):
    """Any smooth positive weight: log b is the cubic spline through values at evenly spaced distances in [0, 1].

    The spline is not-a-knot, so that it reproduces cubics: adding -mu s to the values tilts b by e^{-mu s} exactly.

    Attributes:
        log_values: log b at the distances 0, 1 / (n - 1), ..., 1, (n,), n >= 4.

    Raises:
        ValueError: on fewer than 4 values, values that are not finite, or that differ by more than 80.
    """

    log_values: Float[Array, " knot"] = eqx.field(converter=finite_array("log_values"))

    def __check_init__(self):
        if self.log_values.ndim != 1 or self.log_values.size < 4:
            raise ValueError(
                "Argument `log_values` must be one-dimensional with at least 4 values, but has shape "
                f"{self.log_values.shape}."
            )
        if is_concrete(self.log_values):
            _check_range("log_values", float(np.ptp(np.asarray(self.log_values))))

    @property
    def knots(self) -> Float[Array, " knot"]:
        """The distances 0, 1 / (n - 1), ..., 1."""
        return jnp.linspace(0, 1, self.log_values.size, dtype=self.dtype)

    @property
    def breaks(self) -> tuple[float, ...]:
        """The knots, where the third derivative jumps."""
        return tuple(np.linspace(0, 1, self.log_values.size).tolist())

    def _piece(self, s: Float[Array, "*shape"]) -> Array:
        return jnp.clip(jnp.floor(s * (self.log_values.size - 1)).astype(int), 0, self.log_values.size - 2)

    def _cubic(self, piece: Array, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The cubic of a piece at x in [0, 1] along it."""
        bends = jnp.asarray(_bends(self.log_values.size), self.dtype) @ self.log_values
        (left, right), (bend, next_bend) = ((v[piece], v[piece + 1]) for v in (self.log_values, bends))
        return (1 - x) * left + x * right - x * (1 - x) * ((2 - x) * bend + (1 + x) * next_bend) / 6

    def log_weight(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The spline."""
        piece = self._piece(distance)
        return self._cubic(piece, distance * (self.log_values.size - 1) - piece)

    def _moments(self) -> tuple[Scalar, Float[Array, "piece node"], Float[Array, "piece node"]]:
        """Gauss nodes of every piece in s, and the integrals' weights times b e^{-shift}, with that shift."""
        n_pieces = self.log_values.size - 1
        x, gauss = (jnp.asarray(a, self.dtype) for a in _gauss(_GAUSS_NODES))
        piece = jnp.broadcast_to(jnp.arange(n_pieces)[:, None], (n_pieces, x.size))
        x = jnp.broadcast_to(x[None, :], piece.shape)
        shift = jax.lax.stop_gradient(jnp.max(self.log_values))
        return shift, (piece + x) / n_pieces, jnp.exp(self._cubic(piece, x) - shift) * gauss[None, :] / n_pieces

    def log_mass(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Gauss quadrature: whole pieces, and the part of the last one."""
        shift, _, masses = self._moments()
        before = jnp.concatenate([jnp.zeros(1, self.dtype), jnp.cumsum(jnp.sum(masses, axis=1))])
        piece = self._piece(sigma)
        part = sigma * (self.log_values.size - 1) - piece
        x, gauss = (jnp.asarray(a, self.dtype) for a in _gauss(_GAUSS_NODES))
        nodes = jnp.multiply.outer(part, x)
        values = jnp.exp(self._cubic(jnp.broadcast_to(piece[..., None], nodes.shape), nodes) - shift)
        rest = part * jnp.matmul(values, gauss) / (self.log_values.size - 1)
        return shift + jnp.log(before[piece] + rest)

    @property
    def mean_distance(self) -> Scalar:
        """By the same quadrature."""
        _, s, masses = self._moments()
        return jnp.sum(s * masses) / jnp.sum(masses)

    def tilted(self, mu: Scalar) -> "SplineWeights":
        """The weights b(s) e^{-mu s}."""
        return SplineWeights(self.log_values - mu * self.knots)


def _check_range(name: str, log_range: float) -> None:
    if not log_range <= _LARGEST_RANGE:
        raise ValueError(
            f"Argument `{name}` must keep the largest weight below e^{_LARGEST_RANGE:g} times the smallest, "
            f"but gives e^{log_range:g}."
        )


@cache
def _gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    x, weights = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, weights / 2


@cache
def _bends(n: int) -> np.ndarray:
    """Matrix from n values to the second derivatives, times spacing squared, of the not-a-knot spline."""
    left, right = np.zeros((n, n)), np.zeros((n, n))
    for i in range(1, n - 1):
        left[i, i - 1 : i + 2] = (1, 4, 1)
        right[i, i - 1 : i + 2] = (6, -12, 6)
    # The third derivative does not jump at the second knot, nor at the last but one.
    left[0, :3] = (1, -2, 1)
    left[-1, -3:] = (1, -2, 1)
    return np.linalg.solve(left, right)
