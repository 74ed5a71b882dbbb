"""Interaction kernels on the circle and their Fourier coefficients.

A kernel w is even and 2 pi-periodic. Fourier coefficients are taken against d theta / 2 pi,

    w(theta) = w^(0) + 2 sum_{n >= 1} w^(n) cos(n theta),

and the growth rate of mode n in the correlation equation (1.19) is a_n = n^2 w^(n).
"""

import abc
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import ShownModule
from jaxkinetic._types import (
    Scalar,
    as_float,
    check,
    check_at_least,
    check_finite,
    check_function,
    check_positive,
    check_positive_number,
    check_scalar,
    finite_array,
    is_concrete,
    round_up,
)

_MODES_PER_STEP = 4
_LARGEST_TRACED = 16.0


class Kernel(ShownModule):
    """An even interaction kernel w on the circle, resolved by a static number of Fourier modes."""

    @property
    @abc.abstractmethod
    def n_modes(self) -> int:
        """Number K of Fourier modes that resolve w' to rounding."""

    @property
    def has_signed_rates(self) -> bool:
        """Whether growth rates a_n may be negative."""
        return True

    @abc.abstractmethod
    def __call__(self, theta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Evaluate w(theta) without its Fourier series; angles in radians."""

    @abc.abstractmethod
    def coefficients(self) -> Float[Array, " mode"]:
        """Fourier coefficients w^(n) for n = 1..K."""

    @abc.abstractmethod
    def is_resolved(self) -> Array:
        """Whether K modes resolve this kernel; for traced parameters the answer is traced as well."""

    def derivative(self, theta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Evaluate w'(theta) without its Fourier series; angles in radians."""
        return jax.jvp(self, (theta,), (jnp.ones_like(theta),))[1]

    def growth_rates(self) -> Float[Array, " mode"]:
        """Growth rates a_n = n^2 w^(n) of (1.19) for n = 1..K.

        Of either sign, they are zero where w^(n) lies below the rounding of the largest coefficient: there its
        sign, which decides whether S_t diverges at the start of the prompt, means nothing.
        """
        coefficients = self.coefficients()
        if self.has_signed_rates:
            size = jnp.abs(coefficients)
            coefficients = jnp.where(size > jnp.finfo(size.dtype).eps * jnp.max(size), coefficients, 0.0)
        return jnp.arange(1, self.n_modes + 1) ** 2 * coefficients


def _check_sharpness(beta: Any) -> Any:
    check_scalar("beta", beta)
    beta = check_positive("beta", beta)
    dtype = as_float(beta).dtype
    largest = _largest_sharpness(dtype)
    return check("beta", beta, f"be at most {largest} in {dtype}, as e^beta overflows", lambda b: b <= largest)


def _largest_sharpness(dtype: jnp.dtype) -> int:
    # A margin of e^9 is left for growth rates, about sqrt(beta) e^beta, and for sums of them.
    return math.floor(math.log(jnp.finfo(dtype).max)) - 9


class ExpCosine(Kernel):
    """The paper's kernel w_beta(theta) = e^{beta cos(theta)} (1.3), with w^(n) = I_n(beta).

    Attributes:
        beta: sharpness of attention, dimensionless, positive and at most 700, in single precision 79.
        n_modes: number of Fourier modes; by default as many as ``beta`` and its precision need, and enough for
            beta = 16 where ``beta`` is traced. Traced values beyond are refused at run time: choose ``n_modes`` for
            the largest beta in play with `required_modes`.

    Raises:
        ValueError: if beta is out of range or ``n_modes`` does not resolve it.
    """

    beta: Scalar
    _n_modes: int = eqx.field(static=True)

    def __init__(self, beta: float | Array, n_modes: int | None = None):
        beta, known = _check_sharpness(beta), is_concrete(beta)
        check_sensible(beta=beta)
        self.beta = as_float(beta)
        needed = required_modes(float(beta) if known else _LARGEST_TRACED, self.beta.dtype)
        if n_modes is None:
            n_modes = round_up(needed, _MODES_PER_STEP)
        check_at_least("n_modes", n_modes, 1)
        if known and n_modes < needed:
            raise ValueError(
                f"Argument `n_modes` must be at least {needed} to resolve beta = {float(beta):g} "
                f"in {self.beta.dtype}, but is {n_modes}."
            )
        self._n_modes = int(n_modes)

    @property
    def n_modes(self) -> int:
        """Number K of Fourier modes."""
        return self._n_modes

    @property
    def has_signed_rates(self) -> bool:
        """Every I_n(beta) is positive."""
        return False

    def __call__(self, theta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Evaluate e^{beta cos(theta)}; angles in radians."""
        return jnp.exp(self.beta * jnp.cos(theta))

    def coefficients(self) -> Float[Array, " mode"]:
        """Modified Bessel functions I_n(beta) for n = 1..K."""
        return bessel_in(self.beta, self.n_modes)[1:]

    def is_resolved(self) -> Array:
        """Whether the last mode carries no more than rounding: K >= `required_modes` of a traced beta."""
        n = jnp.arange(1, self.n_modes + 2)
        strength = n * _relative_bessel(self.beta, self.n_modes + 1)[: self.n_modes + 1]
        decayed = strength[-1] <= 4 * jnp.finfo(strength.dtype).eps * jnp.sum(strength)
        return decayed & (self.beta <= _largest_sharpness(self.beta.dtype))


class FourierKernel(Kernel):
    """A kernel given by its Fourier coefficients, w(theta) = 2 sum_n w^(n) cos(n theta).

    Attributes:
        values: coefficients w^(n) for n = 1..K, of any sign. The mean w^(0) moves nothing.
    """

    values: Float[Array, " mode"] = eqx.field(converter=finite_array("values"))

    def __check_init__(self):
        if self.values.ndim != 1 or self.values.size == 0:
            raise ValueError(
                f"Argument `values` must be a non-empty one-dimensional array, but has shape {self.values.shape}."
            )

    @property
    def n_modes(self) -> int:
        """Number K of Fourier modes."""
        return self.values.shape[0]

    def __call__(self, theta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Sum the series; angles in radians."""
        n = jnp.arange(1, self.n_modes + 1)
        return 2 * jnp.cos(jnp.multiply.outer(theta, n)) @ self.values

    def coefficients(self) -> Float[Array, " mode"]:
        """The coefficients as given."""
        return self.values

    def is_resolved(self) -> Array:
        """A finite series is its own resolution."""
        return jnp.asarray(True)


class SmoothKernel(Kernel):
    """A kernel given by a smooth even 2 pi-periodic function of the angle.

    Attributes:
        function: theta -> w(theta), acting elementwise on arrays. An equinox module may carry parameters.
        n_modes: number of Fourier modes; by default the smallest that resolves the function.

    Raises:
        ValueError: if the function is not even, not finite, or needs more modes than given (or than 256).
    """

    function: Callable[[Array], Array]
    _n_modes: int = eqx.field(static=True)

    def __init__(self, function: Callable[[Array], Array], n_modes: int | None = None):
        check_function("function", function)
        self.function = function
        if n_modes is not None:
            check_at_least("n_modes", n_modes, 1)
        largest = 256
        samples = _fourier(function, largest)
        if not is_concrete(samples):
            if n_modes is None:
                raise ValueError("Argument `n_modes` must be given when the kernel's parameters are traced.")
            self._n_modes = n_modes
            return
        check_finite("function", samples)
        theta = jnp.linspace(0.1, 3.0, 64)
        value, mirrored = np.asarray(function(theta)), np.asarray(function(-theta))
        tolerance = 64 * np.finfo(value.dtype).eps * np.abs(value).max()
        if np.abs(value - mirrored).max() > tolerance:
            raise ValueError("Argument `function` must be even, but function(-theta) differs from function(theta).")
        strength = np.asarray(_strengths(samples, jnp.abs(value).max()))
        tail = np.cumsum(strength[::-1])[::-1]
        negligible = tail <= 64 * np.finfo(value.dtype).eps * np.maximum(strength.sum(), np.abs(value).max())
        if not negligible[-1]:
            raise ValueError(
                f"Argument `function` must be smooth and 2 pi-periodic, but {largest} modes do not resolve it."
            )
        needed = max(int(np.argmax(negligible)), 1)
        if n_modes is not None and n_modes < needed:
            raise ValueError(
                f"Argument `n_modes` must be at least {needed} to resolve the function, but is {n_modes}."
            )
        self._n_modes = round_up(needed, _MODES_PER_STEP) if n_modes is None else int(n_modes)

    @property
    def n_modes(self) -> int:
        """Number K of Fourier modes."""
        return self._n_modes

    def __call__(self, theta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Evaluate the function; angles in radians."""
        return self.function(theta)

    def coefficients(self) -> Float[Array, " mode"]:
        """Fourier coefficients by the trapezoidal rule, which converges spectrally; zero below its rounding."""
        found = _fourier(self.function, self.n_modes)
        largest = jnp.max(jnp.abs(self.function(jnp.linspace(0.0, jnp.pi, 64))))
        return jnp.where(jnp.abs(found) > jnp.finfo(found.dtype).eps * largest, found, 0.0)

    def is_resolved(self) -> Array:
        """Whether the coefficients have decayed to rounding at mode K."""
        samples = _fourier(self.function, 2 * self.n_modes)
        largest = jnp.max(jnp.abs(self.function(jnp.linspace(0.0, jnp.pi, 64))))
        strength = _strengths(samples, largest)
        eps = jnp.finfo(strength.dtype).eps
        scale = jnp.maximum(jnp.sum(strength), largest)
        return jnp.sum(strength[self.n_modes :]) <= 64 * eps * scale


def required_modes(beta: float, dtype: jnp.dtype | type | None = None) -> int:
    """Number of modes that resolve w'_beta to four roundings: sum_{n > K} n I_n <= 4 eps sum_n n I_n.

    Args:
        beta: the largest sharpness in play.
        dtype: floating-point type of the computation; JAX's default if not given.

    Example:
        >>> [jk.required_modes(beta, np.float64) for beta in (0.1, 1.0, 10.0)]
        [9, 14, 31]
    """
    check_positive_number("beta", beta)
    try:
        eps = float(jnp.finfo(dtype or jnp.result_type(float)).eps)
    except (TypeError, ValueError):
        raise ValueError(f"Argument `dtype` must be a floating-point type, but is {dtype!r}.") from None
    # I_n falls like e^{-n^2 / (2 beta)} up to n ~ beta, and faster beyond.
    count = 32 + math.ceil(min(2 * beta, 64.0) + 12 * math.sqrt(beta))
    ratios, ratio = np.zeros(count), 0.0
    for n in range(count, 0, -1):
        ratio = beta / (2 * n + beta * ratio)
        ratios[n - 1] = ratio
    strength = np.arange(1, count + 1) * np.exp(np.cumsum(np.log(ratios)))
    tail = np.cumsum(strength[::-1])[::-1]
    return int(np.argmax(np.append(tail, 0.0) <= 4 * eps * strength.sum()))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
@partial(jax.jit, static_argnums=1)
def bessel_in(beta: Scalar, n_max: int) -> Float[Array, " order"]:
    """Modified Bessel functions I_n(beta), n = 0..n_max, each to full relative accuracy.

    Ratios r_n = I_n / I_{n-1} obey r_n = beta / (2 n + beta r_{n+1}), stable downwards (Miller), and
    e^beta = I_0 + 2 sum_n I_n fixes the scale. Smooth in beta, zero included.
    """
    relative = _relative_bessel(beta, n_max)
    i0 = jnp.exp(beta) / (1 + 2 * jnp.sum(relative))
    return i0 * jnp.concatenate([jnp.ones((1,), beta.dtype), relative[:n_max]])


@bessel_in.defjvp
def _bessel_in_jvp(n_max, primals, tangents):
    # I_n' = (I_{n-1} + I_{n+1}) / 2, I_{-1} = I_1
    (beta,), (dbeta,) = primals, tangents
    values = bessel_in(beta, n_max + 1)
    slopes = (jnp.concatenate([values[1:2], values[:n_max]]) + values[1:]) / 2
    return values[: n_max + 1], slopes * dbeta


def _relative_bessel(beta: Scalar, n_max: int) -> Float[Array, " order"]:
    """I_n(beta) / I_0(beta) for n = 1..n_max and the orders beyond that the recurrence starts from."""

    def downwards(ratio, n):
        ratio = beta / (2 * n + beta * ratio)
        return ratio, ratio

    orders = jnp.arange(n_max + 32, 0, -1.0, dtype=beta.dtype)
    _, ratios = jax.lax.scan(downwards, jnp.zeros_like(beta), orders)
    return jnp.cumprod(ratios[::-1])


def _strengths(coefficients: Float[Array, " mode"], largest: Float[Array, ""]) -> Float[Array, " mode"]:
    # n |w^(n)|, without what the transform's own rounding leaves in modes that the function does not have.
    size = jnp.abs(coefficients)
    floor = jnp.finfo(size.dtype).eps * largest
    return jnp.arange(1, size.size + 1) * jnp.where(size > floor, size, 0.0)


def _fourier(function: Callable[[Array], Array], n_modes: int) -> Float[Array, " mode"]:
    n_samples = 4 * n_modes + 4
    samples = function(2 * jnp.pi * jnp.arange(n_samples) / n_samples)
    return jnp.fft.rfft(samples).real[1 : n_modes + 1] / n_samples
