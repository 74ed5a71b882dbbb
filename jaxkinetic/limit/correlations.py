"""The autocorrelation A (1.17) and the cross-correlation C (1.18) of the limit, for any law of the prompts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import Scalar, as_floats, check, is_concrete, round_up
from jaxkinetic.integrate import Solve, as_times, integrate
from jaxkinetic.limit.averaging import SourceNodes
from jaxkinetic.limit.correlation_equations import CorrelationEquations, State, build_equations
from jaxkinetic.limit.mean_field import (
    MeanField,
    Method,
    as_positions,
    build_equation,
    check_law,
    check_model,
    first_resolution,
    saved_index,
    solver_options,
    tabulate,
    wanted_modes,
)
from jaxkinetic.limit.resolution import Resolution, Tails, solve_resolved
from jaxkinetic.model import CausalAttention, PromptLaw


class Correlations(eqx.Module):
    """The limits A and C at the saved times, for an observable phi = e^{i m theta} of the source's initial angle.

    Arrays have axes (observable, source, sigma, mode); an axis is dropped where a single number was given.

    Attributes:
        ts: saved times t, (T,).
        sources: source positions sigma_0, a scalar or (S,).
        observable_modes: m, an integer or several.
        field: the mean field, solved together with them.
        states: what was integrated.
        equations: the equations, see `jaxkinetic.limit.correlation_equations`.
        error: estimated error in sigma and theta, the largest tail of the expansions, relative to the solution.
    """

    ts: Float[Array, " time"]
    sources: Float[Array, "..."]
    observable_modes: int | tuple[int, ...] = eqx.field(static=True)
    field: MeanField
    states: State
    equations: CorrelationEquations
    error: Scalar

    def cross(self, time: Any, sigma: Any, n_modes: int | None = None) -> Complex[Array, "... mode"]:
        """Modes hat C_phi(t, sigma, n; sigma_0), the limit of N Cov(e^{-i n theta_j(t)}, phi(theta_i(0))).

        Args:
            time: one of the saved times.
            sigma: positions in (0, 1], of any shape; C vanishes up to the source.
            n_modes: number of modes n = 1..K, the solver's if None; see `MeanField.modes`.
        """
        n_modes = wanted_modes(n_modes, self.field.n_modes)
        sigma = as_positions(sigma, self.ts.dtype)
        values = _cross(self, saved_index(self.ts, time), sigma.reshape(-1), n_modes)
        return self._drop_axes(values.reshape(*values.shape[:2], *sigma.shape, values.shape[-1]))

    def auto(self, time: Any, n_modes: int | None = None) -> Complex[Array, "... mode"]:
        """Modes hat A_phi(t, sigma_0, n), the limit of Cov(e^{-i n theta_i(t)}, phi(theta_i(0))).

        Args:
            time: one of the saved times.
            n_modes: number of modes n = 1..K, the solver's if None; see `MeanField.modes`.
        """
        n_modes = wanted_modes(n_modes, self.field.n_modes)
        return self._drop_axes(_auto(self, saved_index(self.ts, time), n_modes))

    def _drop_axes(self, values):
        values = values if self.sources.ndim else values[:, 0]
        return values[0] if isinstance(self.observable_modes, int) else values


def solve_correlations(
    model: CausalAttention,
    prompts: PromptLaw,
    times: Any,
    source: Any = 0.3,
    *,
    observable_mode: Any = 1,
    method: Method = "auto",
    resolution: Resolution | None = None,
    options: Solve | None = None,
    tolerance: float | None = None,
) -> Correlations:
    """Solve the correlation equations (1.17) and (1.18) together with the mean field (1.10).

    The observable is phi(theta) = e^{i m theta}, of the initial angle of the token at sigma_0.

    Args:
        model: kernel and positional weights.
        prompts: law of the initial tokens, smooth in sigma.
        times: saved times t, increasing, the first at least 0; the solve starts at 0.
        source: source position sigma_0 in (0, 1), or several, (S,); all share one mean field.
        observable_mode: non-zero integer m, or several.
        method: representation in theta, see `solve_mean_field`.
        resolution: numbers of nodes and modes. If None, those that fall short are raised until the tolerance is
            met; under transformations the first are kept.
        options: solver, steps and adjoint; see `Solve`.
        tolerance: largest tail of the expansions where the resolution is found; see `solve_mean_field`.

    Returns:
        The correlations at the saved times. Differentiable in beta, lam, the law's parameters and the source.

    Raises:
        ValueError: if a source lies outside (0, 1), if m = 0, and as `solve_mean_field`.
        RuntimeError: if nodes or modes do not resolve the solution, or the solve fails.
    """
    dtype = check_model(model).dtype
    method = check_law(prompts, method)
    observables = check_observables(observable_mode)
    sources = check_sources(source).astype(dtype)
    times = as_times(times, sources.dtype)
    options = solver_options(options, sources.dtype)

    def solve(size: Resolution) -> tuple[Correlations, Tails]:
        law = tabulate(prompts, method, size.nodes, size.modes, sources.dtype)
        given = observables if np.ndim(observable_mode) else observables[0]
        return _solve(model, law, times, sources, options, given, size.modes, size.source_nodes)

    return solve_resolved(solve, resolution, _first_resolution(model, prompts, sources, observables, tolerance))


@eqx.filter_jit
def _solve(model, law, times, sources, options, observable_modes, n_modes, n_source_nodes):
    flow = build_equation(model, law, n_modes)
    nodes = jax.vmap(lambda s: SourceNodes(model.positions, s, n_source_nodes))(sources.reshape(-1))
    observables = (observable_modes,) if isinstance(observable_modes, int) else observable_modes
    equation = build_equations(flow, nodes, observables)
    solution = integrate(
        lambda _, state, equation: equation(state), equation.start(), times, equation, options, land_on_times=True
    )
    states = solution.values
    tails = Tails(*equation.tails(states, n_modes))
    field = MeanField(solution.ts, states["field"], flow, n_modes, tails.largest, solution.stats)
    return Correlations(solution.ts, sources, observable_modes, field, states, equation, tails.largest), tails


@eqx.filter_jit
def _cross(correlations, index, sigma, n_modes):
    equation = correlations.equations
    state = jax.tree.map(lambda x: x[index], correlations.states)

    def one(sigma):
        h = equation.cross(state, sigma, n_modes)
        kernel = jax.vmap(lambda nodes: _graphon(nodes, sigma))(equation.sources)
        return kernel[None, :, None] * h

    return _join(jax.vmap(one, out_axes=2)(sigma))


@eqx.filter_jit
def _auto(correlations, index, n_modes):
    state = jax.tree.map(lambda x: x[index], correlations.states)
    return _join(correlations.equations.auto(state, n_modes))


def _graphon(nodes: SourceNodes, sigma: Array) -> Array:
    return jnp.where(sigma > nodes.source, nodes.positions.graphon(sigma, nodes.source), 0.0)


def _join(rows: Complex[Array, "rows *shape"]) -> Complex[Array, "observable *shape"]:
    """Correlations with e^{i m theta} from those with cos(m theta) and sin(m theta)."""
    return rows[0::2] + 1j * rows[1::2]


def check_observables(observable_mode: Any) -> tuple[int, ...]:
    """Convert to a tuple; raise unless there are one or several non-zero integers."""
    values = np.atleast_1d(np.asarray(observable_mode))
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu" or not np.all(values):
        raise ValueError(
            f"Argument `observable_mode` must be a non-zero integer or several, but is {observable_mode!r}."
        )
    return tuple(values.tolist())


def check_sources(source: Any, name: str = "source") -> Float[Array, "..."]:
    """Convert source positions, a scalar or (S,); raise unless they lie in (0, 1)."""
    if np.ndim(source) > 1 or np.size(source) == 0:
        raise ValueError(
            f"Argument `{name}` must be a scalar or one-dimensional, but has shape {np.shape(source)}."
        )
    return check(name, as_floats(name, source), "lie in (0, 1)", lambda x: (x > 0) & (x < 1))


def _first_resolution(model, prompts, sources, observables, tolerance) -> Resolution:
    start = first_resolution(prompts, tolerance)
    modes = max(start.modes, round_up(2 * max(abs(m) for m in observables) + 32, 16))
    lam = check_model(model).lam
    values = (sources, lam)
    if not is_concrete(*values):
        return Resolution(start.nodes, start.source_nodes, modes, tolerance)
    # sigma(Y) has singularities at distance pi from the real axis, so that n nodes resolve it to rho^{-n}
    # with log(rho) = asinh(2 pi / Y(1; sigma_0)).
    length = float(np.max([_length(float(s), float(lam)) for s in np.ravel(sources)]))
    nodes = 13 + 26 / float(np.arcsinh(2 * np.pi / length))
    return Resolution(start.nodes, min(max(round_up(nodes, 8) + 1, 17), 97), modes, tolerance)


def _length(source: float, lam: float) -> float:
    smooth = 0.0 if lam < 1e-6 else np.log((np.expm1(lam) / lam) / (np.expm1(lam * source) / (lam * source)))
    return float(-np.log(source) + smooth)
