"""Control variates: what the limit predicts for the very prompt that is simulated, and its exact mean.

To leading order the last token ends where its characteristic does, at e(x) from x = theta_N(0), and the source at y
moves it by xi(x, y) / N. Both depend on two initial angles only, so that the mean of any function of them is known:
in closed form for uniform prompts, by quadrature for others. The prediction need not be accurate for the estimate
to be unbiased, only for it to be sharp.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Shaped

from jaxkinetic._types import Scalar
from jaxkinetic.integrate import Solve
from jaxkinetic.limit import Resolution, closed_form, solve_correlations
from jaxkinetic.limit.correlation_equations import CharacteristicCorrelations
from jaxkinetic.limit.iterated_kernels import resolved_kernels
from jaxkinetic.limit.mean_field_equation import CharacteristicMeanField
from jaxkinetic.model import CausalAttention, PromptLaw
from jaxkinetic.retrieval.source_law import SourceLaw
from jaxkinetic.retrieval.window import window_modes, window_slope, wrap

_OBSERVABLES = 10
# A rough prediction is a less sharp estimate, not a wrong one.
_CONTROL_TOLERANCE = 1e-2
_QUADRATURE = 256
# Smooth, so that the quadrature stays exact: a density that touches zero would leave a pole.
_FLOOR = 1e-2
_SOLVE_TOLERANCE = 1e-8
_MOST_STEPS = 256
SIZE = Resolution(33, source_nodes=33, modes=32, tolerance=1e-6)


class Control(eqx.Module):
    """Prediction of the last token from its own and the source's initial angle."""

    @abc.abstractmethod
    def end(self, x: Scalar) -> Scalar:
        """Final angle of a last token that began at x, radians, when it ignores the source."""

    @abc.abstractmethod
    def displacement(self, x: Scalar, y: Float[Array, " source"]) -> Float[Array, " source"]:
        """N times what sources at y move it by, up to what does not depend on y."""

    def slope(self, x: Scalar, y: Float[Array, " source"]) -> Float[Array, " source"]:
        """Derivative of the displacement in y."""
        return jax.jvp(lambda y: self.displacement(x, y), (y,), (jnp.ones_like(y),))[1]

    @abc.abstractmethod
    def mean_of_adjoint(self, source: SourceLaw) -> Float[Array, " source"]:
        """Mean of slope(x, y) T(e(x), y)."""

    @abc.abstractmethod
    def mean_of_redraw(self, source: SourceLaw) -> Float[Array, " source"]:
        """Covariance over y of displacement(x, y) and h'(e(x) - y), averaged over x."""


class UniformControl(Control):
    """Uniform prompts: e(x) = x and xi' = 2 sum_m g_m cos(m (x - y)), with g_m of (1.19), (1.23).

    Attributes:
        profiles: g_m(t, 1; sigma_0), (S, K).
    """

    profiles: Float[Array, "source mode"]

    def end(self, x):
        """Uniform prompts push nowhere."""
        return x

    def displacement(self, x, y):
        """-2 sum_m g_m sin(m (x - y)) / m."""
        m = jnp.arange(1, self.profiles.shape[1] + 1, dtype=y.dtype)
        return -2 * jnp.sin(x - y) * self._clenshaw(self.profiles / m[None, :], x - y)[0]

    def slope(self, x, y):
        """2 sum_m g_m cos(m (x - y))."""
        return 2 * self._clenshaw(self.profiles, x - y)[1]

    @staticmethod
    def _clenshaw(coefficients, u):
        # b_1 and sum_m c_m cos(m u) = cos(u) b_1 - b_2; sum_m c_m sin(m u) = sin(u) b_1.
        cos = jnp.cos(u)
        b, after = jnp.zeros_like(u), jnp.zeros_like(u)
        for m in reversed(range(coefficients.shape[1])):
            b, after = coefficients[:, m] + 2 * cos * b - after, b
        return b, cos * b - after

    def mean_of_adjoint(self, source):
        """sum_m g_m w_m."""
        weights = window_modes(source.vocab_size, source.accuracy, self.profiles.shape[1])
        return self.profiles @ weights

    def mean_of_redraw(self, source):
        """The same."""
        return self.mean_of_adjoint(source)


