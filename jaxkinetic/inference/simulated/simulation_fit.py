"""Fit of a theory's parameters through the particle simulator, for what has no closed form.

accuracy(sigma_0) = c0 + c1 S_N(sigma_0; parameters): finite N, any law of the prompts, any kernel and weights. S_N
and its Jacobian come from random prompts, and stochastic gradient steps in whitened coordinates minimise

    chi^2 / 2 = sum_i (accuracy_i - c0 - c1 S_N(sigma_i))^2 / (2 s_i^2),    c0, c1 >= 0 eliminated.

Residuals come from fresh prompts, the Jacobian, projected beside constants and the shape, from those of earlier
blocks: the two are independent, so that their product has no bias from the variance of either (`simulated_shape`).
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    PRNGKeyArray,
    check_at_least,
    check_choice,
    check_flags,
    check_key,
    check_level,
    check_path,
    check_positive_number,
    check_type,
    check_within,
)
from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.fit.alternatives import goodness
from jaxkinetic.inference.fit.curve_fit import check_problem, fit_curves
from jaxkinetic.inference.fit.fitted_values import FittedValues
from jaxkinetic.inference.fit.likelihood import stack_curves
from jaxkinetic.inference.planned_experiment import spectrum
from jaxkinetic.inference.simulated.simulation_blocks import Blocks, Weighted, counted
from jaxkinetic.inference.simulated.simulation_run import Run, Settings, prepare_run
from jaxkinetic.model import PromptLaw, UniformPrompts
from jaxkinetic.retrieval.estimators import Estimator
from jaxkinetic.retrieval.profile_ensemble import choose_estimator, source_tokens
from jaxkinetic.retrieval.steps import check_steps
from jaxkinetic.theories import ModelTheory, paper

# Linear errors of an e-fold say no more than that the parameter cannot be told.
_BLIND_ERROR = 1.0
_MEMORY = 2.0**28


@dataclasses.dataclass(frozen=True, repr=False)
class SimulationFit(FittedValues, Shown):
    """Result of `fit_by_simulation`. Parameters are attributes too: ``fit.beta`` is ``fit.values["beta"]``.

    Attributes:
        theory: what was fitted.
        values: best value of each parameter; see ``identifiable`` before quoting one.
        covariance: of the parameters, from the data and from the simulation together, (2, 2); infinite variances
            where the data are blind.
        data_covariance: of the parameters in their scales, log beta and arcsinh lam, from the curves' own errors,
            (2, 2); likewise.
        monte_carlo_covariance: of these from the finite number of prompts, (2, 2).
        identifiable: whether the curves and the prompts that were run bound each parameter: the information is
            not singular, the error is below a unit of its scale (an e-fold of beta, of sqrt(1 + lam^2)) and the
            steps did not reach an end of its range.
        converged: whether the fit ended by its stopping rule and not for want of blocks.
        monte_carlo_error: Monte Carlo error over the data's standard error, at worst over directions.
        chi2: chi-squared at the fit, less what the noise of the simulated shape adds to it on average; 0 where it
            does not stand out of that noise.
        dof: points less parameters: two of the theory, and two per curve.
        p_value: probability of a larger chi-squared if the model were true; NaN where errors are not known.
        offset: c0 of each curve, (C,).
        contrast: c1 of each curve, (C,).
        sources: positions of the source tokens, (S,).
        profile: S_N there at the fit, (S,).
        profile_error: Monte Carlo errors of these, (S,).
        curves: the curves that were fitted.
        n_tokens: number of tokens N.
        estimator: "adjoint" or "glauber".
        n_prompts: number of prompts that were run.
        n_steps: number of constant steps to depth t.
        step_error: root-mean-square error that these leave in one prompt's values at the fit, at worst over
            sources.
        history: mean of the parameters in their scales of every block, (B, 2).
    """

    theory: ModelTheory
    values: dict[str, float]
    covariance: Float[np.ndarray, "2 2"]
    data_covariance: Float[np.ndarray, "2 2"]
    monte_carlo_covariance: Float[np.ndarray, "2 2"]
    identifiable: dict[str, bool]
    converged: bool
    monte_carlo_error: float
    chi2: float
    dof: int
    p_value: float
    offset: Float[np.ndarray, " curve"]
    contrast: Float[np.ndarray, " curve"]
    sources: Float[np.ndarray, " source"]
    profile: Float[np.ndarray, " source"]
    profile_error: Float[np.ndarray, " source"]
    curves: list[RetrievalCurve]
    n_tokens: int
    estimator: str
    n_prompts: int
    n_steps: int
    step_error: float
    history: Float[np.ndarray, "block 2"]

    @property
    def standard_errors(self) -> dict[str, float]:
        """Standard error of each parameter, infinite where unidentified by the information."""
        return dict(zip(self.theory.names, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def tail(self) -> slice:
        """Blocks of the history that make the estimate."""
        return counted(len(self.history))

    def describe(self, name: str) -> str:
        """Value and standard error in words, with "unidentified" where the curves do not bound it."""
        check_choice("name", name, self.identifiable)
        value = self.values[name]
        if not self.identifiable[name]:
            return f"{value:.4g}, unidentified"
        return f"{value:.4g} +- {self.standard_errors[name]:.3g}"

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Interval of one parameter, normal in its scale, of data and Monte Carlo errors."""
        check_choice("name", name, self.values)
        check_level(level)
        place, parameter = self.theory.names.index(name), self.theory.parameters[self.theory.names.index(name)]
        variance = (self.data_covariance + self.monte_carlo_covariance)[place, place]
        half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
        center = parameter.scaled(np.asarray(self.values[name]))
        with np.errstate(over="ignore"):
            low, high = parameter.unscaled(np.array([center - half, center + half]))
        return float(low), float(high)

    def predict(self, curve: RetrievalCurve) -> Float[np.ndarray, " position"]:
        """Fitted accuracy of one of the fitted curves at its own positions."""
        at, tokens = self._place(curve)
        return self.offset[at] + self.contrast[at] * self.profile[tokens]

    def prediction_error(self, curve: RetrievalCurve) -> Float[np.ndarray, " position"]:
        """Monte Carlo error of `predict`, of the simulated shape alone."""
        at, tokens = self._place(curve)
        return self.contrast[at] * self.profile_error[tokens]

    def _place(self, curve: RetrievalCurve) -> tuple[int, np.ndarray]:
        index = next((i for i, c in enumerate(self.curves) if c is curve), None)
        if index is None:
            raise ValueError("Argument `curve` must be one of the fitted curves; see `.curves`.")
        tokens = (source_tokens(curve.sources, self.n_tokens, False) + 1) / self.n_tokens
        return index, np.searchsorted(self.sources, tokens)

    def contains(self, values: Mapping[str, float] | Sequence[float], level: float = 0.95) -> bool:
        """Whether the joint region of the parameters in their scales holds a point: its two-dimensional ellipse.

        Args:
            values: of the parameters, by name or in their order.
            level: coverage of the region.
        """
        check_level(level)
        total = self.data_covariance + self.monte_carlo_covariance
        if not np.all(np.isfinite(total)):
            raise ValueError(
                f"The joint region is not bounded: the curves do not identify {' and '.join(self.values)}."
            )
        here, there = np.array([*self.values.values()]), self.theory.in_order(values)
        away = self.theory.scaled(there) - self.theory.scaled(here)
        return bool(away @ np.linalg.solve(total, away) <= -2 * math.log1p(-level))


