"""Laws of the initial tokens theta_j(0): independent over j, with a profile f_o(sigma, theta) of position (1.2).

Every law samples prompts and gives its Fourier modes hat f_o(sigma, n) = E[e^{-i n theta}] at sigma = j / N. What
else is known of it, its atoms or where its modes end, decides how its limit is solved and estimated.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Complex, Float, Shaped

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import ShownModule
from jaxkinetic._types import (
    Angles,
    PRNGKeyArray,
    Scalar,
    as_floats,
    check,
    check_at_least,
    check_finite,
    finite_array,
    is_concrete,
    positive_scalar,
)

_TWO_PI = 2 * np.pi
# Of a wrapped normal law: seven images hold all of a width below 1.5, eight modes all of one above.
_WIDE, _IMAGES, _WIDE_MODES = 1.5, 3, 8
# Rounding of a density that touches zero.
_LEAST_DENSITY = -1e-6
# Positions at which laws are checked: not evenly spaced, so that no wave hides between them.
_EVERYWHERE = np.sin(np.pi * np.arange(129) / 256) ** 2


class PromptLaw(ShownModule):
    """A law of independent initial tokens.

    A new law implements `sample` and `fourier`, and states what it has of the rest.
    """

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, n_tokens: int) -> Angles:
        """Draw one prompt of ``n_tokens`` angles in radians, token j from the law at sigma = j / N."""

    @abc.abstractmethod
    def fourier(self, sigma: Float[Array, ""], n_modes: int) -> Complex[Array, " mode"]:
        """Modes hat f_o(sigma, n), n = 1..K, of the law at position sigma."""

    @property
    def n_modes(self) -> int | None:
        """Order of the last Fourier mode of a smooth density, 0 if it is constant; None where modes do not end."""
        return None

    @property
    def is_uniform(self) -> bool:
        """Whether all tokens are uniform on the circle."""
        return self.n_modes == 0

    @property
    def atoms(self) -> Float[np.ndarray, " atom"] | None:
        """Angles of the atoms of a discrete law, radians, known when traced; None for other laws."""
        return None

    def atom_probabilities(self, sigma: Float[Array, ""]) -> Float[Array, " atom"]:
        """Probabilities of the atoms at position sigma."""
        raise NotImplementedError(f"{type(self).__name__} has no atoms.")

    def density(self, sigma: Float[Array, ""], theta: Float[Array, " angle"]) -> Float[Array, " angle"]:
        """Density f_o(sigma, theta) against d theta / 2 pi, where modes end."""
        if self.n_modes is None:
            raise NotImplementedError(f"{type(self).__name__} has no density of finitely many modes.")
        modes = self.fourier(sigma, max(self.n_modes, 1))
        n = jnp.arange(1, modes.size + 1)
        return 1 + 2 * jnp.real(jnp.exp(1j * jnp.outer(theta, n)) @ modes)

    def sampled_density(self, sigma: Float[Array, " position"] | None = None) -> Float[Array, "position angle"]:
        """Density at positions, or all over the prompt, on angles so many that no mode looks like another."""
        sigma = jnp.asarray(_EVERYWHERE) if sigma is None else sigma
        theta = jnp.linspace(0.0, _TWO_PI, max(257, 4 * (self.n_modes or 0) + 1))
        return jax.lax.map(lambda s: self.density(s, theta), sigma, batch_size=32)

    def arc_probability(self, sigma: Float[Array, ""], center: Scalar, half_width: float) -> Scalar | None:
        """Probability of angles within ``half_width`` of ``center``; None where only the modes tell it."""
        del sigma, center, half_width
        return None

    @property
    def has_jumps(self) -> bool:
        """Whether the law jumps in sigma, which polynomials in sigma do not resolve."""
        return False


class UniformPrompts(PromptLaw):
    """Independent tokens, uniform on the circle: f_o = 1."""

    def sample(self, key: PRNGKeyArray, n_tokens: int) -> Angles:
        """Draw one prompt of ``n_tokens`` uniform angles in [0, 2 pi)."""
        check_at_least("n_tokens", n_tokens, 2)
        check_sensible(n_tokens=n_tokens)
        return jax.random.uniform(key, (n_tokens,), maxval=_TWO_PI)

    @property
    def n_modes(self) -> int:
        """The density is constant."""
        return 0

    def fourier(self, sigma: Float[Array, ""], n_modes: int) -> Complex[Array, " mode"]:
        """All modes vanish."""
        del sigma
        return jnp.zeros(n_modes) * (1 + 0j)


class CodewordPrompts(PromptLaw):
    """Tokens from a vocabulary of M codewords at 2 pi m / M, with probabilities p_m(sigma).

    Attributes:
        probabilities: sigma -> (M,), the paper's p_m(sigma); or a constant array (M,).

    Raises:
        ValueError: if probabilities are negative, do not sum to one, or M < 2.
    """

    probabilities: Callable[[Array], Any]

    def __init__(self, probabilities: Callable[[Array], Any] | Array | np.ndarray | list[float]):
        if callable(probabilities):
            self.probabilities = probabilities
        else:
            given = as_floats("probabilities", probabilities)
            self.probabilities = _Constant(check_probabilities(given) if given.ndim == 1 else given)
        p = jax.vmap(self.atom_probabilities)(jnp.asarray(_EVERYWHERE))
        if p.ndim != 2 or p.shape[1] < 2:
            raise ValueError(
                "Argument `probabilities` must give at least 2 probabilities at a position, "
                f"but gives shape {p.shape[1:]}."
            )
        check_probabilities(p)

    def atom_probabilities(self, sigma: Float[Array, ""]) -> Float[Array, " word"]:
        """Probabilities p_m(sigma) as an array (M,), whatever form the callable returns them in."""
        return as_floats("probabilities", self.probabilities(sigma))

    @property
    def vocab_size(self) -> int:
        """Vocabulary size M."""
        return jax.eval_shape(self.atom_probabilities, jnp.asarray(0.5)).shape[0]

    @property
    def atoms(self) -> Float[np.ndarray, " word"]:
        """Angles 2 pi m / M of the codewords, m = 0..M-1."""
        return _TWO_PI * np.arange(self.vocab_size) / self.vocab_size

    def sample(self, key: PRNGKeyArray, n_tokens: int) -> Angles:
        """Draw one prompt of ``n_tokens`` codewords, as angles."""
        check_at_least("n_tokens", n_tokens, 2)
        check_sensible(n_tokens=n_tokens)
        logits = jnp.log(jax.vmap(self.atom_probabilities)(_positions(n_tokens)))
        return jnp.asarray(self.atoms, logits.dtype)[jax.random.categorical(key, logits)]

    def fourier(self, sigma: Float[Array, ""], n_modes: int) -> Complex[Array, " mode"]:
        """Modes sum_m p_m(sigma) e^{-i n 2 pi m / M}; they do not decay in n."""
        n = jnp.arange(1, n_modes + 1)
        return jnp.exp(-1j * jnp.outer(n, jnp.asarray(self.atoms))) @ (self.atom_probabilities(sigma) + 0j)


class DensityPrompts(PromptLaw):
    """Tokens with a smooth density on the circle, given by its Fourier modes.

    f_o(sigma, theta) = 1 + 2 Re sum_n hat f(sigma, n) e^{i n theta}, against d theta / 2 pi.

    Attributes:
        modes: sigma -> complex (K,), hat f(sigma, n) for n = 1..K; or a constant array (K,).

    Raises:
        ValueError: if the density goes negative somewhere.
    """

    modes: Callable[[Array], Array]

    def __init__(self, modes: Callable[[Array], Array] | Array | np.ndarray | list[complex]):
        self.modes = modes if callable(modes) else _Constant(_as_modes(modes))
        density = self.sampled_density()
        check_density(density)
        if not callable(modes) and not is_concrete(density):
            wrong = ~jnp.all(density >= _LEAST_DENSITY)
            self.modes = _Constant(
                eqx.error_if(_as_modes(modes), wrong, "Argument `modes` must be finite and give a density.")
            )

    @property
    def n_modes(self) -> int:
        """Number of modes K."""
        return jax.eval_shape(self._at, jnp.asarray(0.5)).shape[0]

    def _at(self, sigma: Float[Array, ""]) -> Complex[Array, " mode"]:
        modes = _as_modes(self.modes(sigma))
        if modes.ndim != 1 or modes.size == 0:
            raise ValueError(f"Argument `modes` must give shape (K,) at a position, but gives {modes.shape}.")
        return modes + 0j

    def sample(self, key: PRNGKeyArray, n_tokens: int) -> Angles:
        """Draw one prompt of ``n_tokens`` angles by inverting the distribution function, to rounding."""
        check_at_least("n_tokens", n_tokens, 2)
        check_sensible(n_tokens=n_tokens)
        uniform = jax.random.uniform(key, (n_tokens,))
        modes = jax.vmap(self._at)(_positions(n_tokens))
        n = jnp.arange(1, modes.shape[1] + 1)

        def distribution(theta):
            waves = modes * (jnp.exp(1j * jnp.outer(theta, n)) - 1) / (1j * n[None, :])
            return (theta + 2 * jnp.sum(jnp.real(waves), axis=1)) / _TWO_PI

        def halve(bracket, _):
            low, high = bracket
            middle = (low + high) / 2
            below = distribution(middle) < uniform
            return (jnp.where(below, middle, low), jnp.where(below, high, middle)), None

        bracket = (jnp.zeros_like(uniform), jnp.full_like(uniform, _TWO_PI))
        (low, high), _ = jax.lax.scan(halve, bracket, None, length=jnp.finfo(uniform.dtype).nmant + 3)
        return (low + high) / 2

    def fourier(self, sigma: Float[Array, ""], n_modes: int) -> Complex[Array, " mode"]:
        """The given modes, cut or padded with zeros to K."""
        modes = self._at(sigma)[:n_modes]
        return jnp.pad(modes, (0, n_modes - modes.shape[0]))


class ClusterPrompts(PromptLaw):
    """Consecutive stretches of the prompt near given angles, as in Figure 3.

    With C centres, token j lies in stretch ceil(C j / N) of 1..C, normally distributed round its centre.

    Attributes:
        centers: angles of the C clusters in reading order, radians.
        width: standard deviation of the angle within a cluster, radians.
    """

    centers: Float[Array, " cluster"] = eqx.field(converter=finite_array("centers"))
    width: Scalar = eqx.field(converter=positive_scalar("width"))

    def __check_init__(self):
        if self.centers.ndim != 1 or self.centers.size == 0:
            raise ValueError(
                f"Argument `centers` must be a non-empty one-dimensional array, but has shape {self.centers.shape}."
            )

    def sample(self, key: PRNGKeyArray, n_tokens: int) -> Angles:
        """Draw one prompt of ``n_tokens`` angles, consecutive tokens near the same centre."""
        check_at_least("n_tokens", n_tokens, 2)
        check_sensible(n_tokens=n_tokens)
        stretch = (jnp.arange(1, n_tokens + 1) * self.centers.size - 1) // n_tokens
        return self.centers[stretch] + self.width * jax.random.normal(key, (n_tokens,))

    def center(self, sigma: Float[Array, ""]) -> Scalar:
        """Centre c(sigma) of the stretch that holds position sigma, radians."""
        # C j / N may come out a rounding above an integer.
        shrink = 1 - 4 * jnp.finfo(jnp.result_type(sigma, float)).eps
        stretch = jnp.clip(jnp.ceil(sigma * self.centers.size * shrink).astype(int) - 1, 0, self.centers.size - 1)
        return self.centers[stretch]

    def fourier(self, sigma: Float[Array, ""], n_modes: int) -> Complex[Array, " mode"]:
        """Modes e^{-i n c(sigma) - n^2 width^2 / 2} of the wrapped normal law."""
        n = jnp.arange(1, n_modes + 1)
        return jnp.exp(-1j * n * self.center(sigma) - (n * self.width) ** 2 / 2)

    def arc_probability(self, sigma: Float[Array, ""], center: Scalar, half_width: float) -> Scalar:
        """Of the wrapped normal law, by images of the circle or, where it is wide, by its modes, to rounding."""
        distance = center - self.center(sigma)
        narrow = jnp.minimum(self.width, _WIDE)
        images = distance + _TWO_PI * jnp.arange(-_IMAGES, _IMAGES + 1)
        by_images = jnp.sum(ndtr((images + half_width) / narrow) - ndtr((images - half_width) / narrow))
        n = jnp.arange(1, _WIDE_MODES + 1)
        waves = jnp.exp(-((n * self.width) ** 2) / 2) * jnp.sin(n * half_width) / n * jnp.cos(n * distance)
        by_modes = (half_width + 2 * jnp.sum(waves)) / math.pi
        return jnp.where(self.width < _WIDE, by_images, by_modes)

    @property
    def has_jumps(self) -> bool:
        """The centre jumps from one stretch to the next."""
        return True


class _Constant(eqx.Module):
    value: Array

    def __call__(self, sigma: Array) -> Array:
        del sigma
        return self.value


def check_probabilities(p: Float[Array, "*position word"]) -> Float[Array, "*position word"]:
    """Return probabilities that are not negative and sum to one."""
    tolerance = 1e-10 if p.dtype == np.float64 else 1e-5
    p = check("probabilities", check_finite("probabilities", p), "not be negative", lambda x: x >= 0)
    if not is_concrete(p):
        return check("probabilities", p, "sum to one", lambda x: abs(x.sum(axis=-1) - 1) <= tolerance)
    sums = np.asarray(p).sum(axis=-1).ravel()
    worst = sums[np.argmax(np.abs(sums - 1))]
    if abs(worst - 1) > tolerance:
        raise ValueError(f"Argument `probabilities` must sum to one, but sums to {worst:.12g}.")
    return p


def check_density(values: Float[Array, "position angle"]) -> None:
    """Refuse a density that goes negative."""
    check_finite("modes", values)
    if is_concrete(values) and values.min() < _LEAST_DENSITY:
        raise ValueError(f"Argument `modes` must give a density, but it goes negative: {float(values.min()):g}.")


def _as_modes(modes: Any) -> Shaped[Array, "..."]:
    try:
        return jnp.asarray(modes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Argument `modes` must give numbers, but gives {modes!r}.") from error


def _positions(n_tokens: int) -> Float[Array, " token"]:
    # Divided by NumPy: XLA multiplies by 1 / N, which puts tokens past a jump of the law at their own position.
    return jnp.asarray(np.arange(1, n_tokens + 1) / n_tokens, dtype=jnp.result_type(float))
