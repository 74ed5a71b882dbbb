"""One prompt of N tokens through depth t, by (1.1)."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxkinetic._types import check_function, check_type, is_concrete, trusted
from jaxkinetic.integrate import Solve, as_times, integrate
from jaxkinetic.model import Layer
from jaxkinetic.model.space import Tokens


class Trajectory(eqx.Module):
    """One prompt at the saved times.

    Attributes:
        ts: saved times t, (T,).
        tokens: x_j(t), (T, N, d) on a sphere; on the circle theta_j(t) in radians, not wrapped, (T, N).
        stats: numbers of steps taken, accepted and rejected.
        result: diffrax's result code.
    """

    ts: Float[Array, " time"]
    tokens: Float[Array, "time token *coordinate"]
    stats: dict[str, Any]
    result: diffrax.RESULTS

    @property
    def angles(self) -> Float[Array, "time token"]:
        """theta_j(t) in radians on the circle, not wrapped, (T, N)."""
        if self.tokens.ndim != 2:
            raise ValueError("Tokens on a sphere have no angles: use `.tokens`.")
        return self.tokens

    @property
    def succeeded(self) -> Bool[Array, ""]:
        """Whether the solve reached the last time; otherwise the tokens mean nothing."""
        return self.result == diffrax.RESULTS.successful

    def __str__(self) -> str:
        """Summarise shape, times, precision and steps."""
        n_times, n_tokens = self.tokens.shape[:2]
        ends = f"t = {float(self.ts[0]):g} to {float(self.ts[-1]):g}" if is_concrete(self.ts) else "traced times"
        steps = self.stats["num_steps"]
        taken = int(steps) if is_concrete(steps) else "a traced number of"
        return f"Trajectory({n_tokens} tokens, {n_times} times, {ends}, {self.tokens.dtype}, {taken} steps)"


def simulate(
    model: Layer,
    x0: Tokens,
    times: Any,
    options: Solve | None = None,
    *,
    drift: Callable[[Layer, Array], Array] | None = None,
) -> Trajectory:
    """Move one prompt through depth by (1.1), d theta_j / dt = sum_{k<j} omega_{jk} w'(theta_j - theta_k).

    Args:
        model: attention, or any layer or sum of layers.
        x0: initial angles in radians, (N,), N >= 2, or tokens of the layer's space, (N, d). For many prompts use
            `jax.vmap`.
        times: saved times t, increasing, the first at least 0; the solve starts at 0.
        options: solver, steps, adjoint, progress and failure handling; see `Solve`.
        drift: the velocity (model, x) -> dx / dt; the model's own by default, `pairwise_drift` for reference.

    Returns:
        The trajectory; ``.angles`` is (T, N), ``.tokens`` the same on any space. Differentiable in x0, beta, lam
        and the times.

    Raises:
        ValueError: on tokens that are none of the layer's space, or times unsorted, negative or not finite.
        RuntimeError: if the solve fails and ``options.throw`` is on.
    """
    check_type("model", model, Layer)
    if options is not None:
        check_type("options", options, Solve)
    if drift is not None:
        check_function("drift", drift)
    x0 = model.check_resolved(model.space.check("x0", x0))
    ts = as_times(times, x0.dtype)
    chosen = (Solve() if options is None else options).with_adjoint(model, x0, ts)
    return _simulate(model, x0, ts, chosen, drift)


@eqx.filter_jit
@trusted()
def _simulate(model, x0, times, options, drift):
    def field(_, x, model):
        return model.velocity(x) if drift is None else drift(model, x)

    solution = integrate(field, x0, times, model, options, land_on_times=True)
    # The solver's error leaves a sphere; an angle stays one.
    tokens = model.space.retract(solution.values, jnp.zeros_like(solution.values))
    return Trajectory(solution.ts, tokens, solution.stats, solution.result)
