"""Means of an estimated profile over windows of positions: far sharper than any one token."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxkinetic._show import Shown
from jaxkinetic._types import as_numbers, check_type
from jaxkinetic.retrieval.estimate import ProfileEstimate


@dataclasses.dataclass(frozen=True, repr=False)
class WindowMeans(Shown):
    """Means over windows of sources.

    Attributes:
        edges: ends of the windows, (W + 1,).
        sources: mean position of the tokens in each, (W,).
        values: mean of the profile, (W,).
        covariance: joint covariance of the means, (W, W).
        weights: share of each of the estimate's sources in each mean, (W, S).
        n_tokens: N.
        n_prompts: number of prompts they are from.
    """

    edges: Float[np.ndarray, " edge"]
    sources: Float[np.ndarray, " window"]
    values: Float[np.ndarray, " window"]
    covariance: Float[np.ndarray, "window window"]
    weights: Float[np.ndarray, "window source"] = dataclasses.field(repr=False)
    n_tokens: int
    n_prompts: int

    @property
    def standard_error(self) -> Float[np.ndarray, " window"]:
        """Standard error of each mean, (W,)."""
        return np.sqrt(np.diagonal(self.covariance))

    @property
    def range(self) -> float:
        """Largest less smallest mean; noise adds about its own size to it."""
        return float(np.ptp(self.values))


def window_means(estimate: ProfileEstimate, edges: Any) -> WindowMeans:
    """Average an estimate over windows of positions, with errors from its joint covariance.

    Args:
        estimate: of many sources, best ``sources="all"``, with ``joint=True``.
        edges: ends of the windows, increasing, (W + 1,).

    Raises:
        ValueError: on edges that do not increase, a window without sources, or an estimate that is not joint.
    """
    check_type("estimate", estimate, ProfileEstimate)
    ends = as_numbers("edges", edges)
    if ends.ndim != 1 or ends.size < 2 or not np.all(np.diff(ends) > 0):
        raise ValueError(f"Argument `edges` must be two or more ends that increase, but is {ends}.")
    # A token on an edge belongs to the window after it, also where edges such as 0.1 + 2 (0.1) are rounded.
    sources = estimate.sources + 1e-9 / estimate.n_tokens
    inside = (sources >= ends[:-1, None]) & (sources < ends[1:, None])
    if not inside.any(axis=1).all():
        empty = int(np.argmin(inside.any(axis=1)))
        raise ValueError(
            f"Argument `edges` must leave a source in every window, but [{ends[empty]:g}, {ends[empty + 1]:g}) has "
            "none."
        )
    weights = inside / inside.sum(axis=1, keepdims=True)
    return WindowMeans(
        ends, weights @ estimate.sources, weights @ estimate.values, weights @ estimate.covariance @ weights.T,
        weights, estimate.n_tokens, estimate.n_prompts,
    )  # fmt: skip
