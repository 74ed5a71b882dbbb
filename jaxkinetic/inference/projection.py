"""The likelihood of measured curves: accuracy(sigma_0) = c0 + c1 S_t(sigma_0; beta, lam).

c0 and c1 >= 0 belong to each curve and enter linearly. For given (beta, lam) their best values are
those of a weighted straight line, so that only beta and lam are left (variable projection).
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar, trusted
from jaxkinetic.inference.curves import RetrievalCurve
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


class Line(eqx.Module):
    """Best line through one curve for given (beta, lam), and its uncertainty.

    accuracy = mean + slope (S - center), in units where S has lost its factor e^{log_scale}.

    Attributes:
        mean: weighted mean accuracy.
        center: weighted mean of the scaled S.
        free_slope: coefficient of the scaled S if it might be negative.
        spread: weighted sum of squares of S about its center.
        weight: sum of the weights.
        log_scale: log of the factor taken out of S.
    """

    mean: Scalar
    center: Scalar
    free_slope: Scalar
    spread: Scalar
    weight: Scalar
    log_scale: Scalar

    @property
    def slope(self) -> Array:
        """Coefficient of the scaled S, not negative."""
        return jnp.maximum(self.free_slope, 0)

    def extremes(self, values: Float[Array, " position"], left: Scalar) -> tuple[Array, Array]:
        """Lowest and highest accuracy that lines with c1 >= 0 reach at scaled S with chi-squared `left` to spend.

        With nothing left both are the best line.
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
    log_weights = closed_form.log_mode_weights(data.vocab_size, n_modes)

    @jax.vmap
    def profile(source):
        return closed_form.scaled_profile(rates, log_weights, data.time, source, ALiBi(lam), signed=False)

    def one(own, wanted):
        own_scale = jnp.max(profile(own)[1])
        values, scale = profile(wanted)
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


def project(values: Float[Array, " position"], accuracy: Array, weight: Array, log_scale: Scalar) -> Line:
    """Weighted least-squares line of accuracy on S with slope >= 0."""
    total = jnp.sum(weight)
    center = jnp.sum(weight * values) / total
    mean = jnp.sum(weight * accuracy) / total
    spread = jnp.sum(weight * (values - center) ** 2)
    covariance = jnp.sum(weight * (values - center) * (accuracy - mean))
    # A shape without spread has no slope; the guard is far below any spread that matters.
    floor = jnp.finfo(values.dtype).tiny ** 0.5
    spread = jnp.maximum(spread, floor)
    return Line(mean, center, covariance / spread, spread, total, log_scale)


def lines(beta: Scalar, lam: Scalar, data: CurveData) -> tuple[Line, Float[Array, "curve position"]]:
    """Best line of every curve and the scaled S at its points."""
    values, scales = shapes(beta, lam, data.sources, data)
    return jax.vmap(project)(values, data.accuracy, data.weight, scales), values


def residuals(beta: Scalar, lam: Scalar, data: CurveData) -> Float[Array, "curve position"]:
    """Standardised residuals of all points, the nuisances at their best."""
    return misfit(*shapes(beta, lam, data.sources, data), data)


def misfit(
    values: Float[Array, "curve position"], scales: Float[Array, " curve"], data: CurveData
) -> Float[Array, "curve position"]:
    """The same for given scaled S and the logs of the factors taken out."""
    best = jax.vmap(project)(values, data.accuracy, data.weight, scales)
    fitted = best.mean[:, None] + best.slope[:, None] * (values - best.center[:, None])
    return jnp.sqrt(data.weight) * (data.accuracy - fitted)


def chi_squared(beta: Scalar, lam: Scalar, data: CurveData) -> Scalar:
    """Sum of squared standardised residuals."""
    return jnp.sum(residuals(beta, lam, data) ** 2)
