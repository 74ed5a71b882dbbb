"""Layers: what moves the tokens of a prompt, d x_j / dt = v_j(x). Their velocities add in `Sum`."""

import abc
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxkinetic._show import ShownModule
from jaxkinetic._types import check_type, finite_array
from jaxkinetic.model.space import Circle, Space, Tokens


class Layer(ShownModule):
    """Motion of the tokens of one prompt through depth.

    A new layer implements `velocity`; `pairwise_velocity` is its reference in tests, and `check_resolved` guards
    traced parameters.
    """

    @property
    def space(self) -> Space:
        """Where the tokens live."""
        return Circle()

    @abc.abstractmethod
    def velocity(self, tokens: Tokens, /) -> Tokens:
        """Velocity d x_j / dt of every token: (N,) for angles in radians, (N,), tangent vectors elsewhere."""

    def pairwise_velocity(self, tokens: Tokens, /) -> Tokens:
        """The same by the definition, over all pairs of tokens."""
        return self.velocity(tokens)

    def check_resolved(self, value: Array) -> Array:
        """Return ``value``; it fails at run time if traced parameters are beyond what the layer resolves."""
        return value

    def why_no_limit(self, uniform: bool) -> str | None:
        """Why no limit is known for uniform or for other prompts; None where there is one."""
        del uniform
        return f"the limit of {type(self).__name__} is not known"

    @property
    def memory_per_token(self) -> int:
        """About how many numbers a velocity holds for each token at once."""
        return 8

    @property
    def dtype(self) -> Any:
        """Precision of the parameters; JAX's default where there are none."""
        leaves = jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))
        return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


class Sum(Layer):
    """Layers that act at once, such as the heads of one attention layer: v = sum_h share_h v_h.

    Attributes:
        layers: layers v_h, H >= 1.
        shares: weight of each, (H,), of any sign; one each if not given.

    Raises:
        ValueError: if there is no layer, if one is none, or if the number of shares differs.

    Example:
        >>> import jaxkinetic as jk
        >>> recent, early = (jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(lam)) for lam in (80.0, -5.0))
        >>> two_heads = jk.Sum([recent, early], shares=[0.3, 0.7])
    """

    layers: tuple[Layer, ...]
    shares: Float[Array, " layer"]

    def __init__(self, layers: Sequence[Layer], shares: Any = None):
        self.layers = tuple(layers) if isinstance(layers, Iterable) else (layers,)
        if not self.layers:
            raise ValueError("Argument `layers` must hold at least one layer, but is empty.")
        for layer in self.layers:
            check_type("layers", layer, Layer)
            if layer.space != self.layers[0].space:
                both = f"{self.layers[0].space} and {layer.space}"
                raise ValueError(f"Argument `layers` must move tokens of one space, but has {both}.")
        self.shares = finite_array("shares")(jnp.ones(len(self.layers)) if shares is None else shares)
        if self.shares.shape != (len(self.layers),):
            raise ValueError(
                f"Argument `shares` must have shape ({len(self.layers)},), one for each layer, but has shape "
                f"{self.shares.shape}."
            )

    @property
    def space(self) -> Space:
        """That of every layer."""
        return self.layers[0].space

    def velocity(self, tokens: Tokens, /) -> Tokens:
        """sum_h share_h v_h(x)."""
        return self._total([layer.velocity(tokens) for layer in self.layers], tokens)

    def pairwise_velocity(self, tokens: Tokens, /) -> Tokens:
        """The same over all pairs of tokens."""
        return self._total([layer.pairwise_velocity(tokens) for layer in self.layers], tokens)

    def check_resolved(self, value: Array) -> Array:
        """Check every layer."""
        for layer in self.layers:
            value = layer.check_resolved(value)
        return value

    @property
    def memory_per_token(self) -> int:
        """That of the largest layer, and a velocity for each."""
        return max(layer.memory_per_token for layer in self.layers) + len(self.layers)

    def _total(self, velocities: list[Array], tokens: Tokens) -> Tokens:
        shares = self.shares.astype(tokens.dtype).reshape(-1, *[1] * tokens.ndim)
        return jnp.sum(shares * jnp.stack(velocities), axis=0)