class CharacteristicControl(Control):
    """Any law with a limit: e(x) and xi(x, y) from the characteristics and the correlation solver.

    Attributes:
        drift: e(x) - x at the codewords x_l, or its Fourier coefficients in x, (L,).
        response: modes in y of the fluctuation of xi times the law of the source, likewise in x, (S, R, L).
        angles: angles of both laws for quadrature, (Q,).
        reader: weights of the last token's law at them, (Q,).
        source: weights of each source's law at them, (S, Q).
        source_modes: p_m(sigma_0), (S, Q), or the Fourier coefficients of the density, (S, Q).
    """

    drift: Shaped[Array, " label"]
    response: Complex[Array, "source observable label"]
    angles: Float[Array, " angle"]
    reader: Float[Array, " angle"]
    source: Float[Array, "source angle"]
    source_modes: Shaped[Array, "source mode"]
    is_atomic: bool = eqx.field(static=True)

    def end(self, x):
        """The characteristic of the mean field."""
        return x + jnp.real(self._at(self.drift, x))

    def displacement(self, x, y):
        """Fourier series in y over the law there."""
        order = jnp.arange(1, self.response.shape[1] + 1, dtype=y.dtype)
        waves = jnp.exp(-1j * order[None, :] * y[:, None])
        return jnp.real(jnp.sum(waves * self._at(self.response, x), axis=1)) * self._inverse_law(y)

    def _at(self, table, x):
        if self.is_atomic:
            return table[..., self._word(x)]
        return table @ self._waves(x)

    def _inverse_law(self, y):
        """One over the source's law, which is where no source is, or next to none, taken back to zero."""
        if self.is_atomic:
            law = jnp.take_along_axis(self.source_modes, self._word(y)[:, None], axis=1)[:, 0]
            present = law > jnp.finfo(law.dtype).eps
            return jnp.where(present, 1 / jnp.where(present, law, 1), 0)
        law = jnp.real(jnp.sum(self.source_modes * jax.vmap(self._waves)(y), axis=1))
        return law / (law**2 + _FLOOR**2)

    def _word(self, angle):
        return jnp.argmin(jnp.abs(wrap(jnp.subtract.outer(angle, self.angles))), axis=-1)

    def _waves(self, angle):
        size = self.drift.shape[0]
        return jnp.exp(1j * jnp.asarray(np.fft.fftfreq(size, 1 / size), angle.dtype) * angle)

    def _everywhere(self, function):
        """Values of function(x, y) -> (S,) at the nodes, (Q, Q, S)."""
        n_sources = self.response.shape[0]
        return jax.lax.map(
            lambda x: jax.vmap(lambda y: function(x, jnp.full(n_sources, y)))(self.angles), self.angles
        )

    def mean_of_adjoint(self, source):
        """By quadrature over both laws."""
        values = self._everywhere(lambda x, y: self.slope(x, y) * source.stein_kernel(self.end(x), y))
        return jnp.einsum("x,sy,xys->s", self.reader, self.source, values)

    def mean_of_redraw(self, source):
        """By quadrature over both laws."""
        xi = self._everywhere(self.displacement)
        slope = self._everywhere(lambda x, y: window_slope(self.end(x) - y, source.vocab_size))
        centred = slope - jnp.einsum("sy,xys->xs", self.source, slope)[:, None, :]
        return jnp.einsum("x,sy,xys,xys->s", self.reader, self.source, xi, centred)


def uniform_control(model: CausalAttention, time: Scalar, sigma: Float[Array, " source"]) -> UniformControl:
    """The closed form as a control, or the iterated kernels where the weights are not ALiBi."""
    rates, signed = model.kernel.growth_rates(), model.kernel.has_signed_rates
    if model.positions.exponential_rate is None:
        kernels = resolved_kernels(model.positions, rates, time, None, sigma, tolerance=_CONTROL_TOLERANCE)
        return UniformControl(kernels.profiles(rates, time, sigma))
    one = jnp.ones((), sigma.dtype)

    def at(s):
        return jax.vmap(lambda a: closed_form.volterra_hardy(a, time, one, s, model.positions, signed))(rates)

    return UniformControl(jax.vmap(at)(sigma))


def law_control(
    model: CausalAttention, law: PromptLaw, time: Any, sigma: Float[Array, " source"], vocab_size: int = 8
) -> Control:
    """Solve the limit of any smooth or codeword law for its prediction.

    Args:
        model: kernel and ALiBi weights.
        law: law of the initial tokens.
        time: depth t.
        sigma: positions of the sources, (S,).
        vocab_size: vocabulary size M of the decoder, whose narrow window sets the angles for quadrature.

    Raises:
        RuntimeError: if the limit is not resolved, or takes more steps than a rough prediction is worth.
    """
    observables = _OBSERVABLES
    if law.atoms is not None:
        observables = law.atoms.size - 1
    tolerance = _SOLVE_TOLERANCE if jnp.finfo(sigma.dtype).bits >= 64 else None
    found = solve_correlations(
        model, law, [time], sigma, observable_mode=tuple(range(1, observables + 1)), method="characteristics",
        resolution=SIZE, options=Solve(rtol=tolerance, atol=tolerance, max_steps=_MOST_STEPS),
    )  # fmt: skip
    flow, equation = found.field.flow, found.equations
    assert isinstance(flow, CharacteristicMeanField)
    assert isinstance(equation, CharacteristicCorrelations)
    at_end, _ = equation.at(jnp.ones((), sigma.dtype))
    zeta = jnp.einsum("sj,rsjl->rsl", at_end, found.states["cross"][0])
    kernel = jax.vmap(lambda s: model.positions.graphon(jnp.ones((), sigma.dtype), s))(sigma)
    xi = jnp.moveaxis(kernel[None, :, None] * (zeta[0::2] + 1j * zeta[1::2]), 0, 1)
    drift = found.field.characteristics(found.ts[0], 1.0) - flow.labels
    one = jnp.ones((), sigma.dtype)
    if law.atoms is not None:
        reader, source = law.atom_probabilities(one), jax.vmap(law.atom_probabilities)(sigma)
        return CharacteristicControl(drift, xi / flow.labels.size, flow.labels, reader, source, source, True)
    # As many modes as there are labels; the law itself has at most half as many.
    size = flow.labels.size
    n_angles = max(_QUADRATURE, 4 * vocab_size)
    theta = jnp.asarray(2 * np.pi * np.arange(n_angles) / n_angles, sigma.dtype)
    n = jnp.arange(1, size // 2, dtype=sigma.dtype)

    def density(s, angles):
        return 1 + 2 * jnp.real(jnp.exp(1j * jnp.outer(angles, n)) @ law.fourier(s, size // 2 - 1))

    def weights(s):
        return density(s, theta) / n_angles

    modes = jax.vmap(lambda s: jnp.fft.fft(density(s, flow.labels)) / size)(sigma)
    drift, response = (jnp.fft.fft(table, axis=-1) / size for table in (drift, 2 * xi))
    return CharacteristicControl(drift, response, theta, weights(one), jax.vmap(weights)(sigma), modes, False)
