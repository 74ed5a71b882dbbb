"""The correlation equations (1.17) and (1.18) in both representations, as vector fields on nodes.

The state holds h = C / k(sigma, sigma_0) on nodes in Y(sigma; sigma_0). Averages of C become integrals of h in Y,
the forcing is w' * A without a factor, and h is of order one for every source and lam:

    dh/dt = -d_theta(f int_0^Y (w' * h) dY') - d_theta(h V) - d_theta(f (w' * A)(sigma_0)).

Observables are cos(m theta) and sin(m theta), which keeps A and C real. Axes are observable, source, node from the
source, then those of the representation. The mean field is solved together with A and C.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxkinetic.limit import chebyshev, fourier
from jaxkinetic.limit.averaging import SourceNodes
from jaxkinetic.limit.mean_field_equation import (
    CharacteristicMeanField,
    FourierMeanField,
    MeanFieldEquation,
    divergence,
    evaluate,
    transform,
    waves,
)

State = dict[str, Array]


class CorrelationEquations(eqx.Module):
    """The equations of A and C, together with that of the mean field.

    Attributes:
        flow: the mean-field equation.
        sources: nodes from each source on.
        to_sources: interpolation from the nodes of the mean field to those.
        observables: integers m of cos(m theta) and sin(m theta).
    """

    flow: eqx.AbstractVar[Any]
    sources: eqx.AbstractVar[SourceNodes]
    to_sources: eqx.AbstractVar[Float[Array, "source node_from_source node"]]
    observables: eqx.AbstractVar[tuple[int, ...]]

    @abc.abstractmethod
    def start(self) -> State:
        """State at t = 0, with C = 0."""

    @abc.abstractmethod
    def __call__(self, state: State) -> State:
        """Time derivative of the state."""

    @abc.abstractmethod
    def auto(self, state: State, n_modes: int) -> Complex[Array, "observable source {n_modes}"]:
        """Modes hat A_phi(sigma_0, n), n = 1..K, for the real observables."""

    @abc.abstractmethod
    def cross(
        self, state: State, sigma: Float[Array, ""], n_modes: int
    ) -> Complex[Array, "observable source {n_modes}"]:
        """Modes of h = C / k at sigma, for the real observables."""

    @abc.abstractmethod
    def tails(self, states: State, n_modes: int) -> tuple[Array, Array, Array]:
        """What nodes, nodes from the source, and modes leave unresolved, relative to the solution."""

    def integrate(
        self, modes: Complex[Array, "observable source node_from_source k"]
    ) -> Complex[Array, "observable source node_from_source k"]:
        """Integral int_0^Y over the nodes from the source."""
        integral = jax.vmap(lambda nodes: nodes.integral())(self.sources)
        return jnp.einsum("sij,rsjk->rsik", integral.astype(modes.dtype), modes)

    def at(self, sigma: Float[Array, ""]) -> tuple[Float[Array, "source node_from_source"], Float[Array, " node"]]:
        """Interpolation to sigma from the nodes of each source and from those of the mean field."""
        from_source = jax.vmap(lambda nodes: nodes.interpolation(jnp.maximum(sigma, nodes.source)))(self.sources)
        return from_source, chebyshev.interpolation(sigma, self.to_sources.shape[-1])

    def push(self, modes: Complex[Array, "*shape k"]) -> Complex[Array, "*shape k"]:
        """Modes i n w^(n) g(n) of w' * g."""
        force = self.flow.force[: modes.shape[-1]]
        return 1j * jnp.expand_dims(force, tuple(range(modes.ndim - 1))) * modes


