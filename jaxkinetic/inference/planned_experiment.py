"""What a planned experiment would tell: Fisher information, expected errors, and the band they leave.

A curve measured at positions sigma_i with n_i questions each has binomial counts of mean n_i A_i,

    A_i = c0 + c1 S_t(sigma_i; beta, lam),    F = sum_i n_i / (A_i (1 - A_i)) grad A_i grad A_i^T

in theta = (beta, lam, c0, c1); t and M are fixed.
"""

import dataclasses
from functools import partial
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    check_choice,
    check_finite,
    check_level,
    check_positions,
    check_positive,
    round_up,
    trusted,
)
from jaxkinetic.limit import closed_form
from jaxkinetic.model import ALiBi, ExpCosine, required_modes

PARAMETERS = ("beta", "lam", "c0", "c1")
_RANK_TOLERANCE = 1e-12


@dataclasses.dataclass(frozen=True, repr=False)
class PlannedExperiment(Shown):
    """Expected information of one curve about theta = (beta, lam, c0, c1).

    Attributes:
        theta: values of `PARAMETERS`, (4,).
        time: depth t, fixed.
        vocab_size: vocabulary size M, fixed.
        sources: positions sigma_0, (S,).
        n_questions: questions at each position, (S,).
        accuracy: expected accuracies, (S,).
        information: Fisher information F, symmetric and positive semi-definite, (4, 4).
        covariance: inverse of F, (4, 4); infinite variances where the experiment is blind.
        identified: for each of `PARAMETERS`, whether F bounds its error.
    """

    theta: Float[np.ndarray, " parameter"]
    time: float
    vocab_size: float
    sources: Float[np.ndarray, " source"]
    n_questions: Float[np.ndarray, " source"]
    accuracy: Float[np.ndarray, " source"]
    information: Float[np.ndarray, "parameter parameter"]
    covariance: Float[np.ndarray, "parameter parameter"]
    identified: dict[str, bool]

    @property
    def standard_errors(self) -> dict[str, float]:
        """Expected standard error of each of `PARAMETERS`, infinite where it is unidentified."""
        return dict(zip(PARAMETERS, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    def describe(self, name: str) -> str:
        """Value and expected standard error in words, with "unidentified" where there is none."""
        check_choice("name", name, PARAMETERS)
        value = float(self.theta[PARAMETERS.index(name)])
        if not self.identified[name]:
            return f"{value:.4g}, unidentified"
        error = self.standard_errors[name]
        # Linear errors wider than the sharpness itself say no more than that it cannot be told.
        blind = " (as good as unidentified)" if name == "beta" and error > value else ""
        return f"{value:.4g} +- {error:.3g}{blind}"

    def band(self, sources: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy and the ends of its band, (S,) each, from the errors of all four parameters: the delta method.

        The variance of A(sigma_0) is grad A^T F^{-1} grad A. A combination of parameters to which the experiment is
        blind opens the band where A depends on it.

        Args:
            sources: positions sigma_0 in (0, 1].
            level: coverage at each position.
        """
        check_level(level)
        at = _positions(sources)
        mean, gradient = _evaluate(self.theta, self.time, self.vocab_size, at)
        seen, blind = spectrum(self.information)
        half = np.sqrt(np.sum((gradient @ seen) ** 2, axis=1))
        size = np.linalg.norm(gradient * _scale(self.information), axis=1)
        hidden = np.linalg.norm(gradient @ blind, axis=1) > 1e-6 * size
        half = np.where(hidden, np.inf, half) * NormalDist().inv_cdf((1 + level) / 2)
        return mean, mean - half, mean + half


def plan_experiment(
    sources: Any,
    n_questions: Any,
    beta: float,
    lam: float,
    c0: float,
    c1: float,
    time: float = 1.0,
    vocab_size: float = 8,
) -> PlannedExperiment:
    """Fisher information that a planned curve carries about beta, lam, c0 and c1.

    Args:
        sources: positions sigma_0 in (0, 1], (S,).
        n_questions: questions at each position, one number or (S,).
        beta: sharpness > 0.
        lam: positional bias.
        c0: accuracy where S_t = 0.
        c1: accuracy for a unit of S_t, not negative.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2, a real number.

    Raises:
        ValueError: on arguments out of range, repeated positions, zero questions, or accuracies outside (0, 1).
    """
    at = _positions(sources)
    if np.unique(at).size < at.size:
        raise ValueError(f"Argument `sources` must not repeat a position, but is {np.sort(at)}.")
    counts = np.asarray(n_questions, dtype=float)
    check_sensible(n_questions=counts, time=time, vocab_size=vocab_size)
    if counts.ndim > 1 or counts.size not in (1, at.size) or not np.all(np.isfinite(counts) & (counts >= 1)):
        raise ValueError(
            f"Argument `n_questions` must be at least 1, one or for each position, but is {n_questions}."
        )
    counts = np.broadcast_to(counts, at.shape).astype(float)
    for name, value in (("beta", beta), ("time", time)):
        check_positive(name, value)
    for name, value in (("lam", lam), ("c0", c0), ("c1", c1), ("vocab_size", vocab_size)):
        check_finite(name, value)
    if vocab_size < 2:
        raise ValueError(f"Argument `vocab_size` must be at least 2, but is {vocab_size}.")
    if c1 < 0:
        raise ValueError(f"Argument `c1` must not be negative, but is {c1}.")
    theta = np.array([beta, lam, c0, c1], dtype=float)
    mean, gradient = _evaluate(theta, float(time), float(vocab_size), at)
    if not np.all((mean > 0) & (mean < 1)):
        raise ValueError(
            f"Arguments `c0` and `c1` must give accuracies within (0, 1), but give {mean.min():.3g} "
            f"to {mean.max():.3g}."
        )
    standardised = gradient * np.sqrt(counts / (mean * (1 - mean)))[:, None]
    information = standardised.T @ standardised
    seen, blind = spectrum(information)
    variance = seen @ seen.T
    identified = np.linalg.norm(blind, axis=1) <= 1e-6 * _scale(information)
    covariance = np.where(identified[:, None] & identified[None, :], variance, np.nan)
    np.fill_diagonal(covariance, np.where(identified, np.diag(variance), np.inf))
    return PlannedExperiment(
        theta, float(time), float(vocab_size), at, counts, mean, information, covariance,
        dict(zip(PARAMETERS, identified.tolist(), strict=True)),
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
    at = np.asarray(sources, dtype=float)
    if at.ndim != 1 or at.size == 0:
        raise ValueError(f"Argument `sources` must be a non-empty one-dimensional array, but has shape {at.shape}.")
    check_positions("sources", at)
    return at


def _evaluate(theta, time, vocab_size, sources):
    n_modes = round_up(required_modes(float(theta[0]), jnp.result_type(float)), 8)
    kept = min(n_modes, closed_form.growing_modes(vocab_size))
    found = _accuracy_and_gradient(jnp.asarray(theta), time, vocab_size, jnp.asarray(sources), n_modes, kept)
    mean, gradient = (np.asarray(x, float) for x in found)
    return mean, gradient


@partial(jax.jit, static_argnums=(4, 5))
@trusted()
def _accuracy_and_gradient(theta, time, vocab_size, sources, n_modes, n_kept):
    def accuracy(theta):
        beta, lam, c0, c1 = theta
        rates = ExpCosine(beta, n_modes=n_modes).growth_rates()[:n_kept]
        log_weights = closed_form.log_mode_weights(vocab_size, n_kept)
        values = jax.vmap(lambda s: closed_form.profile(rates, log_weights, time, s, ALiBi(lam), signed=False))(
            sources
        )
        mean = c0 + c1 * values
        return mean, mean

    gradient, mean = jax.jacfwd(accuracy, has_aux=True)(theta)
    return mean, gradient
