"""Spaces: what a token is, a point on the circle or on a sphere, and how it moves there."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import PRNGKeyArray, check, check_at_least, check_finite

Tokens = Float[Array, "token *coordinate"]
_TWO_PI = 2 * np.pi


class Space(eqx.Module):
    """A space of tokens. A prompt of N tokens is an array (N,) of angles, or (N, d) of points in R^d."""

    @abc.abstractmethod
    def check(self, name: str, tokens: Any) -> Any:
        """Return a prompt of at least two tokens of this space; it carries the checks of traced ones."""

    @abc.abstractmethod
    def to_tangent(self, tokens: Tokens, vectors: Tokens) -> Tokens:
        """The part of vectors that moves tokens within the space."""

    @abc.abstractmethod
    def retract(self, tokens: Tokens, steps: Tokens) -> Tokens:
        """Tokens moved by steps, back in the space."""

    @abc.abstractmethod
    def distance(self, one: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
        """Length of the shortest path from each token to the other, in [0, pi]."""

    @abc.abstractmethod
    def uniform(self, key: PRNGKeyArray, n_tokens: int) -> Tokens:
        """Draw independent tokens, uniform on the space."""


class Circle(Space):
    """Angles in radians, not wrapped.

    >>> import jax.numpy as jnp
    >>> import jaxkinetic as jk
    >>> jk.Circle().distance(jnp.array([0.1]), jnp.array([6.2])).round(4)
    Array([0.1832], dtype=float64)
    """

    def check(self, name: str, tokens: Any) -> Any:
        """A one-dimensional floating-point array of at least two finite angles."""
        return check_finite(name, _of_shape(name, tokens, "(n_tokens,)", ()))

    def to_tangent(self, tokens: Tokens, vectors: Tokens) -> Tokens:
        """Every rate of an angle moves it on the circle."""
        del tokens
        return vectors

    def retract(self, tokens: Tokens, steps: Tokens) -> Tokens:
        """Theta + step."""
        return tokens + steps

    def distance(self, one: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
        """The angle between them, from 0 to pi."""
        away = jnp.mod(one - other, _TWO_PI)
        return jnp.minimum(away, _TWO_PI - away)

    def uniform(self, key: PRNGKeyArray, n_tokens: int) -> Tokens:
        """Angles in [0, 2 pi)."""
        check_at_least("n_tokens", n_tokens, 2)
        return jax.random.uniform(key, (n_tokens,), maxval=_TWO_PI)


class Sphere(Space):
    """Unit vectors in R^d: the sphere S^{d-1}.

    >>> import jax
    >>> import jaxkinetic as jk
    >>> jk.Sphere(3).uniform(jax.random.key(0), 8).shape
    (8, 3)

    Attributes:
        dimension: d >= 2.
    """

    dimension: int = eqx.field(static=True)

    def __check_init__(self):
        check_at_least("dimension", self.dimension, 2)

    def check(self, name: str, tokens: Any) -> Any:
        """A floating-point array (N, d) of at least two unit vectors."""
        shaped = _of_shape(name, tokens, f"(n_tokens, {self.dimension})", (self.dimension,))
        slack = 8 * float(jnp.finfo(shaped.dtype).eps) ** 0.5
        far = lambda x: abs((x * x).sum(-1) - 1) <= slack  # noqa: E731
        return check(name, check_finite(name, shaped), "hold vectors of length 1", far)

    def to_tangent(self, tokens: Tokens, vectors: Tokens) -> Tokens:
        """P_x v = v - <x, v> x."""
        return vectors - jnp.sum(tokens * vectors, axis=-1, keepdims=True) * tokens

    def retract(self, tokens: Tokens, steps: Tokens) -> Tokens:
        """(x + step) / |x + step|."""
        moved = tokens + steps
        return moved / jnp.linalg.norm(moved, axis=-1, keepdims=True)

    def distance(self, one: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
        """Arc length 2 atan2(|x - y|, |x + y|), right to rounding near 0 and near pi."""
        apart, together = (jnp.linalg.norm(x, axis=-1) for x in (one - other, one + other))
        return 2 * jnp.arctan2(apart, together)

    def uniform(self, key: PRNGKeyArray, n_tokens: int) -> Tokens:
        """Normal vectors, scaled to length 1."""
        check_at_least("n_tokens", n_tokens, 2)
        drawn = jax.random.normal(key, (n_tokens, self.dimension))
        return drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)


def _of_shape(name, tokens, shape, rest):
    found, dtype = np.shape(tokens), getattr(tokens, "dtype", None)
    if len(found) != 1 + len(rest) or found[1:] != rest:
        raise ValueError(
            f"Argument `{name}` must have shape {shape}, but has shape {found}. For many prompts use `jax.vmap`."
        )
    if found[0] < 2:
        raise ValueError(f"Argument `{name}` must hold at least 2 tokens, but holds {found[0]}.")
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"Argument `{name}` must be real floating-point, but has dtype {dtype}.")
    return tokens
