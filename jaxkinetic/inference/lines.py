"""Offset and contrast of a curve, eliminated: the best line through a given shape.

    accuracy = c0 + c1 s,    c1 >= 0,

with s the shape of the profile at the curve's positions. Both enter linearly, so that for a given shape their best
values are those of a weighted straight line, and what is left depends on the theory's parameters alone (variable
projection). Functions act on NumPy arrays as on JAX arrays, over the last axis.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Line(NamedTuple):
    """The best line of each curve, accuracy = mean + slope (s - center), and its uncertainty; fields are (...).

    Attributes:
        mean: weighted mean accuracy.
        center: weighted mean of s.
        free_slope: coefficient of s if it might be negative.
        spread: weighted sum of squares of s about its center.
        weight: sum of the weights.
    """

    mean: Any
    center: Any
    free_slope: Any
    spread: Any
    weight: Any

    @property
    def slope(self) -> Any:
        """The contrast c1, not negative."""
        return self.free_slope * (self.free_slope > 0)

    @property
    def offset(self) -> Any:
        """The accuracy c0 where s = 0."""
        return self.mean - self.slope * self.center

    def at(self, values: Any) -> Any:
        """Accuracy on the line where the shape has given values, (..., P)."""
        return self.mean[..., None] + self.slope[..., None] * (values - self.center[..., None])

    def beside(self, values: Any, directions: Any, weight: Any) -> Any:
        """Part of changes of the shape, (..., P), that no change of offset and slope can follow.

        It is orthogonal to constants and to the shape itself under the weights.
        """
        distance = values - self.center[..., None]
        away = directions - (weight * directions).sum(-1, keepdims=True) / self.weight[..., None]
        along = (weight * distance * away).sum(-1, keepdims=True) / self.spread[..., None]
        return away - along * distance

    def extremes(self, values: Any, left: Any) -> tuple[Any, Any]:
        """Lowest and highest accuracy, (P,), that lines with c1 >= 0 reach, for one curve.

        Args:
            values: the shape where the accuracy is wanted, (P,).
            left: rise of chi-squared above that of the best line that is allowed; with 0 both are the best line.
        """
        distance = values - self.center
        # Without the bound on the slope, this much more would be left, and the free line would be the best.
        left = left + self.spread * jnp.minimum(self.free_slope, 0) ** 2
        tilt = distance / jnp.sqrt(self.spread)
        error = jnp.hypot(1 / jnp.sqrt(self.weight), tilt)
        flat = jnp.sqrt(jnp.maximum(left - self.spread * self.free_slope**2, 0) / self.weight)

        def end(side):
            slope = self.free_slope + side * jnp.sqrt(left / self.spread) * tilt / error
            sloped = self.mean + self.free_slope * distance + side * jnp.sqrt(left) * error
            return jnp.where(slope >= 0, sloped, self.mean + side * flat)

        return end(-1), end(1)


def best_line(values: Any, accuracy: Any, weight: Any) -> Line:
    """Weighted least-squares line of accuracy on the shape with slope >= 0.

    Args:
        values: the shape s at the curve's positions, (..., P).
        accuracy: measured fractions, (..., P).
        weight: inverse variances, (..., P); zero where a rectangle is padded.
    """
    xp = values.__array_namespace__()
    total = weight.sum(-1)
    center = (weight * values).sum(-1) / total
    mean = (weight * accuracy).sum(-1) / total
    distance = values - center[..., None]
    spread = (weight * distance**2).sum(-1)
    covariance = (weight * distance * (accuracy - mean[..., None])).sum(-1)
    # A shape without spread has no slope; the guard is far below any spread that matters.
    spread = xp.maximum(spread, xp.finfo(values.dtype).tiny ** 0.5)
    return Line(mean, center, covariance / spread, spread, total)
