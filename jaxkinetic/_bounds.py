"""Largest values that make sense, by the name of the argument, refused before anything is allocated."""

import math
from typing import Any

# Each with what would happen beyond.
LARGEST: dict[str, tuple[float, str]] = {
    "beta": (700, "e^beta would overflow"),
    "lam": (1e6, "each token would attend to one other alone"),
    "time": (1e6, "no solver resolves such a depth"),
    "vocab_size": (10**6, "single precision could not tell codewords apart"),
    "n_tokens": (2**24, "single precision could not tell positions j / N apart"),
    "n_prompts": (2**32 - 1, "prompts are numbered in 32 bits"),
    "n_questions": (1e12, "no curve is measured so often"),
    "n_sources": (10**6, "they would fill the memory"),
    "n_modes": (4096, "they would fill the memory"),
    "n_knots": (1000, "the search would not end"),
    "n_terms": (100, "the search would not end"),
}
_SAME = {
    "times": "time", "beta_range": "beta", "lam_range": "lam", "start": "lam", "next_questions": "n_questions",
    "n_positions": "n_sources", "n_sigma": "n_modes", "n_theta": "n_modes", "n_items": "n_sources",
    "observable_mode": "n_modes", "knots": "n_knots", "terms": "n_terms", "check_tokens": "n_tokens",
    "check_prompts": "n_prompts", "steps": "n_prompts", "batch": "n_sources", "max_blocks": "n_prompts",
}  # fmt: skip


def check_sensible(**given: Any) -> None:
    """Raise if a number, or one of several, is too large in size for an argument of its name.

    Tracers, infinities, NaN and what is no number are left to other checks.

    Raises:
        ValueError: with the bound and its reason.
    """
    # The command line calls this, and its help must not wait.
    import numpy as np

    for name, value in given.items():
        bound, why = LARGEST.get(_SAME.get(name, name), (math.inf, ""))
        try:
            numbers = np.ravel(np.asarray(value, dtype=float))
            beyond = numbers[np.isfinite(numbers) & (np.abs(numbers) > bound)]
        except OverflowError:
            beyond = [math.inf]
        except (TypeError, ValueError):
            continue
        for number in beyond:
            limit = f"at most {bound:.10g}" if number > 0 else f"at least {-bound:.10g}"
            raise ValueError(f"Argument `{name}` must be {limit}, but is {number:.10g}: {why}.")
