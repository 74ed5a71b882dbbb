"""Simultaneous bands: how many standard errors hold a whole curve of estimates at once."""

import numpy as np
from jaxtyping import Float

from jaxkinetic._types import check_level

_SAMPLES = 20_000
_AT_ONCE = 2_000


def simultaneous_factor(
    covariance: Float[np.ndarray, "source source"], n_prompts: int, level: float = 0.95
) -> float:
    """Quantile q of max_i |T_i|, with T multivariate t of the estimates' correlation and n_prompts - 1 degrees.

    P(|S_i - estimate_i| <= q standard_error_i for all i) = level

    It is that of 20000 fixed draws, so that the same estimate has the same band.

    Args:
        covariance: joint covariance of the estimates, (S, S).
        n_prompts: number of prompts that it is from, at least 2.
        level: probability that the band holds the whole curve.

    Raises:
        ValueError: on a level outside (0, 1), or a single prompt.
    """
    check_level(level)
    if n_prompts < 2:
        raise ValueError(f"Argument `n_prompts` must be at least 2, but is {n_prompts}.")
    error = np.sqrt(np.diagonal(covariance))
    # An estimate without error has a band without width, whatever the factor.
    correlation = covariance / np.outer(*2 * [np.where(error > 0, error, 1)])
    values, vectors = np.linalg.eigh(correlation)
    # Fewer prompts than sources leave directions without variance, and rounding makes it negative.
    root = vectors * np.sqrt(np.maximum(values, 0))
    rng = np.random.default_rng(0)
    largest = [
        np.abs(rng.standard_normal((_AT_ONCE, error.size)) @ root.T).max(axis=1)
        for _ in range(_SAMPLES // _AT_ONCE)
    ]
    scale = np.sqrt(rng.chisquare(n_prompts - 1, _SAMPLES) / (n_prompts - 1))
    return float(np.quantile(np.concatenate(largest) / scale, level))
