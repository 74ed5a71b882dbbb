"""The limit of uniform prompts for any positional weight, through the iterated kernels of the averaging operator.

With K the operator of (1.10) at f = 1, (K f)(sigma) = int k(sigma, tau) f(tau) dtau, the Volterra-Hardy equation
(1.19) is solved by its series in t,

    g_a(t, 1; sigma_0) = sum_m h_m(sigma_0) (a t)^{m+1} / (m + 1)!,    h_m(sigma_0) = (K^m k)(1, sigma_0),

so that one set of functions h_m serves every kernel, depth and vocabulary. As functions of the source they satisfy
the adjoint recurrence

    h_0(tau) = k(1, tau),    h_{m+1}(tau) = int_tau^1 h_m(sigma) b(sigma - tau) / B(sigma) dsigma,

which involves no sigma < tau. Their values at the Gauss nodes of panels represent them (`piecewise_gauss`).
"""

import dataclasses
import math
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._types import (
    Scalar,
    as_float,
    check_at_least,
    check_positive_number,
    check_times,
    check_within,
    is_concrete,
)
from jaxkinetic.limit import piecewise_gauss
from jaxkinetic.limit.closed_form import mode_weights
from jaxkinetic.limit.piecewise_gauss import Panels
from jaxkinetic.limit.resolution import ResolutionWarning
from jaxkinetic.model.positions import PositionalWeights

# Numbers of terms reach growth a t Y up to about 900, 5000, 2e4 and 1e5.
_TERMS = (64, 128, 256, 512)
_NODES = (24, 32, 48)
_LARGEST_ERROR = 1e-2


