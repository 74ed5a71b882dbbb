"""The blocks of a fit by simulation, one after the other: where to step, when to stop, where to go on."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxkinetic._types import PRNGKeyArray
from jaxkinetic.inference.lines import best_line
from jaxkinetic.inference.simulated import simulation_blocks as state
from jaxkinetic.inference.simulated.simulated_shape import (
    SPACING,
    Geometry,
    SimulatedShape,
    descent,
    run_block,
)
from jaxkinetic.inference.simulated.simulation_blocks import Blocks, Elimination, Progress, Weighted
from jaxkinetic.model import CausalAttention, PromptLaw
from jaxkinetic.particles.ensemble import batch_size, local_devices
from jaxkinetic.retrieval.estimators import Estimator, Problem
from jaxkinetic.retrieval.profile_ensemble import ProfileEnsemble, prepare_profile
from jaxkinetic.retrieval.steps import check_steps, choose_steps, measure_steps
from jaxkinetic.theories import ModelTheory

_FEWEST_BLOCKS = 8
_DRIFT = 3.0
# In the data's standard errors: so far the model is linear.
_LONGEST_STEP = 0.5
_LARGEST_BLUR = 0.1
_FARTHEST_CONTROL = 0.1
_PROMPTS = 2**14
_SIGMA = np.linspace(0.05, 0.95, 7)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a fit is of; arguments as `fit_by_simulation` has them, the curves as rectangles over source tokens."""

    theory: ModelTheory
    law: PromptLaw
    estimator: Estimator
    n_tokens: int
    sources: Float[np.ndarray, " source"]
    data: Weighted
    errors_known: bool
    key: PRNGKeyArray
    steps: int
    batch: int
    learning_rate: float
    memory: float

    def ensemble(self, u: Float[np.ndarray, "2"], control_variate: bool | None = None) -> ProfileEnsemble:
        """The profile's ensemble at coordinates u, with the control there, if there is one."""
        theory = self.theory
        return prepare_profile(
            self.model(u), float(theory.time), int(theory.vocab_size), self.n_tokens, prompts=self.law,
            estimator=self.estimator, control_variate=control_variate, sources=self.sources,
        )  # fmt: skip

    def model(self, u: Float[np.ndarray, "2"]) -> CausalAttention:
        """The model at coordinates u."""
        return self.theory.model(*jnp.asarray(self.theory.unscaled(u)))

    @property
    def ends(self) -> Float[np.ndarray, "2 parameter"]:
        """Lower and upper ends of u."""
        parameters = self.theory.parameters
        return np.stack(
            [self.theory.scaled(np.array([getattr(p, end) for p in parameters])) for end in ("low", "high")]
        )

    def said(self, u: Float[np.ndarray, "2"]) -> str:
        """The parameters at coordinates u, in words."""
        values = self.theory.unscaled(np.asarray(u))
        return ", ".join(f"{name} = {value:.4g}" for name, value in zip(self.theory.names, values, strict=True))

    def digest(self, n_steps: int, start: Float[np.ndarray, "2"]) -> str:
        """Fingerprint of all that the bits of the result depend on; of functions, their values."""
        models, theory = [self.model(start + shift) for shift in (0.0, SPACING)], self.theory
        seen = [m.kernel.coefficients() for m in models] + [
            m.positions.log_weight(jnp.asarray(_SIGMA)) for m in models
        ]
        law = [np.asarray(self.law.fourier(jnp.asarray(s), 8)) for s in _SIGMA]
        numbers = [
            float(theory.time),
            float(theory.vocab_size),
            self.n_tokens,
            self.steps,
            self.batch,
            self.learning_rate,
            n_steps,
        ]
        key = jax.random.key_data(self.key) if jnp.issubdtype(self.key.dtype, jax.dtypes.prng_key) else self.key
        return state.digest(
            type(self.law).__name__, self.estimator.name, *numbers, start, self.sources, *self.data, self.ends,
            key, *seen, np.real(law), np.imag(law),
        )  # fmt: skip


class Summary(NamedTuple):
    """What the tail of the blocks says.

    Attributes:
        progress: the average, of every block's mean after one Gauss-Newton step on its own residuals, which have no
            memory of other blocks; and how far it may be off.
        shape: S_N at the average, (S,).
        variance: its Monte Carlo variance, (S,).
        lines: the curves' lines and the Jacobian beside them.
        data: the curves, with weights from their scatter where their errors are not known.
        slope: derivative in u of the equation that is solved, (2, 2).
        scatter: covariance of its left side, (2, 2).
        noise: Monte Carlo noise of the slope, (2, 2).
        whiten: matrix from whitened coordinates to u.
    """

    progress: Progress
    shape: Float[np.ndarray, " source"]
    variance: Float[np.ndarray, " source"]
    lines: Elimination
    data: Weighted
    slope: Float[np.ndarray, "2 2"]
    scatter: Float[np.ndarray, "2 2"]
    noise: Float[np.ndarray, "2 2"]
    whiten: Float[np.ndarray, "2 2"]

    @property
    def blur(self) -> float:
        """Monte Carlo noise over what it blurs, the spread of the shape over positions; at worst over curves.

        Lines through a blurred shape are too flat, and flat lines move no parameter.
        """
        weight, token = self.data.weight, self.data.token
        line = best_line(self.shape[token], self.data.accuracy, weight)
        noise = np.sum(weight * self.variance[token], axis=1)
        return float(np.max(noise / line.spread))


