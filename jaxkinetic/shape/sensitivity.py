"""What moves the U: its derivatives in a theory's parameters, t and M, through the minimum.

With p = (parameters, t, M) the minimum lies at the zero y(p) of the slope H'(y; p) in y = Y(1; sigma_0), so that

    dy / dp = -(d H' / dp) / (d H' / dy),

by the implicit function theorem (`u_shape`), and everything measured at the minimum follows by the chain rule. M
enters through the decoder's weights e^{-pi^2 n^2 / (2 M^2)}, which are smooth in it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic import theories
from jaxkinetic._show import Shown
from jaxkinetic._types import Scalar, as_numbers, check_choice, check_type, check_within, round_up, trusted
from jaxkinetic.limit import closed_form
from jaxkinetic.model import CausalAttention
from jaxkinetic.model.positions import require_alibi
from jaxkinetic.retrieval.u_shape import UShape, shape_of_modes
from jaxkinetic.theories import ModelTheory

_LARGEST_LAM = 600.0
_ONLY_ALIBI = "The U of other weights has no closed form."
QUANTITIES = ("location", "drop", "primacy", "recency", "asymmetry")


@dataclasses.dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """The U at one point p = (parameters, t, M), and what moves it.

    Attributes:
        theory: the theory; its time and vocab_size are those of the point.
        names: names of its parameters, "time" and "vocab_size", P of them.
        parameters: their values, (P,).
        edge: distance e of the two reference positions e and 1 - e from the ends of the prompt.
        values: values of `QUANTITIES`, (5,): location sigma_min of the minimum; drop S(1) - S(sigma_min);
            primacy S(e) - S(sigma_min), since S itself is infinite at 0; recency S(1 - e) - S(sigma_min);
            asymmetry (primacy - recency) / (primacy + recency), which accuracy = c0 + c1 S leaves as it is.
        derivatives: d quantity / d parameter, (5, P).
    """

    theory: ModelTheory
    names: tuple[str, ...]
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
        """Derivative of one of `QUANTITIES` in one of ``names``."""
        check_choice("quantity", quantity, QUANTITIES)
        check_choice("parameter", parameter, self.names)
        return float(self.derivatives[QUANTITIES.index(quantity), self.names.index(parameter)])

    def standard_errors(self, covariance: Any) -> Float[np.ndarray, " quantity"]:
        """Errors of `QUANTITIES` that uncertain parameters leave: the square root of diag(D covariance D^T), (5,).

        Args:
            covariance: of the first of ``names``, (K, K), the others being known: those of the theory as in
                `PlannedExperiment.covariance[:2, :2]`. An infinite variance makes every quantity that depends on
                it infinitely uncertain.
        """
        given = as_numbers("covariance", covariance)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or not 1 <= given.shape[0] <= len(self.names):
            raise ValueError(
                f"Argument `covariance` must be square, of up to {len(self.names)} parameters, but has shape "
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


def u_sensitivity(
    values: Mapping[str, float] | Sequence[float] | np.ndarray,
    *,
    theory: ModelTheory | None = None,
    edge: float = 0.05,
) -> Sensitivity:
    """Derivatives of the U of uniform prompts in the parameters of a theory, in t and in M.

    >>> import jaxkinetic as jk
    >>> found = jk.u_sensitivity({"beta": 1.0, "lam": 1.0}, theory=jk.theories.paper(time=1.0, vocab_size=8))
    >>> found.derivative("location", "lam") < 0
    True

    Args:
        values: of the theory's parameters, by name or in their order; within their ranges.
        theory: `theories.paper` if None, or any theory of a model with ALiBi weights; its time and vocab_size are
            those of the point. lam is at most 600.
        edge: where primacy and recency are read, in (0, 1/2): 0.05 for the first and last of ten items.

    Raises:
        ValueError: on arguments out of range, or where the profile has no interior minimum.
    """
    theory = theories.paper() if theory is None else theory
    check_type("theory", theory, ModelTheory)
    check_within("edge", edge, 0, 0.5)
    point = theory.in_order(values)
    model = theory.model(*jnp.asarray(point))
    lam = float(require_alibi(model.positions, "`u_sensitivity`", _ONLY_ALIBI).lam)
    if lam > _LARGEST_LAM:
        raise ValueError(f"Argument `lam` must be at most {_LARGEST_LAM:g}, but is {lam:g}.")
    p = jnp.asarray([*point, float(theory.time), float(theory.vocab_size)])
    n_kept = round_up(closed_form.growing_modes(theory.vocab_size), 8)
    (found, start), derivatives = _derivatives(p, edge, theory.build, n_kept)
    if not int(start.n_minima):
        recency = float(start.recency_threshold)
        ends = f"recency ends at t = {recency:.4g}" if recency > 0 else "there is no recency at any depth"
        at = ", ".join(f"{name} = {value:g}" for name, value in zip(theory.names, point, strict=True))
        raise ValueError(
            f"The profile {theory} at {at} has no interior minimum, so that there is no U to move ({ends})."
        )
    names = (*theory.names, "time", "vocab_size")
    return Sensitivity(theory, names, np.asarray(p), float(edge), np.asarray(found), np.asarray(derivatives))


@eqx.filter_jit
def _derivatives(p, edge, build, n_kept):
    def twice(p):
        values, shape = u_quantities(p, edge, build, n_kept)
        return values, (values, shape)

    derivatives, both = jax.jacfwd(twice, has_aux=True)(p)
    return both, derivatives


@trusted()
def u_quantities(
    p: Float[Array, " parameter"], edge: float | Scalar, build: Callable[..., CausalAttention], n_kept: int
) -> tuple[Float[Array, " quantity"], UShape]:
    """Evaluate `QUANTITIES`, differentiable in p through the minimum, and the shape they are of.

    Args:
        p: values of the theory's parameters, t and M.
        edge: distance e of the reference positions from the ends.
        build: values of the theory's parameters -> model.
        n_kept: number of modes whose decoder weight counts.
    """
    *values, time, vocab_size = p
    model = build(*values)
    alibi, rates = require_alibi(model.positions, "`u_sensitivity`", _ONLY_ALIBI), model.kernel.growth_rates()
    rates = rates[:n_kept]
    log_weights = closed_form.log_mode_weights(vocab_size, rates.size)
    shape = shape_of_modes(model.kernel, alibi.lam, time, log_weights)
    primacy, recency = (
        closed_form.profile(rates, log_weights, time, s, alibi, model.kernel.has_signed_rates) - shape.minimum
        for s in (edge * jnp.ones_like(time), 1 - edge + 0 * time)
    )
    asymmetry = (primacy - recency) / (primacy + recency)
    return jnp.stack([shape.argmin, shape.drop, primacy, recency, asymmetry]), shape
