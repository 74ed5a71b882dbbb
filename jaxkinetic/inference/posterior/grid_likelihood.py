"""The likelihood of (beta, lam), offsets and contrasts integrated out, on rows of equal beta.

Pairs that share beta share the power series of the closed form; where its arguments are too large for that, the
modes are summed one by one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic.inference.fit.likelihood import CurveData, shapes
from jaxkinetic.inference.posterior.priors import LinePriors, Nuisances, integrate_nuisances, standardise

_ROWS, _COLUMNS = 16, 32


def log_likelihood(
    beta: Float[np.ndarray, " b"], lam: Float[np.ndarray, "b l"], data: CurveData, priors: LinePriors
) -> Float[np.ndarray, "b l"]:
    """Log of the probability of the curves at every pair; -inf where it cannot be evaluated."""
    # Tiles of one size, so that grids of every size share one compilation; neighbours need about as many terms.
    rows, columns = np.pad(beta, (0, -beta.size % _ROWS), mode="edge"), -lam.shape[1] % _COLUMNS
    padded = np.pad(lam, ((0, rows.size - beta.size), (0, columns)), mode="edge")
    found = np.empty_like(padded)
    for i in range(0, rows.size, _ROWS):
        for j in range(0, padded.shape[1], _COLUMNS):
            tile = slice(i, i + _ROWS), slice(j, j + _COLUMNS)
            found[tile] = _by_rows(rows[tile[0]], padded[tile], data, priors)
            if np.isnan(found[tile]).any():
                found[tile] = _by_modes(rows[tile[0]], padded[tile], data, priors)
    found = found[: beta.size, : lam.shape[1]]
    return np.where(np.isfinite(found), found, -np.inf)


@jax.jit
def _by_rows(beta, lam, data, priors):
    values = data.theory.row_shapes(beta, lam, data.sources)
    return jax.vmap(jax.vmap(lambda s: jnp.sum(_integrate(s, data, priors)[0].log_evidence)))(values)


@jax.jit
def _by_modes(beta, lam, data, priors):
    def one(beta, lam):
        return jnp.sum(_integrate(shapes(jnp.stack([beta, lam]), data), data, priors)[0].log_evidence)

    return jax.lax.map(lambda row: jax.vmap(one, (None, 0))(*row), (beta, lam))


def remaining(
    values: Float[Array, "2"], wanted: Float[Array, "curve wanted"], data: CurveData, priors: LinePriors
) -> tuple[Nuisances, Float[Array, "curve wanted"]]:
    """What (beta, lam) leaves to say about m and k of each curve, and its standardised S where it is wanted."""
    return _integrate(shapes(values, data), data, priors, shapes(values, data, wanted))


def _integrate(own, data, priors, others=None):
    present = (data.weight > 0).astype(own.dtype)
    own, others = jax.vmap(standardise)(own, present, own if others is None else others)
    left = jax.vmap(lambda s, y, w: integrate_nuisances(s, y, w, priors))(own, data.accuracy, data.weight)
    return left, others
