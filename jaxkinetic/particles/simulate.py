"""One prompt of N tokens through depth t, by (1.1)."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
from jaxtyping import Array, Bool, Float

from jaxkinetic._types import Angles, check_angles, check_function, check_type, is_concrete, trusted
from jaxkinetic.integrate import Solve, as_times, integrate
from jaxkinetic.model import Layer


class Trajectory(eqx.Module):
    """Angles of one prompt at the saved times.

    Attributes:
        ts: saved times t, (T,).
        angles: theta_j(t) in radians, not wrapped, (T, N).
        stats: numbers of steps taken, accepted and rejected.
        result: diffrax's result code.
    """

    ts: Float[Array, " time"]
    angles: Float[Array, "time token"]
    stats: dict[str, Any]
    result: diffrax.RESULTS

    @property
    def succeeded(self) -> Bool[Array, ""]:
        """Whether the solve reached the last time; otherwise the angles mean nothing."""
        return self.result == diffrax.RESULTS.successful

    def __str__(self) -> str:
        """Summarise shape, times, precision and steps."""
        n_times, n_tokens = self.angles.shape
        ends = f"t = {float(self.ts[0]):g} to {float(self.ts[-1]):g}" if is_concrete(self.ts) else "traced times"
        steps = self.stats["num_steps"]
        taken = int(steps) if is_concrete(steps) else "a traced number of"
        return f"Trajectory({n_tokens} tokens, {n_times} times, {ends}, {self.angles.dtype}, {taken} steps)"


def simulate(
    model: Layer,
    theta0: Angles,
    times: Any,
    options: Solve | None = None,
    *,
    drift: Callable[[Layer, Array], Array] | None = None,
) -> Trajectory:
    """Move one prompt through depth by (1.1), d theta_j / dt = sum_{k<j} omega_{jk} w'(theta_j - theta_k).

    Args:
        model: attention, or any layer or sum of layers.
        theta0: initial angles in radians, (N,), N >= 2. For many prompts use `jax.vmap`.
        times: saved times t, increasing, the first at least 0; the solve starts at 0.
        options: solver, steps, adjoint, progress and failure handling; see `Solve`.
        drift: the velocity (model, theta) -> (N,); the model's own by default, `pairwise_drift` for reference.

    Returns:
        The trajectory; ``.angles`` is (T, N). Differentiable in theta0, beta, lam and the times.

    Raises:
        ValueError: on angles of the wrong shape or dtype, or times unsorted, negative or not finite.
        RuntimeError: if the solve fails and ``options.throw`` is on.
    """
    check_type("model", model, Layer)
    if options is not None:
        check_type("options", options, Solve)
    if drift is not None:
        check_function("drift", drift)
    theta0 = model.check_resolved(check_angles("theta0", theta0))
    ts = as_times(times, theta0.dtype)
    chosen = (Solve() if options is None else options).with_adjoint(model, theta0, ts)
    return _simulate(model, theta0, ts, chosen, drift)


@eqx.filter_jit
@trusted()
def _simulate(model, theta0, times, options, drift):
    def field(_, theta, model):
        return model.velocity(theta) if drift is None else drift(model, theta)

    solution = integrate(field, theta0, times, model, options, land_on_times=True)
    return Trajectory(solution.ts, solution.values, solution.stats, solution.result)