class IteratedKernels(eqx.Module):
    """The iterated kernels h_m(sigma_0) = (K^m k)(1, sigma_0), m = 0..n_terms-1, of one positional weight.

    Attributes:
        values: h_m at the nodes of the panels, (m, panel, node).
        tails: estimated interpolation errors of h_m on each panel, (m, panel).
        panels: the panels, from the smallest source to 1.
        smallest_source: smallest sigma_0 at which they are known.
        tolerance: largest error of a profile, see `SeriesError`.
    """

    values: Float[Array, "term panel node"]
    tails: Float[Array, "term panel"]
    panels: Panels
    smallest_source: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def n_terms(self) -> int:
        """Number of terms."""
        return self.values.shape[0]

    def at(self, source: Scalar) -> Float[Array, " term"]:
        """The kernels h_m(sigma_0), m = 0..n_terms-1, at one source; differentiable.

        Args:
            source: position sigma_0 between the smallest source and 1; others raise a RuntimeError.
        """
        return self._at_all(as_float(source)[None])[:, 0]

    def profiles(
        self, rates: Float[Array, " mode"], time: float | Scalar, sources: Float[Array, " source"]
    ) -> Float[Array, "source mode"]:
        """The profiles g_a(t, 1; sigma_0), the solution of (1.19) at the end of the prompt.

        Args:
            rates: growth rates a of any sign, (K,).
            time: depth t >= 0.
            sources: positions sigma_0 between the smallest source and 1, (S,).

        Raises:
            RuntimeError: as `correction`.
        """
        return self._checked_sum(self._powers(rates, time), sources)

    def correction(
        self,
        rates: Float[Array, " mode"],
        time: float | Scalar,
        vocab_size: float,
        sources: Float[Array, " source"],
    ) -> Float[Array, " source"]:
        """The retrieval profile S_t(sigma_0) = sum_m h_m(sigma_0) t^{m+1} / (m+1)! sum_n w_n a_n^{m+1} (1.21).

        Args:
            rates: growth rates a_n of the kernel, n = 1..K.
            time: depth t >= 0.
            vocab_size: vocabulary size M of the decoder, whose weights w_n are `mode_weights`.
            sources: positions sigma_0 between the smallest source and 1, (S,).

        Raises:
            RuntimeError: if a source is out of range, the series is cut before its terms are at rounding level
                (raise ``n_terms``), or `error` exceeds the tolerance (raise ``n_nodes``).
        """
        return self._checked_sum(self._moments(rates, time, vocab_size), sources)[:, 0]

    def error(
        self,
        rates: Float[Array, " mode"],
        time: float | Scalar,
        vocab_size: float | None,
        sources: Float[Array, " source"],
    ) -> "SeriesError":
        """Estimate the errors of `correction`, or of `profiles` if ``vocab_size`` is None."""
        moments = self._powers(rates, time) if vocab_size is None else self._moments(rates, time, vocab_size)
        return self._sum(moments, sources)[1]

    def _at_all(self, sources: Float[Array, " source"]) -> Float[Array, "term source"]:
        slack = 8 * float(jnp.finfo(self.values.dtype).eps)
        inside = (sources >= self.smallest_source * (1 - slack)) & (sources <= 1 + slack)
        sources = eqx.error_if(
            sources.astype(self.values.dtype),
            ~jnp.all(inside),
            f"A source lies outside [{self.smallest_source:g}, 1]: lower `smallest_source` of `iterated_kernels`.",
        )
        panel, basis = self.panels.interpolation(sources)
        return jnp.einsum("msn,sn->ms", self.values[:, panel], basis, precision=jax.lax.Precision.HIGHEST)

    def _powers(self, rates: Float[Array, " mode"], time: float | Scalar) -> Float[Array, "term mode"]:
        """(a t)^{m+1} / (m+1)!, factor by factor: neither power nor factorial overflows."""
        m = jnp.arange(1, self.n_terms + 1, dtype=rates.dtype)
        time = as_float(check_times("time", time))
        return jnp.cumprod((rates * time.astype(rates.dtype))[None, :] / m[:, None], axis=0)

    def _moments(self, rates, time, vocab_size) -> Float[Array, "term 1"]:
        weights = mode_weights(vocab_size, rates.shape[0]).astype(rates.dtype)
        return jnp.matmul(self._powers(rates, time), weights)[:, None]

    def _sum(
        self, moments: Float[Array, "term some"], sources: Float[Array, " source"]
    ) -> tuple[Float[Array, "source some"], "SeriesError"]:
        """Sum the series, with its errors."""
        terms = jnp.einsum("ms,mk->msk", self._at_all(sources), moments)
        total, size = jnp.sum(terms, axis=0), jnp.sum(jnp.abs(terms), axis=0)
        scale = jnp.maximum(jnp.abs(total), jnp.abs(terms[0]))
        scale = jnp.where(scale == 0, 1, scale)
        missed = jnp.matmul(self.tails.T, jnp.abs(moments))[self.panels.panel(sources)]
        parts = (jnp.abs(terms[-1]), missed, jnp.finfo(size.dtype).eps * size)
        return total, SeriesError(*(jnp.max(part / scale) for part in parts))

    def _checked_sum(
        self, moments: Float[Array, "term some"], sources: Float[Array, " source"]
    ) -> Float[Array, "source some"]:
        """Sum the series; a run-time error says what it lacks."""
        total, error = self._sum(moments, sources)
        to_tolerance = f"the profile of these positional weights to {self.tolerance:.0e}"
        checks = (
            (
                jnp.all(jnp.isfinite(total)),
                "The terms of the series in t exceed the floating-point range: pass an earlier time.",
            ),
            (
                error.last_term <= _last_term(total.dtype),
                f"The series in t has not decayed after {self.n_terms} terms: raise `n_terms`.",
            ),
            (
                error.rounding <= self.tolerance,
                f"Rounding does not resolve {to_tolerance}, since the terms of its series in t cancel: raise "
                "`tolerance` or pass an earlier time.",
            ),
            (
                error.interpolation <= self.tolerance,
                f"{self.values.shape[2]} nodes a panel do not resolve {to_tolerance}: raise `n_nodes` or "
                "`tolerance`.",
            ),
        )
        for holds, message in checks:
            total = eqx.error_if(total, ~holds, message)
        return total


class SeriesError(eqx.Module):
    """Largest errors of a profile summed from iterated kernels.

    They are relative to the profile or, where terms of both signs cancel, to the first term of the series.

    Attributes:
        last_term: last term of the series in t.
        interpolation: what interpolation on the panels misses.
        rounding: rounding of the terms.
    """

    last_term: Scalar
    interpolation: Scalar
    rounding: Scalar

    @property
    def largest(self) -> Scalar:
        """The largest of them."""
        return jnp.max(jnp.stack(jax.tree.leaves(self)))


