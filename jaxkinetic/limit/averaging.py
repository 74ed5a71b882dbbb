"""The causal averaging operator of (1.10), (Hf)(sigma) = int_0^sigma k(sigma, tau) f(tau) dtau, on nodes.

Over the whole prompt, u = tau / sigma turns the kernel into the smooth density sigma k(sigma, sigma u) on
[0, 1]. From a source on, the variable Y of (1.24) turns averaging into plain integration:

    k(sigma, tau) k(tau, sigma_0) = k(sigma, sigma_0) Y'(tau),

so that for f(tau) = k(tau, sigma_0) h(tau) the average over [sigma_0, sigma] is k(sigma, sigma_0) int_0^Y h dY.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import Scalar, check_at_least, trusted
from jaxkinetic.limit import chebyshev
from jaxkinetic.limit.closed_form import goursat_variable, source_position
from jaxkinetic.model.positions import ALiBi, PositionalWeights, require_alibi

_INSTEAD = "Use `iterated_kernels` for other weights and uniform prompts."


def averaging_matrix(positions: PositionalWeights, n_nodes: int) -> Float[Array, "{n_nodes} {n_nodes}"]:
    """Matrix of H from values at Chebyshev nodes of [0, 1] to averages at the same nodes.

    (Hf)(sigma) = int_0^1 sigma k(sigma, sigma u) f(sigma u) du, and f(0) at sigma = 0

    Gauss quadrature in u of the interpolating polynomial times the density is exact to rounding for polynomials of
    degree n - 1 as long as |lam| is below about 2 n.

    Args:
        positions: ALiBi weights; others raise. Differentiable in lam.
        n_nodes: number of nodes, see `chebyshev.nodes`.
    """
    check_at_least("n_nodes", n_nodes, 3)
    positions = require_alibi(positions, "averages on polynomials", _INSTEAD)
    dtype = positions.lam.dtype
    # At sigma = 0 the density in u is uniform; a tiny sigma gives that to rounding.
    sigma = jnp.asarray(np.maximum(chebyshev.nodes(n_nodes), 1e-30), dtype)
    abscissae, weights = np.polynomial.legendre.leggauss(n_nodes)
    points = sigma[:, None] * jnp.asarray((abscissae + 1) / 2, dtype)[None, :]
    kernel = jax.vmap(jax.vmap(positions.graphon, (None, 0)))(sigma, points)
    density = sigma[:, None] * kernel * jnp.asarray(weights / 2, dtype)[None, :]
    coefficients = jnp.asarray(chebyshev.to_coefficients(n_nodes), dtype)
    return jnp.matmul(chebyshev.moments(points, density, n_nodes), coefficients)


class SourceNodes(eqx.Module):
    """Chebyshev nodes from a source to the end, on which averaging from the source is integration.

    For lam >= 0 they are Chebyshev in Y(sigma; sigma_0). For lam < 0 sigma(Y) has a singularity close to the end,
    and they are Chebyshev in log(sigma / sigma_0), which is Y at lam = 0; then dY has the density

    dY / dlog(sigma) = lam sigma / (1 - e^{-lam sigma}).

    Attributes:
        source: source position sigma_0 in (0, 1).
        length: the variable at sigma = 1.
        sigma: positions of the nodes, from sigma_0 to 1, (n,).
        density: dY against the variable, (n,); 1 for lam >= 0.
        positions: causal positional weights.
    """

    source: Scalar
    length: Scalar
    sigma: Float[Array, " node"]
    density: Float[Array, " node"]
    positions: ALiBi

    @trusted()
    def __init__(self, positions: PositionalWeights, source: Scalar, n_nodes: int):
        check_at_least("n_nodes", n_nodes, 3)
        positions = require_alibi(positions, "the variable Y of (1.24)", _INSTEAD)
        self.positions, self.source = positions, source
        self.length = goursat_variable(jnp.ones_like(source), source, self._bias)
        y = self.length * jnp.asarray(chebyshev.nodes(n_nodes), source.dtype)
        self.sigma = jax.vmap(lambda y: source_position(self.length - y, self._bias))(y)
        slope, own = (jax.vmap(lambda s, p=p: p.graphon(s, s))(self.sigma) for p in (positions, ALiBi(self._bias)))
        self.density = slope / own

    @property
    def _bias(self) -> Scalar:
        return jnp.maximum(self.positions.lam, 0)

    def integral(self) -> Float[Array, "node node"]:
        """Matrix of h -> int_0^{Y} h(Y') dY' from nodes to nodes."""
        matrix = jnp.asarray(chebyshev.antiderivative(self.sigma.size), self.sigma.dtype)
        return self.length * matrix * self.density[None, :]

    def average(self, values: Float[Array, " node"]) -> Float[Array, " node"]:
        """Average int_{sigma_0}^sigma k(sigma, tau) f(tau) dtau at the nodes, for f given there."""
        kernel = jax.vmap(lambda s: self.positions.graphon(s, jnp.minimum(self.source, s)))(self.sigma)
        return kernel * jnp.matmul(self.integral(), values / kernel)

    def interpolation(self, sigma: Float[Array, "*shape"]) -> Float[Array, "*shape node"]:
        """Matrix from values at the nodes to values at sigma in [sigma_0, 1]."""
        y = goursat_variable(sigma, self.source, self._bias)
        return chebyshev.interpolation(y / self.length, self.sigma.size)