@dataclasses.dataclass(frozen=True)
class Run:
    """A fit that is ready to go.

    Attributes:
        settings: what it is of.
        problem: the ensemble's problem without a control.
        estimator: "adjoint" or "glauber".
        n_steps: number of constant steps to depth t.
        chunk: prompts that move at once.
        has_control: whether the limit predicts prompts.
        configuration: fingerprint.
    """

    settings: Settings
    problem: Problem
    estimator: Estimator
    n_steps: int
    chunk: int
    has_control: bool
    configuration: str

    @property
    def n_jacobian(self) -> int:
        """Prompts of a block that give its Jacobian, an even number: a quarter of those that give values."""
        return 2 * -(-self.settings.steps * self.settings.batch // 8)

    @property
    def prompts_per_block(self) -> int:
        """All prompts of a block."""
        return self.n_jacobian + self.settings.steps * self.settings.batch

    def go(
        self,
        start: Float[np.ndarray, "2"],
        tolerance: float,
        max_blocks: int,
        checkpoint: str | Path | None,
        progress: bool,
    ) -> tuple[Blocks, bool]:
        """Run blocks until the average is good enough, or ``max_blocks`` of them; tell which."""
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"Argument `checkpoint` must be in a folder that exists, but {path.parent} does not.")
        blocks = self._none(start) if path is None or not path.exists() else state.load(path, self.configuration)
        shape, converged = None, False
        quiet, done = None if progress else True, len(blocks.means)
        with tqdm(total=max_blocks, initial=done, unit="block", disable=quiet) as bar:
            while True:
                if len(blocks.means) > 0:
                    found = self.summary(blocks)
                    converged = self._is_enough(found, len(blocks.means[blocks.tail]), tolerance)
                    said = self.settings.said(found.progress.mean)
                    bar.set_postfix_str(f"{said}, error {found.progress.error:.2g}")
                    if converged or len(blocks.means) >= max_blocks:
                        return blocks, converged
                    around = blocks.means[blocks.tail].mean(axis=0)
                    if np.linalg.norm(around - blocks.center) > _FARTHEST_CONTROL:
                        blocks, shape = blocks._replace(center=around), None
                shape = self.shape(blocks.center) if shape is None else shape
                blocks = self._next(blocks, shape)
                if path is not None:
                    state.save(path, blocks, self.configuration)
                bar.update()

    def shape(self, center: Float[np.ndarray, "2"]) -> SimulatedShape:
        """Values from prompts, with the control expanded round a center."""
        stencil = None
        if self.has_control:
            shifts = SPACING * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
            controls = [self.settings.ensemble(center + shift, True).problem.control for shift in shifts]
            stencil = jax.tree.map(lambda *leaves: jnp.stack(leaves), *controls)
        return SimulatedShape(self.problem, stencil, jnp.asarray(center), self.settings.theory, self.estimator)

    def summary(self, blocks: Blocks) -> Summary:
        """What the blocks that count say together."""
        data, tail = self.settings.data, blocks.tail
        means, shapes = blocks.means[tail], blocks.shapes[tail]
        jacobians, shape = blocks.jacobians[tail].mean(axis=0), shapes.mean(axis=0)
        limit = blocks.limits[tail].mean(axis=0)
        lines = state.eliminate(shape, jacobians, limit, data)
        if not self.settings.errors_known:
            # The scatter round the best lines stands for the errors: chi-squared becomes its degrees of freedom.
            dof = max(np.count_nonzero(data.weight) - 2 - 2 * len(data.weight), 1)
            scatter = np.sum(data.weight * lines.residual**2)
            data = data._replace(weight=data.weight * dof / max(scatter, np.finfo(float).tiny ** 0.5))
        slope, spread, noise = lines.information(data)
        whiten = state.whitening(spread)
        estimates = means + np.stack([lines.step(values, data, whiten) for values in shapes])
        moved = (means - means.mean(axis=0)) @ jacobians.mean(axis=0).T
        variance = np.zeros_like(shape)
        if len(means) > 1:
            variance = np.var(shapes - moved, axis=0, ddof=1) / len(means)
        at = state.progress(means, estimates, whiten)
        return Summary(at, shape, variance, lines, data, slope, spread, noise, whiten)

    def step_error(self, u: Float[np.ndarray, "2"]) -> float:
        """Root-mean-square error that the constant steps leave in one prompt's values, at worst over sources."""
        here = local_devices(None)[:1]
        s = self.settings
        return measure_steps(s.ensemble(u), s.key, self.n_steps, s.memory, here)

    @staticmethod
    def _is_enough(found: Summary, count: int, tolerance: float) -> bool:
        at = found.progress
        is_still = at.drift <= _DRIFT or at.shift <= tolerance
        # Without contrast no step moves: that is being stuck, not having arrived.
        has_contrast = bool(np.any(found.lines.contrast > 0))
        return (
            count >= _FEWEST_BLOCKS
            and has_contrast
            and at.error <= tolerance
            and is_still
            and at.step <= _LONGEST_STEP
            and found.blur <= _LARGEST_BLUR
        )

    def _none(self, start: Float[np.ndarray, "2"]) -> Blocks:
        n_sources = self.settings.sources.size
        optimizer = descent(self.settings.learning_rate).init(jnp.zeros(2))
        return Blocks(
            np.zeros((0, 2)), np.zeros((0, n_sources)), np.zeros((0, 2, n_sources, 2)), np.zeros((0, n_sources, 2)),
            np.zeros((0, 2), bool), start, start, [np.asarray(leaf) for leaf in jax.tree.leaves(optimizer)],
        )  # fmt: skip

    def _geometry(self, blocks: Blocks) -> Geometry:
        data = self.settings.data
        gain, whiten, contrast = np.zeros((2, *data.accuracy.shape)), np.eye(2), np.zeros(len(data.accuracy))
        if len(blocks.means) > 0:
            found = self.summary(blocks)
            contrast, whiten = found.lines.contrast, found.whiten
            gain = -np.einsum("cpj,jk->kcp", found.lines.gain(found.data), whiten)
        fixed = gain, contrast, whiten, data.accuracy, data.token, *self.settings.ends
        return Geometry(*(jnp.asarray(x) for x in fixed))

    def _next(self, blocks: Blocks, shape: SimulatedShape) -> Blocks:
        s, count = self.settings, len(blocks.means)
        template = descent(s.learning_rate).init(jnp.zeros(2))
        optimizer = jax.tree.unflatten(jax.tree.structure(template), [jnp.asarray(x) for x in blocks.optimizer])
        found = run_block(
            shape, self._geometry(blocks), jnp.asarray(blocks.end), optimizer, s.key,
            jnp.asarray(count * self.prompts_per_block, jnp.uint32), s.learning_rate, s.steps, s.batch,
            self.n_jacobian, self.chunk,
        )  # fmt: skip
        near = s.said(np.asarray(found.end))
        if not found.resolved:
            raise RuntimeError(
                f"{shape.model(jnp.asarray(blocks.end)).kernel.n_modes} Fourier modes do not resolve the kernel "
                f"near {near}: raise its `n_modes`, or narrow the ranges of the theory."
            )
        if not all(bool(jnp.all(jnp.isfinite(x))) for x in (found.shape, found.jacobians, found.end)):
            raise RuntimeError(
                f"Values near {near} are not finite: tokens part from one another so fast that derivatives "
                "explode. Use estimator='glauber', or narrow the ranges of the theory."
            )
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found.optimizer)]
        sums = {"means": found.mean, "shapes": found.shape, "jacobians": found.jacobians, "cut": found.at_end}
        after = blocks.add(sums | {"limits": shape.limit}, found.end, leaves)
        if count == 0 and not np.any(self.summary(after).lines.contrast > 0):
            raise ValueError(
                f"Argument `start` must give a profile that rises where a curve does, but at {s.said(blocks.end)} "
                "every curve has c1 = 0."
            )
        return after


def prepare_run(settings: Settings, u: Float[np.ndarray, "2"], n_steps: int | None) -> Run:
    """Tabulate what all blocks share, at a start u, and find the number of steps there."""
    ensemble = settings.ensemble(u)
    here = local_devices(None)[:1]
    if n_steps is None:
        n_steps, _ = choose_steps(ensemble, settings.key, _PROMPTS, None, 0, settings.memory, here)
    check_steps(n_steps)
    problem = dataclasses.replace(ensemble.problem, control=None, n_steps=n_steps)
    # The Jacobian moves two tangents beside the values.
    chunk = min(batch_size(3 * ensemble.bytes_per_prompt, settings.memory), settings.batch)
    return Run(
        settings, problem, ensemble.estimator, n_steps, chunk, ensemble.problem.control is not None,
        settings.digest(n_steps, u),
    )  # fmt: skip
