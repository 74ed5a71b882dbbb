"""The retrieval profile of any law of the prompts, in two parts: chance and retrieval.

The soft accuracy (1.6) sums w_n E[e^{i n (theta_N(t) - theta_i(0))}], and every term is a product of marginals
plus a covariance,

    hat f(t, 1, -n) hat f_o(sigma_0, n) + hat C_phi(t, 1, -n; sigma_0) / N,    phi = e^{-i n theta}.

The products give `chance`, the accuracy if the last token were independent of the source. The covariances give
`values`, what the memory of the source adds. At finite N the marginal of the last token has a correction of order
1 / N of its own, which belongs to chance, is not part of the limit, and vanishes for the uniform law.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import (
    Scalar,
    as_float,
    check_at_least,
    check_positions,
    check_scalar,
    check_times,
    check_type,
)
from jaxkinetic.integrate import Solve
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.bessel import scaled_entire_bessel
from jaxkinetic.limit.correlations import check_sources, solve_correlations
from jaxkinetic.limit.resolution import Resolution
from jaxkinetic.model import CausalAttention, PromptLaw
from jaxkinetic.model.positions import log_graphon, require_alibi

_GAUSS_NODES = 32
_ROWS = 256


class RetrievalProfile(eqx.Module):
    """A retrieval profile to leading order in 1 / N.

    Attributes:
        sources: source positions sigma_0, (S,).
        chance: soft accuracy if the last token were independent of the source, (S,).
        scaled_values: S_t(sigma_0) e^{-log_scale}, (S,).
        log_scale: logarithm of the scale, constant under differentiation, (S,).
        vocab_size: vocabulary size M of the decoder.
        error: estimated error of the values, relative to the largest one; zero for closed forms.
    """

    sources: Float[Array, " source"]
    chance: Float[Array, " source"]
    scaled_values: Float[Array, " source"]
    log_scale: Float[Array, " source"]
    vocab_size: int = eqx.field(static=True)
    error: Scalar = eqx.field(default=0.0, converter=jnp.asarray)

    @property
    def values(self) -> Float[Array, "*batch source"]:
        """The profile S_t(sigma_0), from the covariances, (S,); (1.21) for uniform prompts.

        Raises:
            RuntimeError: where one exceeds the floating-point range; `log_values` do not.
        """
        return check_range(self.scaled_values * jnp.exp(self.log_scale))

    @property
    def log_values(self) -> Float[Array, "*batch source"]:
        """Logarithms of |S_t(sigma_0)|, (S,), which may be of any size; `signs` has the signs."""
        return self.log_scale + jnp.log(jnp.abs(self.scaled_values))

    @property
    def signs(self) -> Float[Array, "*batch source"]:
        """Sign of S_t(sigma_0), (S,): 1, -1 or 0. Kernels with negative growth rates have both."""
        return jnp.sign(self.scaled_values)

    def retrieval(self, n_tokens: int) -> Float[Array, "*batch source"]:
        """What memory of the source adds to the soft accuracy, sqrt(2 pi) / (M N) S_t(sigma_0)."""
        check_at_least("n_tokens", n_tokens, 2)
        return math.sqrt(2 * math.pi) / (self.vocab_size * n_tokens) * self.values

    def soft_accuracy(self, n_tokens: int) -> Float[Array, "*batch source"]:
        """Chance plus retrieval (1.20), without the 1 / N correction of chance, which is not in the limit."""
        return self.chance + self.retrieval(n_tokens)


def check_range(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return values of S_t, or fail where one is not finite."""
    return eqx.error_if(
        values,
        ~jnp.all(jnp.isfinite(values)),
        f"S_t exceeds the range of {values.dtype}: use `log_values` of `retrieval_profile`, or double precision.",
    )


