"""The predicted retrieval profile S_t(sigma_0) (1.21)."""

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
    as_numbers,
    check_at_least,
    check_positions,
    check_positive_number,
    check_scalar,
    check_times,
    check_type,
    is_concrete,
)
from jaxkinetic.integrate import Solve
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.iterated_kernels import resolved_kernels
from jaxkinetic.limit.resolution import Resolution
from jaxkinetic.model import CausalAttention, PromptLaw
from jaxkinetic.retrieval.law_profile import RetrievalProfile, law_profile


def retrieval_profile(
    model: CausalAttention,
    time: Any,
    vocab_size: int,
    sources: Any,
    *,
    prompts: PromptLaw | None = None,
    resolution: Resolution | None = None,
    options: Solve | None = None,
    tolerance: float | None = None,
    n_terms: int | None = None,
    n_nodes: int | None = None,
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
        resolution: numbers of nodes and modes for prompts that are not uniform; found if None.
        options: how the limit of such prompts is stepped in t.
        tolerance: largest error of what has no closed form, see `solve_correlations` and `iterated_kernels`.
        n_terms: terms of the series in t for weights other than ALiBi; found if None.
        n_nodes: nodes a panel for such weights; found if None.

    Returns:
        The profile in two parts: chance, and the memory of the source. Differentiable in beta, the parameters of
        weights and law, t and the sources.

    Raises:
        ValueError: on t < 0, M < 2, positions outside (0, 1], or a law that jumps in sigma; on weights
            other than ALiBi for prompts that are not uniform.
        RuntimeError: if the limit of another law, or of other weights, is not resolved.
    """
    time = check_profile(model, time, vocab_size)
    given = sources if is_concrete(sources) is False else as_numbers("sources", sources)
    if np.ndim(given) != 1 or np.size(given) == 0:
        raise ValueError(
            f"Argument `sources` must be a non-empty one-dimensional array, but has shape {np.shape(given)}."
        )
    positions = jnp.asarray(check_positions("sources", given), dtype=jnp.result_type(time))
    for name, value, kind in (
        ("prompts", prompts, PromptLaw), ("resolution", resolution, Resolution), ("options", options, Solve),
    ):  # fmt: skip
        if value is not None:
            check_type(name, value, kind)
    for name, size, least in (("n_terms", n_terms, 1), ("n_nodes", n_nodes, 4)):
        if size is not None:
            check_at_least(name, size, least)
    if tolerance is not None:
        check_positive_number("tolerance", tolerance)
    if prompts is not None and not prompts.is_uniform:
        return law_profile(
            model,
            prompts,
            time,
            vocab_size,
            sources=positions,
            resolution=resolution,
            options=options,
            tolerance=tolerance,
        )
    if model.positions.exponential_rate is not None:
        return _retrieval_profile(model, time, vocab_size, positions)
    kernels = resolved_kernels(
        model.positions, model.kernel.growth_rates(), time, vocab_size, given,
        n_terms=n_terms, n_nodes=n_nodes, tolerance=tolerance,
    )  # fmt: skip
    return _profile_of_any_weights(model, kernels, time, vocab_size, positions)


@eqx.filter_jit
def _retrieval_profile(model, time, vocab_size, sources):
    rates, log_weights = profile_modes(model, vocab_size)
    signed = model.kernel.has_signed_rates
    values, log_scale = jax.vmap(
        lambda s: closed_form.scaled_profile(rates, log_weights, time, s, model.positions, signed)
    )(sources)
    return RetrievalProfile(sources, _uniform_chance(values, vocab_size), values, log_scale, vocab_size)


@eqx.filter_jit
def _profile_of_any_weights(model, kernels, time, vocab_size, sources):
    rates = profile_modes(model, vocab_size)[0]
    values = kernels.correction(rates, time, vocab_size, sources)
    error = kernels.error(rates, time, vocab_size, sources).largest
    chance = _uniform_chance(values, vocab_size)
    return RetrievalProfile(sources, chance, values, jnp.zeros_like(values), vocab_size, error)


def _uniform_chance(values, vocab_size):
    return jnp.full_like(values, math.sqrt(math.pi / 2) / vocab_size)


def profile_modes(model: CausalAttention, vocab_size: int) -> tuple[Float[Array, " mode"], Float[Array, " mode"]]:
    """Growth rates a_n and logarithms of the decoder weights w_n."""
    rates = model.kernel.growth_rates()
    return rates, closed_form.log_mode_weights(vocab_size, rates.shape[0]).astype(rates.dtype)


def check_profile(model: CausalAttention, time: Any, vocab_size: int) -> Scalar:
    """Check the arguments of a profile and return the depth; it carries the checks of traced parameters."""
    check_type("model", model, CausalAttention)
    check_at_least("vocab_size", vocab_size, 2)
    check_scalar("time", time)
    check_sensible(time=time, vocab_size=vocab_size)
    time = as_float(check_times("time", time))
    return model.check_resolved(time)
