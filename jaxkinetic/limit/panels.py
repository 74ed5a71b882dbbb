"""Panels on [smallest source, 1] and quadrature over int_tau^1 that never steps across a kink of the weights.

Functions are held at Gauss nodes of every panel. Panels grow towards 1, since averages behave as log(sigma) near 0,
and end where the weight bends when the reader is at 1 or the source at 0: at the breaks x and at 1 - x. From a
source tau it bends at tau + x: panels are cut there as well.
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
        """About what interpolation misses on each panel, and what averages inherit, as a share of the values there.

        The first is the larger one of the last two coefficients, the share its integral over that of the values.
        """
        coefficients = jnp.einsum("kn,mpn->mpk", self.to_coefficients[-2:], values)
        here = jnp.max(jnp.abs(coefficients), axis=2)
        size, widths = jnp.max(jnp.abs(values), axis=2), jnp.diff(self.edges)
        share = jnp.matmul(here, widths) / (jnp.matmul(size, widths) + jnp.finfo(values.dtype).tiny)
        return here + share[:, None] * size


class Quadrature(eqx.Module):
    """Rules for int_tau^1 over the pieces between all cuts, for every node tau.

    Attributes:
        row: node tau to which a piece belongs, (Q,).
        panel: panel in which it lies, (Q,).
        sigma: Gauss nodes of the piece, (Q, n).
        distance: sigma - tau, exact near tau, (Q, n).
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
    """Panels and rules for weights with the given breaks, computed in double precision."""

    def convert(table: np.ndarray) -> Array:
        return jnp.asarray(table, dtype if np.issubdtype(table.dtype, np.floating) else None)

    grid, quadrature = _tables(smallest, breaks, n_nodes)
    return Panels(*map(convert, grid)), Quadrature(*map(convert, quadrature))


@cache
def _tables(smallest: float, breaks: tuple[float, ...], n_nodes: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """What `Panels` and `Quadrature` hold."""
    edges = _edges(smallest, breaks)
    x, gauss = np.polynomial.legendre.leggauss(n_nodes)
    nodes = edges[:-1, None] + np.diff(edges)[:, None] * (x[None, :] + 1) / 2
    inverse = np.linalg.inv(np.polynomial.legendre.legvander(x, n_nodes - 1))
    row, panel, start, end = [], [], [], []
    for i, tau in enumerate(nodes.reshape(-1)):
        cuts = np.concatenate([edges, tau + np.asarray(breaks)])
        cuts = np.unique(np.clip(cuts, tau, 1.0))
        # Cuts that differ by rounding only are one.
        cuts = np.append(cuts[:-1][np.diff(cuts) > 1e-12], 1.0)
        place = np.searchsorted(edges, (cuts[:-1] + cuts[1:]) / 2) - 1
        row += [i] * place.size
        panel += place.tolist()
        # Distances from tau keep their digits.
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
            # No wider than their distance from 0, nor than `_WIDEST`, and of like widths up to the next bend.
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