def iterated_kernels(
    positions: PositionalWeights,
    smallest_source: float = 0.01,
    *,
    n_terms: int = 64,
    n_nodes: int = 16,
    tolerance: float | None = None,
) -> IteratedKernels:
    """Compute the iterated kernels h_m(sigma_0) = (K^m k)(1, sigma_0) of any positional weight.

    Args:
        positions: causal positional weights; the result is differentiable in their parameters.
        smallest_source: smallest sigma_0 that is needed, in (0, 1).
        n_terms: number of terms m = 0..n_terms-1.
        n_nodes: Gauss nodes on each panel, at least 4.
        tolerance: largest error of a profile, see `SeriesError`;
            1e-8 in double and 1e-3 in single precision if None.

    Raises:
        ValueError: if a size is out of range, or ``positions`` is no positional weight.
    """
    if not isinstance(positions, PositionalWeights):
        raise ValueError(
            f"Argument `positions` must be PositionalWeights, such as ALiBi, but is {type(positions).__name__}."
        )
    if not is_concrete(smallest_source):
        raise ValueError(f"Argument `smallest_source` must be a number in (0, 1), but is {smallest_source}.")
    check_within("smallest_source", smallest_source, 0, 1)
    check_at_least("n_terms", n_terms, 1)
    check_at_least("n_nodes", n_nodes, 4)
    dtype, smallest = positions.dtype, float(smallest_source)
    if tolerance is not None:
        check_positive_number("tolerance", tolerance)
    else:
        tolerance = 1e-8 if dtype == jnp.float64 else 1e-3
    grid, quadrature = piecewise_gauss.build(smallest, positions.breaks, n_nodes, dtype)
    values = _iterate(positions, grid, quadrature, n_terms)
    return IteratedKernels(values, grid.tails(values), grid, smallest, float(tolerance))


def resolved_kernels(
    positions: PositionalWeights,
    rates: Float[Array, " mode"],
    time: float | Scalar,
    vocab_size: float | None,
    sources: Any,
    *,
    n_terms: int | None = None,
    n_nodes: int | None = None,
    tolerance: float | None = None,
) -> IteratedKernels:
    """Compute iterated kernels with as many terms and nodes as the profile at these sources needs.

    Sizes are doubled until the profile is resolved. If the largest do not resolve it to the default tolerance, they
    are used with a `ResolutionWarning` that states the error, up to one per cent. Under a transformation sizes
    cannot depend on values: the smallest are used, and checked at run time.

    Args:
        positions: causal positional weights.
        rates: growth rates a_n of the kernel, n = 1..K.
        time: depth t >= 0.
        vocab_size: vocabulary size M of the decoder; None to resolve the profile g_a of every rate.
        sources: positions sigma_0 in (0, 1], (S,).
        n_terms: number of terms, if not to be found.
        n_nodes: Gauss nodes on each panel, if not to be found.
        tolerance: largest error, see `iterated_kernels`.
    """
    terms = _TERMS if n_terms is None else (n_terms,)
    nodes = _NODES if n_nodes is None else (n_nodes,)
    smallest, i, j = smallest_source(sources), 0, 0
    while True:
        kernels = iterated_kernels(positions, smallest, n_terms=terms[i], n_nodes=nodes[j], tolerance=tolerance)
        error = kernels.error(rates, time, vocab_size, jnp.asarray(sources, kernels.values.dtype))
        if not is_concrete(error.largest) or not jnp.isfinite(error.rounding):
            return kernels
        if not error.last_term <= _last_term(kernels.values.dtype) and i + 1 < len(terms):
            i += 1
        elif not error.interpolation <= kernels.tolerance and j + 1 < len(nodes):
            j += 1
        else:
            break
    found = float(jnp.maximum(error.interpolation, error.rounding))
    if tolerance is None and n_nodes is None and kernels.tolerance < found <= _LARGEST_ERROR:
        warnings.warn(
            f"The profile of these positional weights is resolved to {found:.1e} of its size, not to the default "
            f"tolerance {kernels.tolerance:.0e}. A `tolerance` above {found:.1e} accepts this silently.",
            ResolutionWarning,
            stacklevel=3,
        )
        return dataclasses.replace(kernels, tolerance=_LARGEST_ERROR)
    return kernels


def _last_term(dtype: Any) -> float:
    """Largest last term of a series that has decayed, relative to the sum."""
    return 16 * float(jnp.finfo(dtype).eps)


def smallest_source(sources: Any) -> float:
    """Return a power of two, at most 0.01, below all sources, so that many lists share panels; 0.01 if traced."""
    if not is_concrete(sources):
        return 0.01
    return min(0.01, 2.0 ** math.floor(math.log2(float(np.min(sources)))))


@eqx.filter_jit
def _iterate(positions, grid, quadrature, n_terms):
    average = quadrature.matrix(lambda distance, sigma: _kernel(positions, distance, sigma), grid)
    start = _kernel(positions, 1 - grid.nodes, jnp.ones_like(grid.nodes)).reshape(-1)

    def step(h, _):
        return jnp.matmul(average, h, precision=jax.lax.Precision.HIGHEST), h

    _, values = jax.lax.scan(step, start, None, length=n_terms)
    return values.reshape(n_terms, *grid.nodes.shape)


def _kernel(positions: PositionalWeights, distance: Array, sigma: Array) -> Array:
    """b(distance) / B(sigma), the graphon at sigma' = sigma - distance."""
    return jnp.exp(positions.log_weight(distance) - positions.log_mass(sigma))