class FourierCorrelations(CorrelationEquations):
    """The equations for modes n = 1..K with pseudo-spectral products; the mean of A and C is zero.

    Attributes:
        flow: the mean-field equation by modes.
        sources: nodes from each source on.
        to_sources: interpolation from the nodes of the mean field to those.
        observables: integers m.
    """

    flow: FourierMeanField
    sources: SourceNodes
    to_sources: Float[Array, "source node_from_source node"]
    observables: tuple[int, ...] = eqx.field(static=True)

    def start(self) -> State:
        """A = f_o (phi - int phi f_o) at each source."""
        n_modes, field = self.flow.n_modes, self.flow.start()
        f = jnp.einsum("sn,nck->sck", self.to_sources[:, 0], field)
        largest = max(abs(m) for m in self.observables)
        size = fourier.grid_size(n_modes, n_modes, largest)
        density = fourier.synthesize(fourier.unpack(f), size, mean=1.0)
        theta = 2 * jnp.pi * jnp.arange(size, dtype=density.dtype) / size
        phi = observe(self.observables, theta)
        mean = jnp.einsum("rg,sg->rs", phi, density) / size
        fluctuation = density[None] * (phi[:, None] - mean[..., None])
        auto = fourier.pack(fourier.analyze(fluctuation, n_modes))
        cross = jnp.zeros((*auto.shape[:2], self.to_sources.shape[1], *auto.shape[2:]), auto.dtype)
        return {"field": field, "auto": auto, "cross": cross}

    def __call__(self, state: State) -> State:
        """The right-hand sides of (1.10), (1.17) and (1.18)."""
        n_modes, n_kernel = self.flow.n_modes, self.flow.force.size
        f, a, h = (fourier.unpack(state[name]) for name in ("field", "auto", "cross"))
        velocity = self.flow.velocity(f[:, :n_kernel])
        pushed = self.push(self.integrate(h[..., :n_kernel]) + a[..., None, :n_kernel])
        size = fourier.grid_size(n_modes, n_modes, n_kernel)
        # Interpolation in sigma commutes with synthesis, which is cheaper on the fewer nodes of the mean field.
        f_there, v_there = (
            jnp.einsum("sjn,ng->sjg", self.to_sources, grid)
            for grid in (fourier.synthesize(f, size, mean=1.0), fourier.synthesize(velocity, size))
        )
        flux = f_there[None] * fourier.synthesize(pushed, size) + v_there[None] * fourier.synthesize(h, size)
        carried = v_there[None, :, 0] * fourier.synthesize(a, size)
        return {
            "field": self.flow(state["field"]),
            "auto": fourier.pack(divergence(fourier.analyze(carried, n_modes))),
            "cross": fourier.pack(divergence(fourier.analyze(flux, n_modes))),
        }

    def auto(self, state, n_modes):
        """The modes of the state."""
        return fourier.resize(fourier.unpack(state["auto"]), n_modes)

    def cross(self, state, sigma, n_modes):
        """Interpolate in Y."""
        at, _ = self.at(sigma)
        return fourier.resize(fourier.unpack(jnp.einsum("sj,rsjck->rsck", at, state["cross"])), n_modes)

    def tails(self, states, n_modes):
        """Last Chebyshev coefficients and last modes, those of A and C relative to the largest A and C."""
        in_sigma, in_theta = self.flow.tails(states["field"], n_modes)
        for name in ("auto", "cross"):
            in_theta = jnp.maximum(in_theta, relative(fourier.tail(fourier.unpack(states[name])), states[name]))
        in_y = relative(chebyshev.tail(jnp.moveaxis(states["cross"], 3, -1)), states["cross"])
        return in_sigma, in_y, in_theta


