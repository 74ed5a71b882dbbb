"""The mean-field equation (1.10) in its two representations, as vector fields on nodes in sigma.

Both follow df/dt = -d_theta(f V) with the velocity V(t, sigma, theta) = int_0^sigma k (w' * f) dtau, whose
modes are i n w^(n) (H hat f)(sigma, n): as many as the kernel has, whatever the density.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic.limit import chebyshev, fourier
from jaxkinetic.limit.averaging import averaging_matrix
from jaxkinetic.model import CausalAttention


class MeanFieldEquation(eqx.Module):
    """The mean-field equation on nodes in sigma, for one law of the prompts.

    Attributes:
        averaging: the averaging operator H on the nodes.
        force: n w^(n) of the kernel, n = 1..K.
    """

    averaging: eqx.AbstractVar[Float[Array, "node node"]]
    force: eqx.AbstractVar[Float[Array, " kernel"]]

    @abc.abstractmethod
    def start(self) -> Float[Array, "node *state"]:
        """State at t = 0."""

    @abc.abstractmethod
    def modes(
        self, state: Float[Array, "node *state"], at: Float[Array, "*shape node"], n_modes: int
    ) -> Complex[Array, "*shape {n_modes}"]:
        """Modes hat f(sigma, n), n = 1..n_modes, where the interpolation matrix ``at`` leads."""

    @abc.abstractmethod
    def __call__(self, state: Float[Array, "node *state"]) -> Float[Array, "node *state"]:
        """Time derivative of the state."""

    @abc.abstractmethod
    def tails(self, states: Float[Array, "time node *state"], n_modes: int) -> tuple[Array, Array]:
        """What nodes and modes leave unresolved at the saved times, relative to a mass of one."""

    def velocity(self, modes: Complex[Array, "node kernel"]) -> Complex[Array, "node kernel"]:
        """Modes i n w^(n) (H hat f)(sigma, n) of the velocity at the nodes."""
        return 1j * self.force[None, :] * jnp.matmul(self.averaging.astype(modes.dtype), modes)

    def _averaging_error(self) -> Array:
        # The graphon has mass one; the quadrature has lost the rest.
        return jnp.max(jnp.abs(jnp.sum(self.averaging, axis=1) - 1))


class FourierMeanField(MeanFieldEquation):
    """The equation for modes hat f(sigma, n), n = 1..K, with a pseudo-spectral product.

    d hat f(n) / dt = -i n hat{f V}(n)

    By construction the mean stays 1 and modes -n are the conjugates. The state holds real and imaginary parts,
    (node, 2, K).

    Attributes:
        averaging: the averaging operator H on the nodes.
        force: n w^(n), cut to K.
        initial: hat f_o at the nodes, with the modes beyond K that the tails look at, (node, 2, more).
        n_modes: number K of modes.
    """

    averaging: Float[Array, "node node"]
    force: Float[Array, " kernel"]
    initial: Float[Array, "node 2 more"]
    n_modes: int = eqx.field(static=True)

    def __init__(self, model: CausalAttention, initial: Complex[Array, "node more"], n_modes: int):
        self.averaging = averaging_matrix(model.positions, initial.shape[0])
        self.force = kernel_force(model)[:n_modes]
        self.initial, self.n_modes = fourier.pack(initial), n_modes

    def start(self) -> Float[Array, "node 2 mode"]:
        """Modes of f_o."""
        return self.initial[..., : self.n_modes]

    def modes(self, state, at, n_modes):
        """Interpolate in sigma; modes beyond K are zero."""
        f = fourier.unpack(state)
        return fourier.resize(jnp.matmul(at.astype(f.dtype), f), n_modes)

    def __call__(self, state: Float[Array, "node 2 mode"]) -> Float[Array, "node 2 mode"]:
        """Minus the divergence of f V."""
        f = fourier.unpack(state)
        velocity = self.velocity(f[:, : self.force.size])
        size = fourier.grid_size(self.n_modes, self.n_modes, self.force.size)
        flux = fourier.synthesize(f, size, mean=1.0) * fourier.synthesize(velocity, size)
        return fourier.pack(divergence(fourier.analyze(flux, self.n_modes)))

    def tails(self, states, n_modes):
        """Last Chebyshev coefficients; last Fourier modes and those of f_o beyond K."""
        del n_modes
        in_theta = jnp.maximum(
            fourier.tail(fourier.unpack(states)), jnp.max(jnp.abs(self.initial[..., self.n_modes :]), initial=0)
        )
        return jnp.maximum(chebyshev.tail(jnp.moveaxis(states, 1, -1)), self._averaging_error()), in_theta


class CharacteristicMeanField(MeanFieldEquation):
    """The equation along the characteristics X(t, sigma, m) that start from the labels x_m, X(0) = x_m.

    dX / dt = V(t, sigma, X),    f(t, sigma) = sum_m p_m(sigma) delta_{X(t, sigma, m)}

    This is exact in theta for codewords. For a smooth law the L labels are equispaced with
    p_m = f_o(sigma, x_m) / L, and sums over labels are trapezoidal rules for periodic functions. The state is X,
    (node, label).

    Attributes:
        averaging: the averaging operator H on the nodes.
        force: n w^(n).
        labels: initial angles x_m, radians.
        weights: p_m at the nodes, (node, label).
        rest: modes of a smooth law beyond those kept, (node, 2, more); None for a sum of atoms.
    """

    averaging: Float[Array, "node node"]
    force: Float[Array, " kernel"]
    labels: Float[Array, " label"]
    weights: Float[Array, "node label"]
    rest: Float[Array, "node 2 more"] | None

    def __init__(
        self,
        model: CausalAttention,
        labels: Float[Array, " label"],
        weights: Float[Array, "node label"],
        rest: Complex[Array, "node more"] | None = None,
    ):
        self.averaging = averaging_matrix(model.positions, weights.shape[0])
        self.force = kernel_force(model)
        self.labels, self.weights = labels, weights
        self.rest = None if rest is None else fourier.pack(rest)

    @property
    def is_atomic(self) -> bool:
        """Whether the law itself is a sum of atoms."""
        return self.rest is None

    def start(self) -> Float[Array, "node label"]:
        """X = x_m."""
        return jnp.broadcast_to(self.labels[None, :], self.weights.shape).astype(self.averaging.dtype)

    def modes(self, state, at, n_modes):
        """Sum p_m(sigma) e^{-i n X(sigma, m)} over the labels."""
        angles, weights = jnp.matmul(at, state), jnp.matmul(at, self.weights)
        n = jnp.arange(1, n_modes + 1, dtype=angles.dtype)
        waves = jnp.exp(-1j * jnp.expand_dims(n, range(angles.ndim)) * angles[..., None])
        return jnp.einsum("...l,...ln->...n", weights.astype(waves.dtype), waves)

    def __call__(self, state: Float[Array, "node label"]) -> Float[Array, "node label"]:
        """Velocity at the characteristics."""
        cos, sin = waves(state, self.force.size)
        return evaluate(self.velocity(transform(self.weights, cos, sin)), cos, sin)

    def tails(self, states, n_modes):
        """Last Chebyshev coefficients; for a smooth law also last modes of f, f_o and the displacement X - x."""
        in_sigma = jnp.maximum(chebyshev.tail(jnp.moveaxis(states, 1, -1)), self._averaging_error())
        in_sigma = jnp.maximum(in_sigma, chebyshev.tail(self.weights.T))
        if self.rest is None:
            return in_sigma, jnp.zeros_like(in_sigma)
        identity = jnp.eye(states.shape[1], dtype=states.dtype)
        displacement = states - self.labels[None, None, :]
        in_label = fourier.tail(fourier.analyze(displacement, self.labels.size // 2))
        in_theta = jnp.maximum(in_label, fourier.tail(self.modes(states[-1], identity, n_modes)))
        return in_sigma, jnp.maximum(in_theta, jnp.max(jnp.abs(self.rest), initial=0))


def kernel_force(model: CausalAttention) -> Float[Array, " kernel"]:
    """Strengths n w^(n), n = 1..K."""
    n = jnp.arange(1, model.kernel.n_modes + 1)
    return n * model.kernel.coefficients()


def divergence(flux: Complex[Array, "*shape mode"]) -> Complex[Array, "*shape mode"]:
    """Modes of -d_theta of a flux given by its modes n = 1..K."""
    n = np.arange(1, flux.shape[-1] + 1)
    return jnp.asarray(-1j * n, flux.dtype).reshape((1,) * (flux.ndim - 1) + (-1,)) * flux


def waves(
    angles: Float[Array, "*shape"], n_modes: int
) -> tuple[Float[Array, "*shape {n_modes}"], Float[Array, "*shape {n_modes}"]]:
    """cos(n X) and sin(n X) for n = 1..n_modes along a new last axis."""
    n = jnp.arange(1, n_modes + 1, dtype=angles.dtype)
    phase = jnp.expand_dims(n, tuple(range(angles.ndim))) * angles[..., None]
    return jnp.cos(phase), jnp.sin(phase)


def transform(
    weights: Float[Array, "*shape label"], cos: Float[Array, "*shape label k"], sin: Float[Array, "*shape label k"]
) -> Complex[Array, "*shape k"]:
    """Modes sum_m p_m e^{-i n X_m} of a sum of atoms."""
    real = jnp.einsum("...l,...lk->...k", weights, cos)
    return jnp.asarray(real - 1j * jnp.einsum("...l,...lk->...k", weights, sin))


def evaluate(
    modes: Complex[Array, "*shape k"], cos: Float[Array, "*shape label k"], sin: Float[Array, "*shape label k"]
) -> Float[Array, "*shape label"]:
    """Values 2 Re sum_n c_n e^{i n X_m} at the atoms of a real series with zero mean."""
    return 2 * (jnp.einsum("...k,...lk->...l", modes.real, cos) - jnp.einsum("...k,...lk->...l", modes.imag, sin))
