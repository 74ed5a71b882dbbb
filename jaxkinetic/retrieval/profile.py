"""The predicted retrieval profile S_t(sigma_0) (1.21) and its U shape (Theorem 1.3)."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from jaxkinetic._bounds import check_sensible
from jaxkinetic._show import Shown
from jaxkinetic._types import (
    Scalar,
    as_float,
    check_at_least,
    check_positions,
    check_scalar,
    check_times,
    is_concrete,
)
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.iterated_kernels import iterated_kernels, smallest_source
from jaxkinetic.model import CausalAttention, PromptLaw, UniformPrompts
from jaxkinetic.model.positions import ALiBi, require_alibi
from jaxkinetic.retrieval.law_profile import RetrievalProfile, law_profile

_SCAN_NODES = 2048
_NODES = 24


def retrieval_profile(
    model: CausalAttention, time: Any, vocab_size: int, sources: Any, prompts: PromptLaw | None = None
) -> RetrievalProfile:
    """Evaluate the retrieval profile S_t(sigma_0), for uniform prompts and ALiBi in closed form (1.21).

    Other weights and uniform prompts go through the iterated kernels of their averaging operator; traced sources
    must then be at least 0.01.

    Args:
        model: kernel and positional weights; ALiBi for prompts that are not uniform.
        time: depth t >= 0.
        vocab_size: vocabulary size M >= 2 of the decoder.
        sources: source positions sigma_0 in (0, 1], (S,); below 1 for prompts that are not uniform.
        prompts: law of the initial tokens; uniform if None. For others see `law_profile`.

    Returns:
        The profile in two parts: chance, and the memory of the source. Differentiable in beta, the weights' and the
        law's parameters, and t.

    Raises:
        ValueError: on t < 0, M < 2, positions outside (0, 1], or a law that jumps in sigma; on weights
            other than ALiBi for prompts that are not uniform.
        RuntimeError: if the limit of another law, or of other weights, is not resolved.
    """
    time = _check(model, time, vocab_size)
    given = sources if is_concrete(sources) is False else np.asarray(sources, dtype=float)
    if np.ndim(given) != 1 or np.size(given) == 0:
        raise ValueError(
            f"Argument `sources` must be a non-empty one-dimensional array, but has shape {np.shape(given)}."
        )
    check_positions("sources", given)
    positions = jnp.asarray(sources, dtype=jnp.result_type(time))
    if prompts is not None and not isinstance(prompts, UniformPrompts):
        return law_profile(model, prompts, time, vocab_size, positions)
    if isinstance(model.positions, ALiBi):
        return _retrieval_profile(model, time, vocab_size, positions)
    kernels = iterated_kernels(model.positions, smallest_source(given), n_nodes=_NODES)
    return _profile_of_any_weights(model, kernels, time, vocab_size, positions)


@eqx.filter_jit
def _retrieval_profile(model, time, vocab_size, sources):
    rates, weights = profile_modes(model, vocab_size)
    signed = model.kernel.has_signed_rates
    values = jax.vmap(lambda s: closed_form.retrieval_correction(rates, weights, time, s, model.positions, signed))(
        sources
    )
    chance = jnp.full_like(values, math.sqrt(math.pi / 2) / vocab_size)
    return RetrievalProfile(sources, chance, values, vocab_size)


@eqx.filter_jit
def _profile_of_any_weights(model, kernels, time, vocab_size, sources):
    values = kernels.correction(profile_modes(model, vocab_size)[0], time, vocab_size, sources)
    chance = jnp.full_like(values, math.sqrt(math.pi / 2) / vocab_size)
    return RetrievalProfile(sources, chance, values, vocab_size)


class UShape(Shown, eqx.Module):
    """Shape of the retrieval profile of uniform prompts.

    Attributes:
        argmin: position sigma_0 of the lowest interior minimum; 1 where there is none.
        minimum: S_t at ``argmin``.
        depth: S_t(1) - minimum, how far the middle lies below the end; the start is infinitely high.
        n_minima: number of interior minima, by the sign changes of S_t' on 2048 nodes in the variable Y.
        has_primacy: S_t grows to infinity as sigma_0 goes to 0, which holds once some a_n t > 0.
        has_recency: S_t'(1) > 0, exactly.
        is_u_shaped: primacy, recency and exactly one interior minimum.
        smallness: t sup_n a_n, the left-hand side of (1.22).
        smallness_bound: min(3 - sqrt 3, 2 (1 - e^{-lam})), its right-hand side.
        theorem_holds: lam > 0 and (1.22); then Theorem 1.3 proves the U, otherwise it is silent.
        recency_threshold: depth t below which recency holds, exactly; never where it is not positive.
    """

    argmin: Scalar
    minimum: Scalar
    depth: Scalar
    n_minima: Int[Array, ""]
    has_primacy: Bool[Array, ""]
    has_recency: Bool[Array, ""]
    is_u_shaped: Bool[Array, ""]
    smallness: Scalar
    smallness_bound: Scalar
    theorem_holds: Bool[Array, ""]
    recency_threshold: Scalar


def u_shape(model: CausalAttention, time: Any, vocab_size: int) -> UShape:
    """Locate the minimum of the retrieval profile and say whether the profile is a U.

    Minima are bracketed where S_t' changes sign and then found by bisection to rounding; their location
    and value are differentiable in beta, lam and t by the implicit function theorem.

    Args:
        model: kernel and ALiBi weights; others are refused.
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2.

    Raises:
        ValueError: on t < 0, M < 2, or weights other than ALiBi.
    """
    time = _check(model, time, vocab_size)
    require_alibi(model.positions, "`u_shape`", "Use `retrieval_profile` for the profile of other weights.")
    return _u_shape(model, time, vocab_size)


@eqx.filter_jit
def _u_shape(model, time, vocab_size):
    rates, weights = profile_modes(model, vocab_size)
    lam, signed = model.positions.lam, model.kernel.has_signed_rates
    dtype = jnp.result_type(rates, time)
    eps = float(jnp.finfo(dtype).eps)

    def slope(y, args):
        rates, time, lam = args
        return closed_form.correction_slope(y, rates, weights, time, lam, signed)

    args = (rates, time, lam)
    # Nodes crowd towards the end of the prompt; beyond the last one primacy has long set in.
    last = 50 + jax.lax.stop_gradient(jnp.maximum(lam, 0))
    nodes = last * jnp.linspace(0, 1, _SCAN_NODES, dtype=dtype) ** 2
    slopes = jax.vmap(lambda y: slope(y, args))(jax.lax.stop_gradient(nodes))
    turns = (slopes[:-1] < 0) & (slopes[1:] >= 0)

    def value_at(y):
        source = closed_form.source_position(y, lam)
        return closed_form.retrieval_correction(rates, weights, time, source, model.positions, signed)

    values = jax.vmap(value_at)(nodes)
    lowest = jnp.argmin(jnp.where(turns, values[:-1], jnp.inf))
    exists = jnp.any(turns)
    lower, upper = nodes[lowest], nodes[lowest + 1]
    # Without a turn the bracket is a dummy on which y - 1 changes sign, so that the search stays defined.
    root = optx.root_find(
        lambda y, args: jnp.where(exists, slope(y, args), y - 1),
        optx.Bisection(rtol=2 * eps, atol=eps, flip="detect"),
        jnp.where(exists, (lower + upper) / 2, 1.5).astype(dtype),
        args=args,
        options={
            "lower": jax.lax.stop_gradient(jnp.where(exists, lower, 0.0)).astype(dtype),
            "upper": jax.lax.stop_gradient(jnp.where(exists, upper, 2.0)).astype(dtype),
        },
        max_steps=128,
        throw=False,
    ).value
    y = jnp.where(exists, root, 0)
    end = closed_form.retrieval_correction(rates, weights, time, jnp.ones((), dtype), model.positions, signed)
    minimum = jnp.where(exists, value_at(y), end)
    largest_rate = jnp.max(model.kernel.growth_rates())
    has_primacy = (time > 0) & (largest_rate > 0)
    has_recency = slope(jnp.zeros((), dtype), args) < 0
    n_minima = jnp.sum(turns)
    smallness = time * largest_rate
    bound = closed_form.smallness_bound(lam)
    return UShape(
        argmin=jnp.where(exists, closed_form.source_position(y, lam), 1),
        minimum=minimum,
        depth=end - minimum,
        n_minima=n_minima,
        has_primacy=has_primacy,
        has_recency=has_recency,
        is_u_shaped=has_primacy & has_recency & (n_minima == 1),
        smallness=smallness,
        smallness_bound=bound,
        theorem_holds=(lam > 0) & (time > 0) & (smallness <= bound),
        recency_threshold=closed_form.recency_threshold(rates, weights, lam),
    )


def profile_modes(model: CausalAttention, vocab_size: int) -> tuple[Float[Array, " mode"], Float[Array, " mode"]]:
    """Growth rates a_n and decoder weights w_n of the modes that carry the profile."""
    rates = model.kernel.growth_rates()
    n_modes = min(rates.shape[0], closed_form.growing_modes(vocab_size))
    return rates[:n_modes], closed_form.mode_weights(vocab_size, n_modes)


def _check(model: CausalAttention, time: Any, vocab_size: int) -> Scalar:
    check_at_least("vocab_size", vocab_size, 2)
    check_scalar("time", time)
    check_times("time", time)
    check_sensible(time=time, vocab_size=vocab_size)
    time = as_float(time)
    return time if is_concrete(*jax.tree.leaves(model.kernel)) else model.check_resolved(time)
