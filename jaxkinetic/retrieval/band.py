"""Simultaneous bands: how many standard errors hold a whole curve of estimates at once."""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxkinetic._types import check_level

FEWEST_PROMPTS = 4
_SAMPLES = 20_000
_AT_ONCE = 2_000
# Variances from more prompts are drawn at once by the approximation of Wilson and Hilferty.
_MANY = 16


def simultaneous_factor(
    covariance: Float[np.ndarray, "source source"], n_prompts: int, level: float = 0.95
) -> float:
    """Quantile q of max_i |T_i|, with T_i the t statistics of correlated normal values of ``n_prompts`` prompts.

    P(|S_i - estimate_i| <= q standard_error_i for all i) = level

    Each source has its own estimate of its variance. The correlation is the estimated one, shrunk towards none by
    as much as its entries would scatter if there were none: too little correlation makes the band too wide, too
    much, which few prompts always show, too narrow. The quantile is that of 20000 fixed draws, so that the same
    estimate has the same band.

    Args:
        covariance: joint covariance of the estimates, (S, S).
        n_prompts: number of prompts that it is from, at least 4.
        level: probability that the band holds the whole curve.

    Raises:
        ValueError: on a level outside (0, 1), or fewer than 4 prompts, which tell too little of a correlation.
    """
    check_level(level)
    if n_prompts < FEWEST_PROMPTS:
        raise ValueError(f"Argument `n_prompts` must be at least {FEWEST_PROMPTS}, but is {n_prompts}.")
    error = np.sqrt(np.diagonal(covariance))
    # An estimate without error has a band without width, whatever the factor.
    there = error > 0
    if not there.any():
        return 0.0
    correlation = _shrunk(covariance[np.ix_(there, there)] / np.outer(error[there], error[there]), n_prompts)
    normals, variances = _normals(correlation), _variances(correlation, n_prompts - 1)
    rng = np.random.default_rng(0)
    largest = [np.abs(normals(rng) / np.sqrt(variances(rng))).max(axis=1) for _ in range(_SAMPLES // _AT_ONCE)]
    return float(np.quantile(np.concatenate(largest), level))


def _shrunk(correlation, n_prompts):
    """The correlation times the share of r^2 that is not chance: r^2 - (1 - r^2) / (n - 2) has mean rho^2."""
    apart = correlation[~np.eye(len(correlation), dtype=bool)]
    seen = np.sum(apart**2)
    chance = np.sum(np.maximum(1 - apart**2, 0)) / (n_prompts - 2)
    share = min(chance / seen, 1.0) if seen > 0 else 1.0
    return (1 - share) * correlation + share * np.eye(len(correlation))


def _normals(covariance) -> Callable[[np.random.Generator], np.ndarray]:
    """Draws of normal values of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    # Fewer prompts than sources leave directions without variance, and rounding makes it negative.
    root = vectors * np.sqrt(np.maximum(values, 0))
    return lambda rng: rng.standard_normal((_AT_ONCE, len(root))) @ root.T


def _variances(correlation, freedom: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Draws of the variances that such values show, chi-squared of the degrees of freedom over these."""
    if freedom < _MANY:
        values = _normals(correlation)
        return lambda rng: functools.reduce(np.add, (values(rng) ** 2 for _ in range(freedom))) / freedom
    # The cube root of chi-squared is nearly normal; squares of values correlate as the square of the values.
    normals, spread = _normals(correlation**2), 2 / (9 * freedom)
    return lambda rng: np.maximum(1 - spread + np.sqrt(spread) * normals(rng), 0.1) ** 3
