"""What moves the U: its derivatives in beta, lam, t and M, through the minimum by implicit differentiation.

With p = (beta, lam, t, M) the minimum lies at the zero y(p) of the slope H'(y; p) in y = Y(1; sigma_0), so that

    dy / dp = -(d H' / dp) / (d H' / dy),

and everything measured at the minimum follows by the chain rule. M enters through the decoder's weights
e^{-pi^2 n^2 / (2 M^2)}, which are smooth in it.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._show import Shown
from jaxkinetic._types import (
    Scalar,
    as_numbers,
    check_choice,
    check_finite,
    check_positive,
    check_scalar,
    round_up,
    trusted,
)
from jaxkinetic.limit import closed_form
from jaxkinetic.model import ALiBi, ExpCosine, required_modes
from jaxkinetic.shape.phase import phase_diagram

PARAMETERS = ("beta", "lam", "time", "vocab_size")
_LARGEST_LAM = 600.0
QUANTITIES = ("location", "drop", "primacy", "recency", "asymmetry")


@dataclasses.dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """The U at one point p = (beta, lam, t, M), and what moves it.

    Attributes:
        parameters: values of `PARAMETERS`, (4,).
        edge: distance e of the two reference positions e and 1 - e from the ends of the prompt.
        values: values of `QUANTITIES`, (5,): location sigma_min of the minimum; drop S(1) - S(sigma_min);
            primacy S(e) - S(sigma_min), since S itself is infinite at 0; recency S(1 - e) - S(sigma_min);
            asymmetry (primacy - recency) / (primacy + recency), which accuracy = c0 + c1 S leaves as it is.
        derivatives: d quantity / d parameter, (5, 4).
    """

    parameters: Float[np.ndarray, " parameter"]
    edge: float
    values: Float[np.ndarray, " quantity"]
    derivatives: Float[np.ndarray, "quantity parameter"]

    @property
    def elasticities(self) -> Float[np.ndarray, "quantity parameter"]:
        """Per cent by which a quantity changes as a parameter grows by one: (p / q) dq / dp; NaN where q = 0."""
        values = np.where(self.values == 0, np.nan, self.values)
        return self.derivatives * self.parameters[None, :] / values[:, None]

    def value(self, quantity: str) -> float:
        """Value of one of `QUANTITIES`."""
        check_choice("quantity", quantity, QUANTITIES)
        return float(self.values[QUANTITIES.index(quantity)])

    def derivative(self, quantity: str, parameter: str) -> float:
        """Derivative of one of `QUANTITIES` in one of `PARAMETERS`."""
        check_choice("quantity", quantity, QUANTITIES)
        check_choice("parameter", parameter, PARAMETERS)
        return float(self.derivatives[QUANTITIES.index(quantity), PARAMETERS.index(parameter)])

    def standard_errors(self, covariance: Any) -> Float[np.ndarray, " quantity"]:
        """Errors of `QUANTITIES` that uncertain parameters leave: the square root of diag(D covariance D^T), (5,).

        Args:
            covariance: of the first P of `PARAMETERS`, (P, P), the others being known: (beta, lam) as in
                `PlannedExperiment.covariance[:2, :2]`. An infinite variance makes every quantity that depends on
                it infinitely uncertain.
        """
        given = as_numbers("covariance", covariance)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or not 1 <= given.shape[0] <= len(PARAMETERS):
            raise ValueError(
                f"Argument `covariance` must be square, of up to {len(PARAMETERS)} parameters, but has shape "
                f"{given.shape}."
            )
        slopes = self.derivatives[:, : len(given)]
        unknown = np.isposinf(np.diagonal(given))
        known = np.where(unknown[:, None] | unknown[None, :], 0.0, given)
        scale = np.max(np.abs(known), initial=0.0)
        if not np.isfinite(scale) or np.any(np.abs(known - known.T) > 1e-8 * scale):
            raise ValueError(
                f"Argument `covariance` must be symmetric, and finite but for variances, but is {given}."
            )
        if np.linalg.eigvalsh(known)[0] < -1e-8 * scale:
            raise ValueError(f"Argument `covariance` must have no negative eigenvalue, but is {given}.")
        errors = np.sqrt(np.einsum("qi,ij,qj->q", slopes, known, slopes))
        return np.where(np.any((slopes != 0) & unknown, axis=1), np.inf, errors)


def u_sensitivity(beta: float, lam: float, time: float, vocab_size: float = 8, edge: float = 0.05) -> Sensitivity:
    """Derivatives of the U of uniform prompts in beta, lam, t and M.

    Args:
        beta: sharpness > 0.
        lam: positional bias in (0, 600].
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2, a real number.
        edge: where primacy and recency are read, in (0, 1/2): 0.05 for the first and last of ten items.

    Raises:
        ValueError: on arguments out of range, or where the profile has no interior minimum.
    """
    point = {"beta": beta, "lam": lam, "time": time, "vocab_size": vocab_size}
    for name, value in point.items():
        check_scalar(name, value)
        (check_finite if name == "lam" else check_positive)(name, value)
    if not 0 < edge < 0.5:
        raise ValueError(f"Argument `edge` must lie in (0, 1/2), but is {edge}.")
    if lam > _LARGEST_LAM:
        raise ValueError(f"Argument `lam` must be at most {_LARGEST_LAM:g}, but is {lam:g}.")
    start = phase_diagram(beta, lam, time, vocab_size)
    if not int(start.n_minima):
        recency = float(start.recency_time)
        ends = f"recency ends at t = {recency:.4g}" if recency > 0 else "there is no recency at any depth"
        raise ValueError(
            f"The profile at beta = {beta:g}, lam = {lam:g}, t = {time:g}, M = {vocab_size:g} has no interior "
            f"minimum, so that there is no U to move ({ends})."
        )
    p = jnp.asarray([float(value) for value in point.values()])
    n_modes = round_up(required_modes(float(beta), p.dtype), 8)
    y = closed_form.goursat_variable(jnp.ones((), p.dtype), start.argmin, p[1])
    values, derivatives = _derivatives(p, y, edge, n_modes, min(n_modes, closed_form.growing_modes(vocab_size)))
    return Sensitivity(np.asarray(p), float(edge), np.asarray(values), np.asarray(derivatives))


@partial(jax.jit, static_argnums=(3, 4))
def _derivatives(p, y, edge, n_modes, n_kept):
    def twice(p):
        values = u_quantities(p, y, edge, n_modes, n_kept)
        return values, values

    derivatives, values = jax.jacfwd(twice, has_aux=True)(p)
    return values, derivatives


@trusted()
def u_quantities(
    p: Float[Array, " parameter"], y: Scalar, edge: float | Scalar, n_modes: int, n_kept: int
) -> Float[Array, " quantity"]:
    """Evaluate `QUANTITIES`, differentiable once in p through the location of the minimum.

    Args:
        p: (beta, lam, t, M).
        y: where the minimum lies, in y = Y(1; sigma_0), to about half the digits or more.
        edge: distance e of the reference positions from the ends.
        n_modes: number of Fourier modes that resolve beta.
        n_kept: number of modes whose decoder weight counts.
    """
    beta, lam, time, vocab_size = p
    rates = ExpCosine(beta, n_modes=n_modes).growth_rates()[:n_kept]
    log_weights = closed_form.log_mode_weights(vocab_size, n_kept)

    def slope(y):
        return closed_form.profile_slope(y, rates, log_weights, time, lam, signed=False)

    def profile(source):
        return closed_form.profile(rates, log_weights, time, source, ALiBi(lam), signed=False)

    # A step of Newton's whose start and denominator count as constants: its derivative is the implicit one.
    start = jax.lax.stop_gradient(y)
    bend = jax.lax.stop_gradient(jax.jvp(slope, (start,), (jnp.ones_like(start),))[1])
    location = closed_form.source_position(start - slope(start) / bend, lam)
    first, last, end = (
        profile(s) - profile(location) for s in (edge * jnp.ones_like(y), 1 - edge + 0 * y, 1 + 0 * y)
    )
    return jnp.stack([location, end, first, last, (first - last) / (first + last)])
