"""Piecewise Gauss quadrature on [smallest source, 1] for weights b that are smooth between breaks only.

Functions are represented by their values at the Gauss nodes of every panel. Averages behave as log(sigma) near 0,
so panels widen in proportion to sigma. b(1 - sigma) and b(sigma) bend at 1 - x and x for every break x: panels end
there. The integrand b(sigma - tau) of int_tau^1 bends at tau + x: its rules split the panels there.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_GROWTH = 2.0
_WIDEST = 0.125


class Panels(eqx.Module):
    """Panels of Gauss nodes on [smallest source, 1].

    Attributes:
        edges: ends of the panels, (P + 1,).
        nodes: Gauss nodes of each, (P, n).
        to_coefficients: matrix from values at the nodes to Legendre coefficients, (n, n).
    """

    edges: Float[Array, " edge"]
    nodes: Float[Array, "panel node"]
    to_coefficients: Float[Array, "node node"]

    def panel(self, x: Float[Array, " point"]) -> Int[Array, " point"]:
        """The panel of each point."""
        edges = self.edges.astype(x.dtype)
        return jnp.clip(jnp.searchsorted(edges, x, side="right") - 1, 0, self.nodes.shape[0] - 1)

    def interpolation(self, x: Float[Array, " point"]) -> tuple[Int[Array, " point"], Float[Array, "point node"]]:
        """The panel of each point and the weights of its nodes; smooth in the point within a panel."""
        edges, panel = self.edges.astype(x.dtype), self.panel(x)
        left, right = edges[panel], edges[panel + 1]
        z = (2 * x - left - right) / (right - left)
        return panel, jnp.matmul(_legendre(z, self.nodes.shape[1]), self.to_coefficients)

    def tails(self, values: Float[Array, "term panel node"]) -> Float[Array, "term panel"]:
        """Estimate the interpolation error on each panel, including what averages over other panels inherit.

        The error on a panel is the larger of the last two coefficients. Averages inherit its integral, relative to
        that of the values.
        """
        coefficients = jnp.einsum("kn,mpn->mpk", self.to_coefficients[-2:], values)
        here = jnp.max(jnp.abs(coefficients), axis=2)
        size, widths = jnp.max(jnp.abs(values), axis=2), jnp.diff(self.edges)
        share = jnp.matmul(here, widths) / (jnp.matmul(size, widths) + jnp.finfo(values.dtype).tiny)
        return here + share[:, None] * size


class Quadrature(eqx.Module):
    """Rules for int_tau^1, for every node tau, on the pieces between ends of panels and breaks.

    Attributes:
        row: index of the node tau of each piece, (Q,).
        panel: index of the panel that contains it, (Q,).
        sigma: Gauss nodes of the piece, (Q, n).
        distance: sigma - tau, without cancellation near tau, (Q, n).
        weights: Gauss weights, (Q, n).
        basis: interpolation from the panel's nodes to the piece's, (Q, n, n).
    """

    row: Int[Array, " piece"]
    panel: Int[Array, " piece"]
    sigma: Float[Array, "piece node"]
    distance: Float[Array, "piece node"]
    weights: Float[Array, "piece node"]
    basis: Float[Array, "piece node node"]

    def matrix(self, kernel: Callable[[Array, Array], Array], grid: Panels) -> Float[Array, "all all"]:
        """Matrix of h -> int_tau^1 h(sigma) kernel(sigma - tau, sigma) dsigma from nodes to nodes."""
        n_panels, n_nodes = grid.nodes.shape
        shares = jnp.einsum("qi,qij->qj", self.weights * kernel(self.distance, self.sigma), self.basis)
        table = jnp.zeros((n_panels * n_nodes, n_panels, n_nodes), shares.dtype)
        table = table.at[self.row, self.panel].add(shares)
        return table.reshape(n_panels * n_nodes, -1)


def build(smallest: float, breaks: tuple[float, ...], n_nodes: int, dtype: Any) -> tuple[Panels, Quadrature]:
    """Build panels and rules for weights with the given breaks, in double precision and then converted."""

    def convert(table: np.ndarray) -> Array:
        return jnp.asarray(table, dtype if np.issubdtype(table.dtype, np.floating) else None)

    grid, quadrature = _tables(smallest, breaks, n_nodes)
    return Panels(*map(convert, grid)), Quadrature(*map(convert, quadrature))


@cache
def _tables(smallest: float, breaks: tuple[float, ...], n_nodes: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """The fields of `Panels` and `Quadrature`."""
    edges = _edges(smallest, breaks)
    x, gauss = np.polynomial.legendre.leggauss(n_nodes)
    nodes = edges[:-1, None] + np.diff(edges)[:, None] * (x[None, :] + 1) / 2
    inverse = np.linalg.inv(np.polynomial.legendre.legvander(x, n_nodes - 1))
    row, panel, start, end = [], [], [], []
    for i, tau in enumerate(nodes.reshape(-1)):
        cuts = np.concatenate([edges, tau + np.asarray(breaks)])
        cuts = np.unique(np.clip(cuts, tau, 1.0))
        # Merge cuts that differ by rounding.
        cuts = np.append(cuts[:-1][np.diff(cuts) > 1e-12], 1.0)
        place = np.searchsorted(edges, (cuts[:-1] + cuts[1:]) / 2) - 1
        row += [i] * place.size
        panel += place.tolist()
        # Subtract tau here, where both are exact: distances near tau keep their digits.
        start += (cuts[:-1] - tau).tolist()
        end += (cuts[1:] - tau).tolist()
    row, panel, start, end = (np.asarray(v) for v in (row, panel, start, end))
    distance = start[:, None] + (end - start)[:, None] * (x[None, :] + 1) / 2
    weights = (end - start)[:, None] * gauss[None, :] / 2
    sigma = nodes.reshape(-1)[row][:, None] + distance
    left, right = edges[panel][:, None], edges[panel + 1][:, None]
    z = (2 * sigma - left - right) / (right - left)
    basis = np.polynomial.legendre.legvander(z, n_nodes - 1) @ inverse
    return (edges, nodes, inverse), (row, panel, sigma, distance, weights, basis)


def _edges(smallest: float, breaks: tuple[float, ...]) -> np.ndarray:
    bends = np.asarray(breaks)
    forced = np.unique(np.round(np.concatenate([bends, 1 - bends]), 14))
    forced = np.concatenate([[smallest], forced[(forced > smallest * 1.0001) & (forced < 1)], [1.0]])
    edges = [smallest]
    for end in forced[1:]:
        while True:
            left = edges[-1]
            # At most as wide as the distance from 0 and `_WIDEST`; the rest up to the next bend is halved.
            limit = min(left * (_GROWTH - 1), _WIDEST)
            if end - left <= limit * 1.0001:
                break
            edges.append(left + min(limit, (end - left) / 2))
        edges.append(float(end))
    return np.asarray(edges)


def _legendre(z: Float[Array, " point"], n: int) -> Float[Array, "point {n}"]:
    values = [jnp.ones_like(z), z]
    for k in range(1, n - 1):
        values.append(((2 * k + 1) * z * values[-1] - k * values[-2]) / (k + 1))
    return jnp.stack(values[:n], axis=-1)
