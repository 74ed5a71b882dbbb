"""Differential equations in t: by diffrax's solvers, or in a fixed number of equal steps by plain scans."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import (
    Scalar,
    as_numbers,
    check_at_least,
    check_flags,
    check_increasing,
    check_positive_number,
    check_times,
    check_type,
    is_concrete,
)


def _meter(progress: bool | diffrax.AbstractProgressMeter) -> diffrax.AbstractProgressMeter:
    if isinstance(progress, diffrax.AbstractProgressMeter):
        return progress
    check_flags(progress=progress)
    return diffrax.TqdmProgressMeter() if progress else diffrax.NoProgressMeter()


def _step(step: Any) -> Any:
    return None if step is None else check_positive_number("step", step)


class Solve(eqx.Module):
    """How a differential equation in t is stepped; every part is diffrax's own.

    Attributes:
        solver: stepping scheme; `diffrax.Dopri8` suits the default tolerances.
        rtol: relative tolerance of adaptive steps; 1e-11 in double and 1e-5 in single precision if None.
        atol: absolute tolerance; the same as ``rtol`` if None.
        step: length of constant steps, which may be traced; adaptive if None.
        controller: a diffrax step-size controller, which replaces ``rtol``, ``atol`` and ``step``.
        adjoint: how derivatives pass through the solve. None lets both forward and reverse mode through;
            `diffrax.RecursiveCheckpointAdjoint()` is somewhat faster in reverse mode, which alone it serves.
        max_steps: most steps that a solve may take.
        progress: whether to show a progress bar, or a progress meter of diffrax.
        throw: whether a solve that fails is an error. If not, look at ``result``: the values of a failed
            solve mean nothing even where they are finite.
    """

    solver: diffrax.AbstractSolver = eqx.field(default_factory=diffrax.Dopri8)
    rtol: float | None = eqx.field(default=None, static=True)
    atol: float | None = eqx.field(default=None, static=True)
    step: float | Scalar | None = eqx.field(default=None, converter=_step)
    controller: diffrax.AbstractStepSizeController | None = None
    adjoint: diffrax.AbstractAdjoint | None = None
    max_steps: int = eqx.field(default=4096, static=True)
    progress: diffrax.AbstractProgressMeter = eqx.field(converter=_meter, default=False)
    throw: bool = eqx.field(default=True, static=True)

    def __check_init__(self):
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if value is not None:
                check_positive_number(name, value)
        check_at_least("max_steps", self.max_steps, 1)
        check_type("solver", self.solver, diffrax.AbstractSolver)
        for name, kind in (
            ("controller", diffrax.AbstractStepSizeController),
            ("adjoint", diffrax.AbstractAdjoint),
        ):
            if getattr(self, name) is not None:
                check_type(name, getattr(self, name), kind)
        check_flags(throw=self.throw)
        if self.step is not None and (self.rtol is not None or self.atol is not None):
            raise ValueError("Argument `step` must be None where `rtol` or `atol` is given.")
        if self.controller is not None and (self.step, self.rtol, self.atol) != (None, None, None):
            raise ValueError("Argument `controller` must be None where `rtol`, `atol` or `step` is given.")

    def with_adjoint(self, *inputs: PyTree) -> "Solve":
        """The same options with an adjoint: one for both modes if any of ``inputs`` is traced.

        Known inputs are not differentiated, and the loop of a reverse-mode adjoint is the fastest for them.
        """
        if self.adjoint is not None:
            return self
        known = is_concrete(*jax.tree.leaves(inputs))
        adjoint = diffrax.RecursiveCheckpointAdjoint() if known else diffrax.DirectAdjoint()
        return dataclasses.replace(self, adjoint=adjoint)

    def _controller(self, dtype: Any) -> diffrax.AbstractStepSizeController:
        if self.controller is not None:
            return self.controller
        if self.step is not None:
            return diffrax.ConstantStepSize()
        rtol = (1e-11 if jnp.finfo(dtype).bits >= 64 else 1e-5) if self.rtol is None else self.rtol
        return diffrax.PIDController(rtol=rtol, atol=rtol if self.atol is None else self.atol)


class Solution(eqx.Module):
    """Values of a solve at its saved times.

    Attributes:
        ts: saved times t, (T,).
        values: what was integrated, with the times along the first axis.
        stats: numbers of steps taken, accepted and rejected.
        result: diffrax's code; `diffrax.RESULTS.successful` unless the solve failed and ``throw`` was off.
    """

    ts: Float[Array, " time"]
    values: PyTree[Array]
    stats: dict[str, Any]
    result: diffrax.RESULTS


def as_times(times: Any, dtype: Any = None) -> Float[Array, " time"]:
    """Convert saved times to an array; refuse what is unsorted, negative, not finite or not one-dimensional."""
    given = times if isinstance(times, jax.Array) else as_numbers("times", times)
    if np.ndim(given) == 0:
        given = given[None]
    given = check_times("times", check_increasing("times", given))
    check_sensible(times=given)
    return jnp.asarray(given, dtype=dtype)


def integrate(
    field: Callable[[Any, PyTree, PyTree], PyTree],
    start: PyTree,
    times: Float[Array, " time"],
    args: PyTree,
    options: Solve,
    land_on_times: bool = False,
) -> Solution:
    """Integrate dy/dt = field(t, y, args) from y(0) = start and save it at ``times``.

    Between steps values are interpolated, to lower order than the steps have: with steps of length 0.3 that
    loses three digits. ``land_on_times`` makes adaptive steps end at every saved time instead.
    """
    dtype = jnp.result_type(*jax.tree.leaves(start))
    times = jnp.asarray(times, jnp.finfo(dtype).dtype)
    controller = options._controller(dtype)
    if land_on_times and isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        controller = diffrax.ClipStepSizeController(controller, step_ts=times)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        options.solver,
        t0=jnp.zeros((), times.dtype),
        t1=times[-1],
        dt0=None if options.step is None else jnp.asarray(options.step, times.dtype),
        y0=start,
        args=args,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=controller,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if options.adjoint is None else options.adjoint,
        max_steps=options.max_steps,
        progress_meter=options.progress,
        throw=options.throw,
    )
    return Solution(times, solution.ys, solution.stats, solution.result)


def reason(error: BaseException) -> str:
    """What a failed solve says, in one line: less the stack and the hints for programmers that come with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.partition("EquinoxRuntimeError: ")[2] for line in lines if "EquinoxRuntimeError: " in line]
    return (told or lines or [type(error).__name__])[0]