def law_profile(
    model: CausalAttention,
    prompts: PromptLaw,
    time: Any,
    vocab_size: int,
    *,
    sources: Any,
    resolution: Resolution | None = None,
    options: Solve | None = None,
    tolerance: float | None = None,
) -> RetrievalProfile:
    """Chance and retrieval at depth t for prompts of any law smooth in sigma.

    chance = sqrt(pi / 2) / M (1 + 2 sum_n w_n Re hat f(t, 1, -n) hat f_o(sigma_0, n))

    S_t(sigma_0) = sum_n w_n Re hat C_{e^{i n theta}}(t, 1, n; sigma_0)

    Args:
        model: kernel and positional weights.
        prompts: law of the initial tokens; its vocabulary need not be the decoder's.
        time: depth t >= 0.
        vocab_size: vocabulary size M >= 2 of the decoder.
        sources: source positions sigma_0 in (0, 1), (S,).
        resolution: see `solve_correlations`.
        options: see `solve_correlations`.
        tolerance: see `solve_correlations`.

    Returns:
        The profile; differentiable in beta, lam and the law's parameters.

    Raises:
        ValueError: if t < 0, M < 2, a source lies outside (0, 1), or the law jumps in sigma.
        RuntimeError: if nodes or modes do not resolve the solution.
    """
    check_at_least("vocab_size", vocab_size, 2)
    check_scalar("time", time)
    check_sensible(time=time, vocab_size=vocab_size)
    time = as_float(check_times("time", time))
    check_type("prompts", prompts, PromptLaw)
    if np.ndim(sources) != 1:
        raise ValueError(
            f"Argument `sources` must be a non-empty one-dimensional array, but has shape {np.shape(sources)}."
        )
    sources = check_sources(sources, "sources")
    n_modes = closed_form.needed_modes(vocab_size)
    weights = closed_form.mode_weights(vocab_size, n_modes)
    observables, index = _distinct_observables(prompts, n_modes)

    def covariances(some: Float[Array, " some"]) -> tuple[Array, Array, Array]:
        found = solve_correlations(
            model, prompts, time[None], some, observable_mode=observables,
            resolution=resolution, options=options, tolerance=tolerance,
        )  # fmt: skip
        cross = found.cross(time, jnp.ones(()), n_modes)
        n = np.arange(n_modes)
        values, error = jnp.matmul(weights, cross[index, :, n].real), found.error * jnp.max(jnp.abs(cross))
        return values, error * jnp.sum(weights), found.field.modes(time, jnp.ones(()), n_modes)

    # The observables of a smooth law fill memory: solve for a few sources at a time.
    size = max(1, min(sources.size, _ROWS // len(observables)))
    padded = jnp.concatenate([sources, jnp.broadcast_to(sources[-1], (-sources.size % size,))])
    parts = [covariances(some) for some in padded.reshape(-1, size)]
    values = jnp.concatenate([values for values, _, _ in parts])[: sources.size]
    error = jnp.max(jnp.stack([error for _, error, _ in parts])) / jnp.maximum(jnp.max(jnp.abs(values)), 1e-30)
    start = jax.vmap(prompts.fourier, (0, None))(sources, n_modes)
    marginals = jnp.real(start * jnp.conj(parts[0][2])[None, :])
    chance = math.sqrt(math.pi / 2) / vocab_size * (1 + 2 * marginals @ weights)
    return RetrievalProfile(sources, chance, values, jnp.zeros_like(values), vocab_size, error)


def uniform_codeword_correction(model: CausalAttention, time: Any, vocab_size: int, source: Any) -> Scalar:
    """The profile S_t(sigma_0) of tokens that are uniform over the M codewords, in closed form.

    The law is stationary, but as a sum of atoms it has the modes n = 0 mod M. With b_r = sum n^2 w^(n) and
    c_r = sum n w^(n) over all integers n = r mod M,

        S = sum_n w_n n c_n k(1, sigma_0) int_0^t e^{-b_0 s} Phi_0(b_n s Y) ds,

    Phi_0(z) = I_0(2 sqrt(z)). Uniform on the circle b_0 is 0, b_n = a_n and n c_n = a_n, and S is (1.21).

    Args:
        model: kernel and ALiBi weights.
        time: depth t >= 0.
        vocab_size: vocabulary size M >= 2, of the law and of the decoder.
        source: source position sigma_0 in (0, 1].

    Raises:
        ValueError: on t < 0, M < 2, a position outside (0, 1], or weights other than ALiBi.
        RuntimeError: if S exceeds the floating-point range.
    """
    check_type("model", model, CausalAttention)
    check_at_least("vocab_size", vocab_size, 2)
    for name, value in (("time", time), ("source", source)):
        check_scalar(name, value)
    time, source = as_float(check_times("time", time)), as_float(check_positions("source", source))
    check_sensible(time=time, vocab_size=vocab_size)
    time = model.check_resolved(time)
    n_modes = closed_form.needed_modes(vocab_size)
    weights = closed_form.mode_weights(vocab_size, n_modes)
    coefficients = model.kernel.coefficients()
    n = np.arange(1, coefficients.size + 1)
    residues = np.arange(vocab_size)[:, None]
    here, mirrored = ((n[None, :] - s * residues) % vocab_size == 0 for s in (1, -1))
    b = (here * 1.0 + mirrored) @ (n**2 * coefficients)
    c = (here * 1.0 - mirrored) @ (n * coefficients)
    m = np.arange(1, n_modes + 1)
    x, gauss = np.polynomial.legendre.leggauss(_GAUSS_NODES)
    s = time * jnp.asarray((x + 1) / 2)
    one = jnp.ones_like(source)
    instead = "Estimate other weights with `estimate_profile`."
    positions = require_alibi(model.positions, "this closed form", instead)
    y = closed_form.goursat_variable(one, source, positions.lam)
    z = b[m % vocab_size][:, None] * s[None, :] * y
    log_factor = jnp.broadcast_to(log_graphon(positions.lam, one, source) - b[0] * s, z.shape)
    response = scaled_entire_bessel(0, z, log_factor) @ jnp.asarray(gauss / 2) * time
    return check_range(jnp.sum(weights * m * c[m % vocab_size] * response))


def _distinct_observables(prompts: PromptLaw, n_modes: int) -> tuple[tuple[int, ...], np.ndarray]:
    """The distinct observables among e^{i n theta}, n = 1..n_modes, on the law, and the index of each n among them.

    On M codewords e^{i n theta} depends on n mod M only; for n = M it is constant, and its correlations vanish.
    """
    size = 0 if prompts.atoms is None else prompts.atoms.size
    even = 2 * np.pi * np.arange(size) / max(size, 1)
    if prompts.atoms is None or not np.allclose(prompts.atoms, even, rtol=0, atol=1e-6):
        return tuple(range(1, n_modes + 1)), np.arange(n_modes)
    return tuple(range(1, size + 1)), (np.arange(n_modes)) % size