class CharacteristicCorrelations(CorrelationEquations):
    """The equations along characteristics, where C is a field of mean displacements xi = k zeta.

    A = sum_m p_m (phi(x_m) - int phi f_o) delta_{X_m},    C = -d_theta sum_m p_m xi_m delta_{X_m},

    d zeta_m / dt = (int_0^Y (w' * h) dY' + (w' * A)(sigma_0))(X_m) + V'(X_m) zeta_m

    Attributes:
        flow: the mean-field equation along characteristics.
        sources: nodes from each source on.
        to_sources: interpolation from the nodes of the mean field to those.
        observables: integers m.
    """

    flow: CharacteristicMeanField
    sources: SourceNodes
    to_sources: Float[Array, "source node_from_source node"]
    observables: tuple[int, ...] = eqx.field(static=True)

    def start(self) -> State:
        """No displacement."""
        field = self.flow.start()
        shape = (2 * len(self.observables), *self.to_sources.shape[:2], self.flow.labels.size)
        return {"field": field, "cross": jnp.zeros(shape, field.dtype)}

    def __call__(self, state: State) -> State:
        """The displacements of earlier tokens push zeta, and the gradient of the velocity stretches it."""
        n_kernel = self.flow.force.size
        cos, sin = waves(state["field"], n_kernel)
        velocity = self.flow.velocity(transform(self.flow.weights, cos, sin))
        cos, sin = waves(jnp.matmul(self.to_sources, state["field"]), n_kernel)
        v_there = jnp.matmul(self.to_sources.astype(velocity.dtype), velocity)
        weights = jnp.matmul(self.to_sources, self.flow.weights)
        zeta = state["cross"]
        h = divergence(jax.vmap(transform, (0, None, None))(weights[None] * zeta, cos, sin))
        a = jax.vmap(transform, (0, None, None))(self._fluctuation(), cos[:, 0], sin[:, 0])
        pushed = self.push(self.integrate(h) + a[..., None, :])
        push = jax.vmap(evaluate, (0, None, None))(pushed, cos, sin)
        stretch = evaluate(-divergence(v_there), cos, sin)
        return {"field": evaluate(velocity, *waves(state["field"], n_kernel)), "cross": push + stretch[None] * zeta}

    def auto(self, state, n_modes):
        """Sum over the atoms at the source."""
        angles = jnp.matmul(self.to_sources[:, 0], state["field"])
        return jax.vmap(transform, (0, None, None))(self._fluctuation(), *waves(angles, n_modes))

    def cross(self, state, sigma, n_modes):
        """Interpolate displacements in Y and angles in sigma, then sum over the atoms."""
        from_source, from_field = self.at(sigma)
        zeta = jnp.einsum("sj,rsjl->rsl", from_source, state["cross"])
        angles, weights = from_field @ state["field"], from_field @ self.flow.weights
        sums = jax.vmap(jax.vmap(transform, (0, None, None)), (0, None, None))
        return divergence(sums(weights[None, None] * zeta, *waves(angles, n_modes)))

    def tails(self, states, n_modes):
        """Last Chebyshev coefficients; for a smooth law also last modes of zeta in the label."""
        in_sigma, in_theta = self.flow.tails(states["field"], n_modes)
        zeta = states["cross"]
        if not self.flow.is_atomic:
            in_label = fourier.tail(fourier.analyze(zeta, self.flow.labels.size // 2))
            in_theta = jnp.maximum(in_theta, relative(in_label, zeta))
        return in_sigma, relative(chebyshev.tail(jnp.moveaxis(zeta, 3, -1)), zeta), in_theta

    def _fluctuation(self) -> Float[Array, "observable source label"]:
        weights = jnp.matmul(self.to_sources[:, 0], self.flow.weights)
        phi = observe(self.observables, self.flow.labels)
        mean = jnp.einsum("rl,sl->rs", phi, weights)
        return weights[None] * (phi[:, None] - mean[..., None])


def build_equations(
    flow: MeanFieldEquation, sources: SourceNodes, observables: tuple[int, ...]
) -> CorrelationEquations:
    """The correlation equations in the representation of the flow, for a batch of sources."""
    to_sources = chebyshev.interpolation(sources.sigma, flow.averaging.shape[0])
    if isinstance(flow, FourierMeanField):
        return FourierCorrelations(flow, sources, to_sources, observables)
    if isinstance(flow, CharacteristicMeanField):
        return CharacteristicCorrelations(flow, sources, to_sources, observables)
    raise TypeError(f"No correlation equations for {type(flow).__name__}.")


def observe(observables: tuple[int, ...], theta: Float[Array, " angle"]) -> Float[Array, "observable angle"]:
    """Real observables cos(m theta) and sin(m theta), alternating."""
    phase = jnp.asarray(observables, theta.dtype)[:, None] * theta[None, :]
    return jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=1).reshape(-1, theta.size)


def relative(tail: Array, values: Array) -> Array:
    """A tail relative to the largest value, or to 1e-3, a small force, where symmetry makes all values vanish."""
    return tail / jnp.maximum(jnp.max(jnp.abs(values)), 1e-3)