def fit_by_simulation(
    curves: Sequence[RetrievalCurve] | RetrievalCurve,
    n_tokens: int,
    key: PRNGKeyArray,
    *,
    theory: ModelTheory | None = None,
    prompts: PromptLaw | None = None,
    estimator: str | Estimator = "auto",
    start: Mapping[str, float] | Sequence[float] | None = None,
    tolerance: float = 0.1,
    max_blocks: int = 64,
    steps: int = 32,
    batch: int = 32,
    learning_rate: float = 0.2,
    n_steps: int | None = None,
    checkpoint: str | Path | None = None,
    memory: float = _MEMORY,
    progress: bool = True,
) -> SimulationFit:
    """Fit a theory of two parameters to retrieval curves through the simulator: accuracy = c0 + c1 S_N(sigma_0).

    c0 and c1 >= 0 belong to each curve and are eliminated by variable projection. S_N is that of prompts of N
    tokens of any law, kernel and weights, estimated without bias and differentiated through the simulation.
    Stochastic gradient steps (optax) run in the parameters' scales u, for the paper's theory (log beta,
    arcsinh lam), whitened by the Gauss-Newton matrix. The estimate is the Polyak average of blocks of steps after
    the first quarter, each block's mean moved by one Gauss-Newton step on its own residuals. The fit ends when the
    Monte Carlo error of the average, by batch means, is below ``tolerance`` of the data's standard errors, its
    halves do not differ visibly and the noise of S_N is small beside its spread.

    Random numbers are common within a prompt: its Jacobian is the derivative of its value with the prompt held, and
    fits with one key meet the same prompts in the same order. They are not common to steps, which draw fresh
    prompts, nor to residuals and Jacobian, whose product would be biased by their covariance: at N = 128, for 60
    positions of 1000 questions, 32 prompts that serve both move a Gauss-Newton step by 12 of the data's standard
    errors, and one set of prompts for all steps would keep its own error however many steps are made.

    The errors are those of linear theory in u: the inverse of the Fisher information of the curves with c0 and c1
    free, widened by the noise of the Jacobian, plus the Monte Carlo covariance. Without n_questions the scatter
    round the fit sets the data's errors.

    Args:
        curves: measured curves; a position sigma_0 is token ceil(N sigma_0), which must come before the last.
        n_tokens: number of tokens N >= 2.
        key: random key; prompt p draws from ``fold_in(key, p)``.
        theory: `theories.paper` with beta from 0.01 to 3 if None, or any theory of a model (`theories.of_model`) of
            two parameters and a whole vocab_size; it need not have a closed form.
        prompts: law of the initial tokens; uniform if None.
        estimator: "adjoint", "glauber" or "auto", as `estimate_profile` has them.
        start: values to start from, by name or in their order; those of `fit_curves`, the closed form of the limit,
            if None.
        tolerance: Monte Carlo error that is aimed at, in units of the data's standard errors.
        max_blocks: blocks after which the fit ends in any case.
        steps: stochastic steps a block.
        batch: prompts a step. As many prompts as two steps take give each block's Jacobian.
        learning_rate: length of the steps in whitened coordinates, where 1 is a Gauss-Newton step.
        n_steps: constant steps to depth t; if None as many as the prompts of all blocks ask for, at the start.
        checkpoint: file that is written after every block. Where it exists the fit goes on from it and ends with
            the same bits as one without interruption; ``max_blocks`` and ``tolerance`` may differ.
        memory: memory budget in bytes, which sets how many prompts move at once.
        progress: whether to show the blocks, on a terminal.

    Returns:
        The fit. A parameter that the curves do not bound is "unidentified".

    Raises:
        ValueError: on curves, a start or settings that cannot be fitted, an estimator that the law does not allow,
            or a checkpoint that is damaged or of another configuration.
        RuntimeError: if the kernel's modes do not resolve a beta that the steps reach, or values are not finite.
    """
    theory = paper(beta_range=(0.01, 3.0)) if theory is None else theory
    check_type("theory", theory, ModelTheory)
    if len(theory.parameters) != 2:
        raise ValueError(
            f"Argument `theory` must have two parameters for a fit through the simulator, but {theory} has "
            f"{len(theory.parameters)}."
        )
    if theory.vocab_size != int(theory.vocab_size):
        raise ValueError(f"Argument `theory` must have a whole vocab_size, but has {theory.vocab_size:g}.")
    curves = check_problem(curves, theory)
    check_at_least("n_tokens", n_tokens, 2)
    check_sensible(n_tokens=n_tokens, steps=steps, batch=batch, max_blocks=max_blocks)
    for name, value in (("steps", steps), ("batch", batch), ("max_blocks", max_blocks)):
        check_at_least(name, value, 2)
    for name, value in (("tolerance", tolerance), ("memory", memory)):
        check_positive_number(name, value)
    check_within("learning_rate", learning_rate, 0, 2)
    check_flags(progress=progress)
    check_key("key", key)
    if n_steps is not None:
        check_steps(n_steps)
    if checkpoint is not None:
        check_path("checkpoint", checkpoint)
    if estimator == "naive":
        raise ValueError("Argument `estimator` must not be 'naive': its noise hides the profile. Use 'glauber'.")
    law = UniformPrompts() if prompts is None else prompts
    check_type("prompts", law, PromptLaw)
    each = _tokens(curves, n_tokens)
    chosen = choose_estimator(law, estimator, "soft")
    first = theory.scaled(_start(start, curves, theory))
    tokens = np.unique(np.concatenate(each))
    stacked, errors_known = stack_curves(curves, theory)
    index = [np.pad(np.searchsorted(tokens, t), (0, stacked.accuracy.shape[1] - t.size)) for t in each]
    data = Weighted(np.asarray(stacked.accuracy), np.asarray(stacked.weight), np.stack(index))
    settings = Settings(
        theory, law, chosen, n_tokens, (tokens + 1) / n_tokens, data, errors_known, key, steps, batch,
        learning_rate, memory,
    )  # fmt: skip
    run = prepare_run(settings, first, n_steps)
    blocks, converged = run.go(first, tolerance, max_blocks, checkpoint, progress)
    found = _result(run, blocks, converged, curves)
    if not converged:
        warnings.warn(
            f"The fit ended after {max_blocks} blocks with a Monte Carlo error of {found.monte_carlo_error:.2g} of "
            f"the data's, where {tolerance:g} and no drift were asked for: raise `max_blocks` or `batch`.",
            stacklevel=2,
        )
    return found


