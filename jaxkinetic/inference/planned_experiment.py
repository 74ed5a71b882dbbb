"""What a planned experiment would tell: Fisher information, expected errors, and the band they leave.

A curve measured at positions sigma_i with n_i questions each has binomial counts of mean n_i A_i,

    A_i = c0 + c1 s(sigma_i; parameters),    F = sum_i n_i / (A_i (1 - A_i)) grad A_i grad A_i^T

in theta = (parameters, c0, c1), with s the shape of a theory: S_t for the paper's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxkinetic import theories
from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    as_numbers,
    check_choice,
    check_finite,
    check_level,
    check_positions,
    check_scalar,
    check_type,
    trusted,
)
from jaxkinetic.theories import Theory

_RANK_TOLERANCE = 1e-12


@dataclasses.dataclass(frozen=True, repr=False)
class PlannedExperiment(Shown):
    """Expected information of one curve about theta = (parameters, c0, c1).

    Attributes:
        theory: what gives the shape of the curve.
        theta: values of ``names``, (P,).
        sources: positions sigma_0, (S,).
        n_questions: questions at each position, (S,).
        accuracy: expected accuracies, (S,).
        information: Fisher information F, symmetric and positive semi-definite, (P, P).
        covariance: inverse of F, (P, P); infinite variances where the experiment is blind.
        identifiable: for each of ``names``, whether F bounds its error.
    """

    theory: Theory
    theta: Float[np.ndarray, " parameter"]
    sources: Float[np.ndarray, " source"]
    n_questions: Float[np.ndarray, " source"]
    accuracy: Float[np.ndarray, " source"]
    information: Float[np.ndarray, "parameter parameter"]
    covariance: Float[np.ndarray, "parameter parameter"]
    identifiable: dict[str, bool]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the theory's parameters, "c0" and "c1"."""
        return (*self.theory.names, "c0", "c1")

    @property
    def standard_errors(self) -> dict[str, float]:
        """Expected standard error of each of ``names``, infinite where it is unidentified."""
        return dict(zip(self.names, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    def describe(self, name: str) -> str:
        """Value and expected standard error in words, with "unidentified" where there is none."""
        check_choice("name", name, self.names)
        value = float(self.theta[self.names.index(name)])
        if not self.identifiable[name]:
            return f"{value:.4g}, unidentified"
        error = self.standard_errors[name]
        # Linear errors wider than a positive parameter itself say no more than that it cannot be told.
        positive = [p.name for p in self.theory.parameters if p.scale == "log"]
        blind = " (as good as unidentified)" if name in positive and error > value else ""
        return f"{value:.4g} +- {error:.3g}{blind}"

    def band(self, sources: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy and the ends of its band, (S,) each, from the errors of all parameters: the delta method.

        The variance of A(sigma_0) is grad A^T F^{-1} grad A. A combination of parameters to which the experiment is
        blind opens the band where A depends on it.

        Args:
            sources: positions sigma_0 in (0, 1].
            level: coverage at each position.
        """
        check_level(level)
        at = _positions(sources)
        mean, gradient = _evaluate(self.theta, self.theory, at)
        seen, blind = spectrum(self.information)
        half = np.sqrt(np.sum((gradient @ seen) ** 2, axis=1))
        size = np.linalg.norm(gradient * _scale(self.information), axis=1)
        hidden = np.linalg.norm(gradient @ blind, axis=1) > 1e-6 * size
        half = np.where(hidden, np.inf, half) * NormalDist().inv_cdf((1 + level) / 2)
        return mean, mean - half, mean + half


def plan_experiment(
    sources: Any,
    n_questions: Any,
    values: Mapping[str, float] | Sequence[float] | np.ndarray,
    *,
    c0: float,
    c1: float,
    theory: Theory | None = None,
) -> PlannedExperiment:
    """Fisher information that a planned curve carries about the parameters of a theory, c0 and c1.

    >>> import jaxkinetic as jk
    >>> planned = jk.plan_experiment([0.1, 0.3, 0.5, 0.7, 0.9], 2655, {"beta": 1.0, "lam": 2.0}, c0=0.4, c1=0.1)
    >>> planned.identifiable["lam"]
    True

    Args:
        sources: positions sigma_0 in (0, 1], (S,).
        n_questions: questions at each position, one number or (S,).
        values: of the theory's parameters, by name or in their order; within their ranges.
        c0: accuracy where the shape is 0.
        c1: accuracy for a unit of the shape, not negative.
        theory: what gives the shape; `theories.paper` if None.

    Raises:
        ValueError: on arguments out of range, repeated positions, zero questions, or accuracies outside (0, 1).
    """
    theory = theories.paper() if theory is None else theory
    check_type("theory", theory, Theory)
    at = _positions(sources)
    if np.unique(at).size < at.size:
        raise ValueError(f"Argument `sources` must not repeat a position, but is {np.sort(at)}.")
    counts = as_numbers("n_questions", n_questions)
    check_sensible(n_questions=counts)
    if counts.ndim > 1 or counts.size not in (1, at.size) or not np.all(np.isfinite(counts) & (counts >= 1)):
        raise ValueError(
            f"Argument `n_questions` must be at least 1, one or for each position, but is {n_questions}."
        )
    counts = np.broadcast_to(counts, at.shape).astype(float)
    for name, value in (("c0", c0), ("c1", c1)):
        check_scalar(name, value)
        check_finite(name, value)
    if c1 < 0:
        raise ValueError(f"Argument `c1` must not be negative, but is {c1}.")
    theta = np.array([*theory.in_order(values), c0, c1], dtype=float)
    mean, gradient = _evaluate(theta, theory, at)
    if not np.all((mean > 0) & (mean < 1)):
        raise ValueError(
            f"Arguments `c0` and `c1` must give accuracies within (0, 1), but give {mean.min():.3g} "
            f"to {mean.max():.3g}."
        )
    standardised = gradient * np.sqrt(counts / (mean * (1 - mean)))[:, None]
    information = standardised.T @ standardised
    seen, blind = spectrum(information)
    variance = seen @ seen.T
    identifiable = np.linalg.norm(blind, axis=1) <= 1e-6 * _scale(information)
    covariance = np.where(identifiable[:, None] & identifiable[None, :], variance, np.nan)
    np.fill_diagonal(covariance, np.where(identifiable, np.diag(variance), np.inf))
    names = (*theory.names, "c0", "c1")
    return PlannedExperiment(
        theory, theta, at, counts, mean, information, covariance,
        dict(zip(names, identifiable.tolist(), strict=True)),
    )  # fmt: skip


def _scale(information):
    """Errors if every other parameter were known: the unit in which directions are compared."""
    diagonal = np.diag(information)
    return np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 1.0)


def spectrum(
    information: Float[np.ndarray, "n n"], noise: Float[np.ndarray, "n n"] | None = None
) -> tuple[Float[np.ndarray, "n seen"], Float[np.ndarray, "n blind"]]:
    """Factor of the covariance on the directions that an experiment sees, and the directions it does not see.

    A direction is seen if its information is above rounding and, where the matrix is an estimate, above its
    ``noise``.
    """
    scale = _scale(information)
    strength, direction = np.linalg.eigh(information * scale[:, None] * scale[None, :])
    floor = np.full(strength.shape, _RANK_TOLERANCE)
    if noise is not None:
        scaled = scale[:, None] * direction
        floor = np.maximum(floor, np.einsum("ik,ij,jk->k", scaled, noise, scaled))
    sees = strength > floor
    seen = scale[:, None] * direction[:, sees] / np.sqrt(strength[sees])
    return seen, scale[:, None] * direction[:, ~sees]


def _positions(sources):
    at = as_numbers("sources", sources)
    if at.ndim != 1 or at.size == 0:
        raise ValueError(f"Argument `sources` must be a non-empty one-dimensional array, but has shape {at.shape}.")
    check_positions("sources", at)
    return at


def _evaluate(theta, theory, sources):
    found = _accuracy_and_gradient(jnp.asarray(theta), theory, jnp.asarray(sources))
    mean, gradient = (np.asarray(x, float) for x in found)
    return mean, gradient


@eqx.filter_jit
@trusted()
def _accuracy_and_gradient(theta, theory, sources):
    def accuracy(theta):
        shape, log_scale = theory.log_shape(theta[:-2], sources)
        mean = theta[-2] + theta[-1] * shape * jnp.exp(log_scale)
        return mean, mean

    gradient, mean = jax.jacfwd(accuracy, has_aux=True)(theta)
    return mean, gradient
