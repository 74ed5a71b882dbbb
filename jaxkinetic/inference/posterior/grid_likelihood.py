"""The likelihood of two parameters, offsets and contrasts integrated out, on rows of equal first parameter.

A row may share work, as the power series of the paper's closed form; where that does not serve, every pair is
computed by itself.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic.inference.fit.likelihood import CurveData, shapes
from jaxkinetic.inference.posterior.line_law import LineLaw, integrate_line, standardise
from jaxkinetic.inference.posterior.priors import Priors
from jaxkinetic.theories import Theory

_ROWS, _COLUMNS = 16, 32


def log_likelihood(
    first: Float[np.ndarray, " row"], second: Float[np.ndarray, "row column"], data: CurveData, priors: Priors
) -> Float[np.ndarray, "row column"]:
    """Log of the probability of the curves at every pair; -inf where it cannot be evaluated."""
    # Tiles of one size, so that grids of every size share one compilation; neighbours need about as many terms.
    rows, columns = np.pad(first, (0, -first.size % _ROWS), mode="edge"), -second.shape[1] % _COLUMNS
    padded = np.pad(second, ((0, rows.size - first.size), (0, columns)), mode="edge")
    found = np.empty_like(padded)
    for i in range(0, rows.size, _ROWS):
        for j in range(0, padded.shape[1], _COLUMNS):
            tile = slice(i, i + _ROWS), slice(j, j + _COLUMNS)
            found[tile] = _of_tile(rows[tile[0]], padded[tile], data, priors, is_shared=True)
            if np.isnan(found[tile]).any():
                found[tile] = _of_tile(rows[tile[0]], padded[tile], data, priors, is_shared=False)
    found = found[: first.size, : second.shape[1]]
    return np.where(np.isfinite(found), found, -np.inf)


@partial(jax.jit, static_argnames="is_shared")
def _of_tile(first, second, data, priors, *, is_shared):
    theory = data.theory
    of_rows = theory.row_shapes if is_shared else partial(Theory.row_shapes, theory)
    values = of_rows(first, second, data.sources)
    return jax.vmap(jax.vmap(lambda s: jnp.sum(_integrate(s, data, priors)[0].log_evidence)))(values)


def line_law(
    values: Float[Array, "2"], wanted: Float[Array, "curve wanted"], data: CurveData, priors: Priors
) -> tuple[LineLaw, Float[Array, "curve wanted"]]:
    """What the parameters leave to say about m and k of each curve, and its standardised shape where wanted."""
    return _integrate(shapes(values, data), data, priors, shapes(values, data, wanted))


def _integrate(own, data, priors, others=None):
    present = (data.weight > 0).astype(own.dtype)
    own, others = jax.vmap(standardise)(own, present, own if others is None else others)
    left = jax.vmap(lambda s, y, w: integrate_line(s, y, w, priors))(own, data.accuracy, data.weight)
    return left, others
