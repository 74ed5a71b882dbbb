"""Causal positional weights: finite, omega_{jk} (2.1), and in the limit, the graphon k(sigma, sigma') (1.9).

A positional encoding multiplies the attention of token j to token k < j by b((j - k) / N) and normalises over k:

    omega_{jk} = b((j - k) / N) / sum_{l < j} b((j - l) / N),    k(sigma, sigma') = b(sigma - sigma') / B(sigma),

with B(sigma) = int_0^sigma b. A token does not attend to itself. `ALiBi` is the paper's b; `weight_families` has
others.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import ShownModule
from jaxkinetic._types import Angles, Scalar, check_at_least, finite_scalar
from jaxkinetic.sums import causal_sum, convolved_average, weight_totals


class PositionalWeights(ShownModule):
    """Causal weights given by a positive function b of the distance s = (j - k) / N in [0, 1]."""

    @abc.abstractmethod
    def log_weight(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of b(s), elementwise, up to a constant that cancels in the normalisation."""

    @abc.abstractmethod
    def log_mass(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of B(sigma) = int_0^sigma b(s) ds, elementwise, with the same constant."""

    @property
    @abc.abstractmethod
    def mean_distance(self) -> Scalar:
        """Mean attention distance of the last token, int_0^1 s b(s) ds / int_0^1 b(s) ds."""

    @property
    def exponential_rate(self) -> Scalar | None:
        """Rate lam where b(s) = e^{-lam s}, for which closed forms hold; None for other weights."""
        return None

    @property
    def breaks(self) -> tuple[float, ...]:
        """Distances, from 0 to 1, between which b is smooth: where quadrature must not step across."""
        return (0.0, 1.0)

    @property
    def dtype(self) -> Any:
        """Precision of the parameters."""
        return jnp.result_type(*jax.tree.leaves(eqx.filter(self, eqx.is_array)))

    def weights(self, n_tokens: int) -> Float[Array, "token token"]:
        """All weights omega_{jk} (2.1), normalised by (1.2), as a dense matrix (j, k); row one is zero."""
        check_at_least("n_tokens", n_tokens, 2)
        check_sensible(n_tokens=n_tokens)
        j = jnp.arange(n_tokens)
        causal = j[None, :] < j[:, None]
        distance = (jnp.maximum(j[:, None] - j[None, :], 0) / n_tokens).astype(self.dtype)
        logits = jnp.where(causal, self.log_weight(distance), -jnp.inf)
        return jnp.where(causal, jax.nn.softmax(logits.at[0, 0].set(0.0), axis=1), 0.0)

    def graphon(self, sigma: Float[Array, ""], source: Float[Array, ""]) -> Float[Array, ""]:
        """Limiting kernel k(sigma, sigma') = b(sigma - sigma') / B(sigma) (1.9) for sigma' <= sigma, else 0.

        Args:
            sigma: reader's position in (0, 1].
            source: earlier position sigma'.
        """
        exponent = self.log_weight(jnp.maximum(sigma - source, 0)) - self.log_mass(sigma)
        return jnp.where(source <= sigma, jnp.exp(exponent), 0.0)

    def causal_average(
        self, theta: Angles, series: Float[Array, "kernel mode"], parities: tuple[str, ...] = ("odd",)
    ) -> Float[Array, "kernel token"]:
        """Average trigonometric series over all earlier tokens, sum_{k<j} omega_{jk} h(theta_j - theta_k).

        Any weights take about one FFT over all tokens for each mode; a subclass may know a faster sum.

        Args:
            theta: angles in radians, (N,).
            series: coefficients c_n of each h, (H, K).
            parities: for each h ``"even"``, sum_n c_n cos(n x), or ``"odd"``, sum_n c_n sin(n x).

        Returns:
            One average per series and token, (H, N), in the precision of the angles; zero for the first token.
        """
        lags = jnp.arange(theta.shape[0], dtype=self.dtype) / theta.shape[0]
        return convolved_average(theta, series, self.log_weight(lags).astype(theta.dtype), parities)


class ALiBi(PositionalWeights):
    """Attention with linear biases, b(u) = e^{-lam u}; lam of any sign, zero included.

    Attributes:
        lam: strength of the bias towards recent tokens (positive) or early ones (negative).

    Raises:
        ValueError: if lam is not a finite scalar.
    """

    lam: Scalar = eqx.field(converter=finite_scalar("lam"))

    def __check_init__(self):
        check_sensible(lam=self.lam)

    def log_weight(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """-lam s."""
        return -self.lam * distance

    def log_mass(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """log((1 - e^{-lam sigma}) / lam), smooth through lam = 0."""
        rising, size = sign_and_size(self.lam)
        return jnp.log(sigma) + jnp.where(rising, 0.0, size) * sigma + log_mean_decay(size * sigma)

    @property
    def mean_distance(self) -> Scalar:
        """1 / lam - 1 / (e^lam - 1), smooth through lam = 0."""
        rising, size = sign_and_size(self.lam)
        mean = -jax.jvp(log_mean_decay, (size,), (jnp.ones_like(size),))[1]
        return jnp.where(rising, mean, 1 - mean)

    @property
    def exponential_rate(self) -> Scalar:
        """The strength lam itself."""
        return self.lam

    def exponents(self, n_tokens: int) -> tuple[Scalar, Scalar]:
        """Exponents (d, g) with e^{-lam (j - k) / N} proportional in k to e^{-d (j - 1 - k)} e^{-g (k - 1)}.

        d = max(lam, 0) / N decays from the reader backwards, g = max(-lam, 0) / N from the first token
        on: no factor exceeds one, so that no sum over- or underflows, whatever lam.
        """
        return jnp.maximum(self.lam, 0) / n_tokens, jnp.maximum(-self.lam, 0) / n_tokens

    def causal_average(
        self, theta: Angles, series: Float[Array, "kernel mode"], parities: tuple[str, ...] = ("odd",)
    ) -> Float[Array, "kernel token"]:
        """The same by a recurrence, in linear time."""
        decay, growth = self.exponents(theta.shape[0])
        exponents = decay.astype(theta.dtype), growth.astype(theta.dtype)
        totals = weight_totals(theta.shape[0], exponents)
        return causal_sum(theta, series, exponents, parities) / jnp.where(totals > 0, totals, 1)[None, :]

    def graphon(self, sigma: Float[Array, ""], source: Float[Array, ""]) -> Float[Array, ""]:
        """Limiting kernel k(sigma, sigma') (1.9), smooth through lam = 0.

        k = lam e^{-lam (sigma - sigma')} / (1 - e^{-lam sigma}) for sigma' <= sigma, else 0.

        Args:
            sigma: reader's position in (0, 1].
            source: earlier position sigma'.
        """
        inside = source <= sigma
        return jnp.where(
            inside, jnp.exp(_log_density(self.lam, sigma, jnp.where(inside, source, sigma))) / sigma, 0.0
        )


def log_graphon(lam: Scalar, sigma: Scalar, source: Scalar) -> Scalar:
    """The logarithm of ALiBi's k(sigma, sigma') for sigma' <= sigma, where k itself may leave the range."""
    return _log_density(lam, sigma, source) - jnp.log(sigma)


def _log_density(lam, sigma, source):
    # For lam < 0, k = |lam| e^{-|lam| sigma'} / (1 - e^{-|lam| sigma}): no large exponents cancel.
    rising, size = sign_and_size(lam)
    return -size * jnp.where(rising, sigma - source, source) - log_mean_decay(size * sigma)


def require_alibi(positions: PositionalWeights, what: str, instead: str) -> ALiBi:
    """Return exponential weights as ALiBi; raise for others, for which ``what`` does not hold."""
    rate = positions.exponential_rate
    if rate is None:
        raise ValueError(
            f"Argument `positions` must be ALiBi for {what}, but is {type(positions).__name__}. {instead}"
        )
    return positions if isinstance(positions, ALiBi) else ALiBi(rate)


def sign_and_size(lam: Scalar) -> tuple[Bool[Array, ""], Scalar]:
    """Whether lam >= 0, and |lam|.

    Formulas by the sign of lam are one smooth function of it. With the size taken from the right at lam = 0, where
    `jnp.abs` has slope zero, all their derivatives are right.
    """
    rising = lam >= 0
    return rising, jnp.where(rising, lam, -lam)


def log_mean_decay(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log((1 - e^{-x}) / x) for x >= 0, the mean of e^{-x u} over u in [0, 1]; smooth through x = 0."""
    large = x > 1
    near, far = jnp.where(large, 0.5, x), jnp.where(large, x, 2.0)
    return jnp.where(large, jnp.log(-jnp.expm1(-far)) - jnp.log(far), log_sinhc(near / 2) - near / 2)


def log_sinhc(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(sinh(u) / u), even and smooth, without overflow."""
    large = jnp.abs(u) > 1
    x = jnp.where(large, 0.5, u) ** 2
    series = jnp.zeros_like(x)
    for coefficient in reversed(_LOG_SINHC_SERIES):
        series = coefficient + x * series
    y = jnp.where(large, jnp.abs(u), 2.0)
    asymptotic = y + jnp.log1p(-jnp.exp(-2 * y)) - jnp.log(2 * y)
    return jnp.where(large, asymptotic, x * series)


# 4^m B_2m / (2m (2m)!), m = 1..18: Taylor coefficients of log(sinh(u) / u) in u^2; radius of convergence pi^2.
_LOG_SINHC_SERIES = (
    0.16666666666666666,
    -0.005555555555555556,
    0.0003527336860670194,
    -2.6455026455026456e-05,
    2.1377799155576935e-06,
    -1.803670234005331e-07,
    1.5661391322766983e-08,
    -1.3884130493737299e-09,
    1.2504359176004997e-10,
    -1.1402575602296091e-11,
    1.0502923908637557e-12,
    -9.754877841593701e-14,
    9.123468230859098e-15,
    -8.5837197618956095e-16,
    8.117318009727789e-17,
    -7.710527514116273e-18,
    7.352844932712002e-19,
    -7.036101210390652e-20,
)