def largest_error_steps(rtol: float, atol: float) -> Solve:
    """Options whose tolerances bound the error of every component, not its root mean square over all of them."""
    return Solve(controller=diffrax.PIDController(rtol=rtol, atol=atol, norm=optx.max_norm))


def march(
    field: Callable[[Float[Array, "..."], PyTree], Float[Array, "..."]],
    start: Float[Array, "..."],
    time: Scalar,
    n_steps: int,
    args: PyTree,
) -> Float[Array, "..."]:
    """Integrate dy/dt = field(y, args) from y(0) = start to ``time`` in equal steps of `diffrax.Tsit5`.

    The number of steps is static, so that scans over steps and stages suffice: the program holds no host callback,
    can be exported, and is differentiable in forward and reverse mode, nested as well. Reverse mode keeps the state
    at every step and repeats each step's stages. Where the solution blows up, the result is not finite.
    """
    tableau = diffrax.Tsit5.tableau
    rows = [np.zeros(0), *tableau.a_lower[:-1]]
    # The last row of the tableau is the step itself.
    shifts = jnp.asarray(np.stack([np.pad(row, (0, len(rows) - row.size)) for row in rows]), start.dtype)
    weights = jnp.asarray(tableau.b_sol[: len(rows)], start.dtype)
    length = time.astype(start.dtype) / n_steps

    @jax.checkpoint
    def step(y, _):
        def stage(slopes, row):
            index, shift = row
            return slopes.at[index].set(field(y + length * jnp.tensordot(shift, slopes, 1), args)), None

        slopes = jnp.zeros((len(rows), *y.shape), y.dtype)
        slopes, _ = jax.lax.scan(stage, slopes, (jnp.arange(len(rows)), shifts))
        return y + length * jnp.tensordot(weights, slopes, 1), None

    return jax.lax.scan(step, start, None, length=n_steps)[0]
