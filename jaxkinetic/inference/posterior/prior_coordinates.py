"""Coordinates of the posterior's grid: those in which the priors are flat, and those in which the ridge is even.

The priors are flat in u = log(beta) and v = arcsinh(lam / lam_scale). Cells of a row are equal in
q = arcsinh(lam / s), s = min(lam_scale, beta / 4): the ridge lam ~ beta of shallow curves is as wide in q for every
beta.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxkinetic.inference.posterior.priors import Priors


def ranges(priors: Priors) -> tuple[tuple[float, float], tuple[float, float]]:
    """The prior's range in u and in v."""
    low, high = (float(np.log(b)) for b in priors.beta_range)
    left, right = (float(np.arcsinh(v / priors.lam_scale)) for v in priors.lam_range)
    return (low, high), (left, right)


def ends_of_rows(u: Float[np.ndarray, " row"], priors: Priors) -> Float[np.ndarray, "row 2"]:
    """The prior's range of lam in the coordinate q of each row."""
    return np.arcsinh(np.asarray(priors.lam_range) / _scale(u, priors)[:, None])


def lam_at(
    q: Float[np.ndarray, "row column"], u: Float[np.ndarray, " row"], priors: Priors
) -> Float[np.ndarray, "row column"]:
    """Positional bias at coordinate q of each row."""
    return _scale(u, priors)[:, None] * np.sinh(q)


def v_of(lam: Float[np.ndarray, "*any"], priors: Priors) -> Float[np.ndarray, "*any"]:
    """Coordinate v of a positional bias."""
    return np.arcsinh(lam / priors.lam_scale)


def lam_of_v(v: Any, priors: Priors) -> Any:
    """Positional bias at coordinate v."""
    return priors.lam_scale * np.sinh(v)


def _scale(u, priors):
    return np.minimum(priors.lam_scale, np.exp(u) / 4)
