"""Chi-squared of measured curves: accuracy(sigma_0) = c0 + c1 s(sigma_0; parameters), s the shape of a theory.

c0 and c1 >= 0 belong to each curve and are eliminated (see `lines`): the theory's parameters alone are left.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar
from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.lines import Line, best_line
from jaxkinetic.theories import Theory

Values = Float[Array, " parameter"]


class CurveData(eqx.Module):
    """Curves as rectangular arrays, padded with points of weight zero, and a theory of them.

    Attributes:
        sources: positions sigma_0, (C, P).
        accuracy: fractions, (C, P).
        weight: inverse variances, (C, P); zero where padded.
        theory: what gives the shape.
    """

    sources: Float[Array, "curve position"]
    accuracy: Float[Array, "curve position"]
    weight: Float[Array, "curve position"]
    theory: Theory


def stack_curves(curves: Sequence[RetrievalCurve], theory: Theory) -> tuple[CurveData, bool]:
    """Pad curves to one rectangle; the flag tells whether their errors are known (if not, weights are 1)."""
    known = all(c.n_questions is not None for c in curves)
    width = max(c.sources.size for c in curves)

    def padded(values, fill):
        return jnp.asarray(np.stack([np.pad(v, (0, width - v.size), constant_values=fill) for v in values]))

    weights = [1 / c.standard_error**2 if known else np.ones_like(c.sources) for c in curves]
    rectangles = (
        padded([c.sources for c in curves], 0.5),
        padded([c.accuracy for c in curves], 0.0),
        padded(weights, 0.0),
    )
    return CurveData(*rectangles, theory), known


def shapes(
    values: Values, data: CurveData, wanted: Float[Array, "curve wanted"] | None = None
) -> Float[Array, "curve wanted"]:
    """Shape of each curve at given positions, its own if None, in units of its largest value at its own."""
    if wanted is None:
        return jax.vmap(lambda own: data.theory.scaled_shape(values, own))(data.sources)
    return jax.vmap(lambda own, at: data.theory.scaled_shape(values, own, at))(data.sources, wanted)


def lines(values: Values, data: CurveData) -> tuple[Line, Float[Array, "curve position"]]:
    """Best line of every curve and the shape at its points."""
    shape = shapes(values, data)
    return best_line(shape, data.accuracy, data.weight), shape


def residuals(values: Values, data: CurveData) -> Float[Array, "curve position"]:
    """Standardised residuals of all points, offset and contrast at their best."""
    best, shape = lines(values, data)
    return jnp.sqrt(data.weight) * (data.accuracy - best.at(shape))


def chi_squared(values: Values, data: CurveData) -> Scalar:
    """Sum of squared standardised residuals."""
    return jnp.sum(residuals(values, data) ** 2)
