"""The mean-field limit f(t, sigma, theta) of (1.10), by Fourier modes or along characteristics."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import (
    Scalar,
    as_float,
    as_floats,
    check_at_least,
    check_finite,
    check_positions,
    check_scalar,
    check_type,
    is_concrete,
)
from jaxkinetic.integrate import Solve, as_times, integrate, largest_error_steps
from jaxkinetic.limit import chebyshev, fourier
from jaxkinetic.limit.mean_field_equation import CharacteristicMeanField, FourierMeanField, MeanFieldEquation
from jaxkinetic.limit.resolution import Resolution, Tails, solve_resolved
from jaxkinetic.model import CausalAttention, PromptLaw
from jaxkinetic.model.positions import ALiBi, require_alibi
from jaxkinetic.model.prompts import check_density, check_probabilities

Method = Literal["auto", "fourier", "characteristics"]
# Modes, or labels and probabilities, for a density with the modes beyond those kept.
Law = (
    Complex[Array, "node more"]
    | tuple[Float[Array, " label"], Float[Array, "node label"]]
    | tuple[Float[Array, " label"], Float[Array, "node label"], Complex[Array, "node rest"]]
)


class MeanField(eqx.Module):
    """The limit f(t, sigma, theta) at the saved times, at any sigma and theta.

    Attributes:
        ts: saved times t, (T,).
        states: what was integrated, at the nodes in sigma.
        flow: the equation, see `jaxkinetic.limit.mean_field_equation`.
        n_modes: number K of Fourier modes that `modes` returns.
        error: estimated error in sigma and theta, the largest tail of the expansions, relative to a mass of one.
        stats: numbers of steps taken, accepted and rejected.
    """

    ts: Float[Array, " time"]
    states: Float[Array, "time node *state"]
    flow: MeanFieldEquation
    n_modes: int = eqx.field(static=True)
    error: Scalar
    stats: dict[str, Any]

    def modes(self, time: Any, sigma: Any, n_modes: int | None = None) -> Complex[Array, "*shape mode"]:
        """Fourier modes hat f(t, sigma, n) = int e^{-i n theta} f(t, sigma, theta) dtheta, n = 1..K.

        Args:
            time: one of the saved times.
            sigma: positions in (0, 1], of any shape.
            n_modes: number of modes K, the solver's if None. They are exact for codewords, and zero beyond the
                solver's for densities.

        Raises:
            ValueError: if ``time`` was not saved, or on positions outside (0, 1].
        """
        n_modes = wanted_modes(n_modes, self.n_modes)
        return _modes(self, saved_index(self.ts, time), as_positions(sigma, self.ts.dtype), n_modes)

    def density(self, time: Any, sigma: Any, theta: Any) -> Float[Array, "*shape angle"]:
        """Density f(t, sigma, theta) against dtheta / 2 pi.

        Args:
            time: one of the saved times.
            sigma: positions in (0, 1], of any shape.
            theta: angles in radians, (A,).

        Raises:
            ValueError: if the law is a sum of atoms, which has no density.
        """
        if self.is_atomic:
            raise ValueError(
                "Codeword prompts have no density in theta: the limit is a sum of atoms. Look at "
                "`characteristics` and `weights`, or at `modes`."
            )
        modes = self.modes(time, sigma)
        theta = as_floats("theta", theta).astype(self.ts.dtype)
        if theta.ndim != 1:
            raise ValueError(f"Argument `theta` must be one-dimensional, but has shape {theta.shape}.")
        theta = check_finite("theta", theta)
        n = jnp.arange(1, self.n_modes + 1, dtype=theta.dtype)
        waves = jnp.exp(1j * theta[:, None] * n[None, :])
        return 1 + 2 * jnp.einsum("...n,an->...a", modes, waves).real

    def characteristics(self, time: Any, sigma: Any) -> Float[Array, "*shape label"]:
        """Angles X(t, sigma, m) reached from the labels x_m, in radians, not wrapped.

        Args:
            time: one of the saved times.
            sigma: positions in (0, 1], of any shape.

        Raises:
            ValueError: if the solution was found by Fourier modes, which follow no characteristics.
        """
        flow = self._characteristics()
        at = chebyshev.interpolation(as_positions(sigma, self.ts.dtype), flow.weights.shape[0])
        return jnp.matmul(at, self.states[saved_index(self.ts, time)])

    def weights(self, sigma: Any) -> Float[Array, "*shape label"]:
        """Probability p_m(sigma) that each characteristic carries."""
        flow = self._characteristics()
        at = chebyshev.interpolation(as_positions(sigma, self.ts.dtype), flow.weights.shape[0])
        return jnp.matmul(at, flow.weights)

    @property
    def is_atomic(self) -> bool:
        """Whether the law is a sum of atoms, which has characteristics and weights but no density."""
        return isinstance(self.flow, CharacteristicMeanField) and self.flow.is_atomic

    @property
    def labels(self) -> Float[Array, " label"]:
        """Initial angles x_m of the characteristics, radians."""
        return self._characteristics().labels

    def _characteristics(self) -> CharacteristicMeanField:
        if not isinstance(self.flow, CharacteristicMeanField):
            raise ValueError('Fourier modes follow no characteristics: solve with `method="characteristics"`.')
        return self.flow


def solve_mean_field(
    model: CausalAttention,
    prompts: PromptLaw,
    times: Any,
    *,
    method: Method = "auto",
    resolution: Resolution | None = None,
    options: Solve | None = None,
    tolerance: float | None = None,
) -> MeanField:
    """Solve the mean-field equation (1.10) for independent prompts with law f_o(sigma, theta).

    d_t f = -d_theta (f int_0^sigma k(sigma, sigma') (w' * f)(t, sigma', theta) dsigma'),    f(0) = f_o

    Args:
        model: kernel and positional weights.
        prompts: law of the initial tokens, smooth in sigma.
        times: saved times t, increasing, the first at least 0; the solve starts at 0.
        method: ``"fourier"`` for laws with a density, ``"characteristics"`` for codewords (exact in theta) and
            for densities as well; ``"auto"`` chooses.
        resolution: numbers of nodes and modes. If None, those that fall short are raised until the tolerance is
            met; under `jax.jit`, `jax.grad` and `jax.vmap` sizes cannot depend on values, and the first are kept.
        options: solver, steps and adjoint; see `Solve`. Take ``adjoint=diffrax.ForwardMode()`` for `jax.jacfwd`.
        tolerance: largest tail of the expansions where the resolution is found. If it is None and rounding keeps
            the tails above the default of `Resolution`, a `ResolutionWarning` states the error.

    Returns:
        The limit at the saved times. Differentiable in beta, lam, the law's parameters and the times.

    Raises:
        ValueError: if the law jumps in sigma, times are unsorted or negative, or the method does not fit.
        RuntimeError: if nodes or modes do not resolve the solution, or the solve fails.
    """
    dtype = check_model(model).dtype
    method = check_law(prompts, method)
    times = as_times(times, dtype)
    options = solver_options(options, dtype)

    def solve(size: Resolution) -> tuple[MeanField, Tails]:
        law = tabulate(prompts, method, size.nodes, size.modes, dtype)
        return _solve(model, law, times, options, size.modes)

    return solve_resolved(solve, resolution, first_resolution(prompts, tolerance))


@eqx.filter_jit
def _solve(model, law, times, options, n_modes):
    flow = build_equation(model, law, n_modes)
    solution = integrate(lambda _, state, flow: flow(state), flow.start(), times, flow, options, land_on_times=True)
    in_sigma, in_theta = flow.tails(solution.values, n_modes)
    tails = Tails(in_sigma, jnp.zeros_like(in_sigma), in_theta)
    return MeanField(solution.ts, solution.values, flow, n_modes, tails.largest, solution.stats), tails


@eqx.filter_jit
def _modes(field, index, sigma, n_modes):
    at = chebyshev.interpolation(sigma, field.states.shape[1])
    return field.flow.modes(field.states[index], at, n_modes)


def build_equation(model: CausalAttention, law: Law, n_modes: int) -> MeanFieldEquation:
    """Build the equation in the representation in which the law was tabulated."""
    if not model_is_concrete(model):
        lam = check_model(model).lam
        model = eqx.tree_at(lambda m: m.positions.lam, model, model.check_resolved(lam))
    if isinstance(law, tuple):
        return CharacteristicMeanField(model, *law)
    return FourierMeanField(model, law, n_modes)


def model_is_concrete(model: CausalAttention) -> bool:
    """Whether the kernel has already been checked against its number of modes."""
    return is_concrete(*jax.tree.leaves(model.kernel))


def tabulate(prompts: PromptLaw, method: Method, n_nodes: int, n_modes: int, dtype: Any) -> Law:
    """Tabulate the law at the nodes, as modes or as labels and probabilities.

    This runs outside of compiled code, so that another law of the same sizes does not recompile.
    """
    sigma = jnp.asarray(chebyshev.nodes(n_nodes), dtype)
    if prompts.atoms is not None:
        weights = jax.vmap(prompts.atom_probabilities)(sigma)
        weights = check_probabilities(weights)
        return jnp.asarray(prompts.atoms, dtype), weights.astype(dtype)
    # All modes of the law, so that the tails see those that the solution leaves out.
    seen = max(2 * n_modes, prompts.n_modes or 0)
    modes = jax.vmap(lambda s: prompts.fourier(s, seen))(sigma)
    modes = modes.astype(jnp.result_type(dtype, jnp.complex64))
    if prompts.n_modes is not None:
        check_density(fourier.synthesize(modes, fourier.grid_size(seen, seen), mean=1.0))
    if method == "fourier":
        return modes
    n_labels = 4 * n_modes
    labels = jnp.asarray(2 * np.pi * np.arange(n_labels) / n_labels, dtype)
    kept, rest = modes[:, :n_modes], modes[:, n_modes:]
    return labels, fourier.synthesize(kept, n_labels, mean=1.0) / n_labels, rest


def solver_options(options: Any, dtype: Any) -> Solve:
    """Return the given options, or steps that keep the error of every single mode small.

    In a root-mean-square norm over thousands of small modes, the highest ones, which limit the stable step, carry
    errors of many times the tolerance, and the tails never fall below these.
    """
    if options is not None:
        check_type("options", options, Solve)
        return options
    rtol, atol = (1e-12, 1e-13) if jnp.finfo(dtype).bits >= 64 else (1e-6, 1e-6)
    return largest_error_steps(rtol, atol)


def first_resolution(prompts: PromptLaw, tolerance: float | None = None) -> Resolution:
    """Return the sizes to start from: 33 nodes, and 64 modes or twice those of the law."""
    return Resolution(modes=max(64, 2 * (prompts.n_modes or 0)), tolerance=tolerance)


def check_model(model: Any) -> ALiBi:
    """Return the model's ALiBi weights; raise if it has others."""
    check_type("model", model, CausalAttention)
    return require_alibi(
        model.positions,
        "the limit of any law of the prompts",
        "For uniform prompts use `retrieval_profile`, else particles: `simulate`, `estimate_profile`.",
    )


def check_law(prompts: Any, method: Any) -> Literal["fourier", "characteristics"]:
    """Return the representation to use; raise if the law is not smooth in sigma or the method does not fit."""
    check_type("prompts", prompts, PromptLaw)
    if prompts.has_jumps:
        raise ValueError(
            f"Argument `prompts` must be smooth in sigma, but {type(prompts).__name__} jumps from one cluster to "
            "the next, which polynomials in sigma do not resolve. Use DensityPrompts with centres that move "
            "smoothly."
        )
    if method not in ("auto", "fourier", "characteristics"):
        raise ValueError(f"Argument `method` must be 'auto', 'fourier' or 'characteristics', but is {method!r}.")
    atomic = prompts.atoms is not None
    if atomic and method == "fourier":
        raise ValueError(
            "Argument `method` must be 'characteristics' for codewords, but is 'fourier': the modes of atoms do "
            "not decay."
        )
    if method == "auto":
        return "characteristics" if atomic else "fourier"
    return method


def as_positions(sigma: Any, dtype: Any) -> Float[Array, "*shape"]:
    """Convert positions sigma; raise unless they lie in (0, 1]."""
    return check_positions("sigma", as_floats("sigma", sigma)).astype(dtype)


def wanted_modes(n_modes: int | None, found: int) -> int:
    """Return the number of modes asked for, or the solver's if None."""
    if n_modes is None:
        return found
    check_at_least("n_modes", n_modes, 1)
    return n_modes


def saved_index(ts: Float[Array, " time"], time: Any) -> Array:
    """Return the index of a saved time; raise on others, since nothing interpolates in t."""
    check_scalar("time", time)
    time = as_float(time).astype(ts.dtype)
    distance = jnp.abs(ts - time)
    tolerance = 16 * jnp.finfo(ts.dtype).eps * (1 + jnp.abs(time))
    missed = ~(jnp.min(distance) <= tolerance)
    message = "Argument `time` must be one of the saved times: solve with it among `times`."
    if not is_concrete(missed):
        return eqx.error_if(jnp.argmin(distance), missed, message)
    if missed:
        shown = np.asarray(ts)
        raise ValueError(
            f"Argument `time` must be one of the saved times {shown if shown.size <= 6 else '...'}, "
            f"but is {float(time):g}. Solve with it among `times`."
        )
    return jnp.argmin(distance)