def _start(start: Any, curves: list[RetrievalCurve], theory: ModelTheory) -> Float[np.ndarray, "2"]:
    if start is not None:
        return theory.in_order(start, "start")
    middle = [p.value_at(np.asarray(0.5)) for p in theory.parameters]
    if theory.model(*jnp.asarray(middle)).positions.exponential_rate is None:
        raise ValueError(f"Argument `start` must be given: {theory} has no closed form to start from.")
    return np.array([*fit_curves(curves, theory=theory).values.values()])


def _tokens(curves: Sequence[RetrievalCurve], n_tokens: int) -> list[np.ndarray]:
    """Source token, from 0, of every position of every curve."""
    if any(c.sources[-1] >= 1 for c in curves):
        raise ValueError("Argument `curves` must have positions below 1: the last token is the reader.")
    return [source_tokens(c.sources, n_tokens, False) for c in curves]


def _result(run: Run, blocks: Blocks, converged: bool, curves: list[RetrievalCurve]) -> SimulationFit:
    at, settings = run.summary(blocks), run.settings
    theory = settings.theory
    u = np.clip(at.progress.mean, *settings.ends)
    values = theory.unscaled(u)
    n_points = sum(c.sources.size for c in curves)
    dof = n_points - 2 - 2 * len(curves)
    # What is left of the noise of the shape beside the parameters.
    noise = np.sum(at.data.weight * at.lines.contrast[:, None] ** 2 * at.variance[at.data.token]) * dof / n_points
    chi2 = max(float(np.sum(at.data.weight * at.lines.residual**2) - noise), 0.0)
    seen, blind = spectrum((at.slope + at.slope.T) / 2, at.noise)
    hidden = np.linalg.norm(blind, axis=1) > 0
    spread = seen @ (seen.T @ at.scatter @ seen) @ seen.T
    covariance = np.where(hidden[:, None] | hidden[None, :], np.nan, spread)
    np.fill_diagonal(covariance, np.where(hidden, np.inf, np.diag(spread)))
    cut = np.any(blocks.cut[blocks.tail], axis=0) | (u != at.progress.mean)
    identifiable = ~hidden & (np.diag(covariance + at.progress.noise) < _BLIND_ERROR**2) & ~cut
    units = np.array([p.unit_at(float(x)) for p, x in zip(theory.parameters, values, strict=True)])
    return SimulationFit(
        theory=theory,
        values=dict(zip(theory.names, values.tolist(), strict=True)),
        covariance=(covariance + at.progress.noise) * np.multiply.outer(units, units),
        data_covariance=covariance,
        monte_carlo_covariance=at.progress.noise,
        identifiable=dict(zip(theory.names, identifiable.tolist(), strict=True)),
        converged=converged,
        monte_carlo_error=at.progress.error,
        chi2=chi2,
        dof=dof,
        p_value=goodness(chi2, dof) if settings.errors_known else math.nan,
        offset=at.lines.offset,
        contrast=at.lines.contrast,
        sources=settings.sources,
        profile=at.shape,
        profile_error=np.sqrt(at.variance),
        curves=curves,
        n_tokens=settings.n_tokens,
        estimator=run.estimator.name,
        n_prompts=len(blocks.means) * run.prompts_per_block,
        n_steps=run.n_steps,
        step_error=run.step_error(u),
        history=blocks.means,
    )
