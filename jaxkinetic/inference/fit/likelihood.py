"""The likelihood of measured curves: accuracy(sigma_0) = c0 + c1 S_t(sigma_0; beta, lam).

c0 and c1 >= 0 belong to each curve and are eliminated (see `lines`), so that only beta and lam are left.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar, trusted
from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.lines import Line, best_line
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.mode_series import largest_exponent, mode_sum
from jaxkinetic.model import ALiBi, ExpCosine


class CurveData(eqx.Module):
    """Curves as rectangular arrays, padded with points of weight zero.

    Attributes:
        sources: positions sigma_0, (C, P).
        accuracy: fractions, (C, P).
        weight: inverse variances, (C, P); zero where padded.
        time: depth t of the model.
        vocab_size: vocabulary size M of the decoder.
        n_modes: number of Fourier modes, enough for the largest beta in play.
    """

    sources: Float[Array, "curve position"]
    accuracy: Float[Array, "curve position"]
    weight: Float[Array, "curve position"]
    time: Scalar
    vocab_size: int = eqx.field(static=True)
    n_modes: int = eqx.field(static=True)


def stack_curves(
    curves: Sequence[RetrievalCurve], time: float, vocab_size: int, n_modes: int
) -> tuple[CurveData, bool]:
    """Pad curves to one rectangle; the flag tells whether their errors are known (if not, weights are 1)."""
    known = all(c.n_questions is not None for c in curves)
    width = max(c.sources.size for c in curves)

    def padded(values, fill):
        return jnp.asarray(np.stack([np.pad(v, (0, width - v.size), constant_values=fill) for v in values]))

    weights = [1 / c.standard_error**2 if known else np.ones_like(c.sources) for c in curves]
    data = CurveData(
        padded([c.sources for c in curves], 0.5),
        padded([c.accuracy for c in curves], 0.0),
        padded(weights, 0.0),
        jnp.asarray(float(time)),
        vocab_size,
        n_modes,
    )
    return data, known


@trusted()
def shapes(
    beta: Scalar, lam: Scalar, sources: Float[Array, "curve position"], data: CurveData
) -> tuple[Float[Array, "curve position"], Float[Array, " curve"]]:
    """Scaled S_t of each curve at given sources and the log of the factor taken out.

    The factor is fixed by the curve's own positions, so that shapes at other sources fit to its `Line`.
    """
    n_modes = min(data.n_modes, closed_form.growing_modes(data.vocab_size))
    rates = ExpCosine(beta, n_modes=data.n_modes).growth_rates()[:n_modes]
    weights = closed_form.mode_weights(data.vocab_size, n_modes)

    def one(own, wanted):
        own_values, own_scale = closed_form.correction_shape(
            rates, weights, data.time, own, ALiBi(lam), signed=False
        )
        own_scale = own_scale + _log_largest(own_values)
        values, scale = closed_form.correction_shape(rates, weights, data.time, wanted, ALiBi(lam), signed=False)
        # Far closer to 0 than the curve's own positions S is cut: accuracy is far outside [0, 1] before that.
        return values * jnp.exp(jnp.minimum(scale - own_scale, 300.0)), own_scale

    return jax.vmap(one)(data.sources, sources)


@trusted()
def row_shapes(
    beta: Float[Array, " row"], lam: Float[Array, "row column"], data: CurveData
) -> tuple[Float[Array, "row column curve position"], Float[Array, "row column curve"]]:
    """`shapes` of every curve at its own sources on rows of equal beta, by the power series that a row shares.

    NaN where that does not serve; double precision.
    """
    n_modes = min(data.n_modes, closed_form.growing_modes(data.vocab_size))
    rates = jax.vmap(lambda b: ExpCosine(b, n_modes=data.n_modes).growth_rates()[:n_modes])(beta)
    weights = closed_form.mode_weights(data.vocab_size, n_modes)
    one = jnp.ones((), beta.dtype)

    def everywhere(function: Callable[[Scalar, Scalar], Array]) -> Array:
        found = jax.vmap(lambda v: jax.vmap(lambda source: function(source, v))(data.sources.ravel()))(lam.ravel())
        return found.reshape(*lam.shape, *data.sources.shape)

    y = everywhere(lambda source, v: closed_form.goursat_variable(one, source, v))
    graphon = everywhere(lambda source, v: ALiBi(v).graphon(one, source))
    values, log_scale = mode_sum(rates, weights, data.time, y)
    own_scale = jax.lax.stop_gradient(
        jax.vmap(lambda a, at: largest_exponent(a, weights, data.time, at))(rates, jnp.max(y, axis=3))
    )
    scaled = graphon * values * jnp.exp(log_scale - own_scale[..., None])
    size = _log_largest(scaled)
    return scaled * jnp.exp(-size[..., None]), own_scale + size


def _log_largest(values: Float[Array, "*shape position"]) -> Float[Array, "*shape"]:
    """Log of the largest value: e^{-lam (1 - s)} of the scale of the modes, of which squares would vanish."""
    largest = jnp.max(jnp.abs(values), axis=-1)
    return jax.lax.stop_gradient(jnp.log(jnp.maximum(largest, jnp.finfo(values.dtype).tiny)))


def lines(beta: Scalar, lam: Scalar, data: CurveData) -> tuple[Line, Float[Array, "curve position"]]:
    """Best line of every curve and the scaled S at its points."""
    values, _ = shapes(beta, lam, data.sources, data)
    return best_line(values, data.accuracy, data.weight), values


def residuals(beta: Scalar, lam: Scalar, data: CurveData) -> Float[Array, "curve position"]:
    """Standardised residuals of all points, offset and contrast at their best."""
    best, values = lines(beta, lam, data)
    return jnp.sqrt(data.weight) * (data.accuracy - best.at(values))


def chi_squared(beta: Scalar, lam: Scalar, data: CurveData) -> Scalar:
    """Sum of squared standardised residuals."""
    return jnp.sum(residuals(beta, lam, data) ** 2)
