"""What is left to say about the accuracies of a curve once the parameters of a theory are known.

For given parameters the accuracy at sigma_0 is m + k s, with s the standardised shape there and (m, k) normal, cut
to k >= 0: see `line_law`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Float

from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.posterior.grid_likelihood import line_law
from jaxkinetic.inference.posterior.priors import Priors

_CHUNK, _POSITIONS = 256, 64
_DEEP = -30.0


class LineLaws(NamedTuple):
    """Mean accuracy m and contrast k >= 0 of each curve at several parameters, and its shape where it is wanted.

    Attributes:
        mean: (m^, k^) before the cut, (D, C, 2).
        covariance: theirs, (D, C, 2, 2).
        shape: standardised shape at the wanted positions, (D, C, S).
    """

    mean: Float[np.ndarray, "draw curve 2"]
    covariance: Float[np.ndarray, "draw curve 2 2"]
    shape: Float[np.ndarray, "draw curve wanted"]


def line_laws(
    values: Float[np.ndarray, "draw 2"], wanted: Float[np.ndarray, " wanted"], data: CurveData, priors: Priors
) -> LineLaws:
    """See `LineLaws`; the wanted positions are those of every curve."""
    # Padded to few shapes, so that many calls compile once.
    padded = np.pad(values, ((0, -len(values) % _CHUNK), (0, 0)), mode="edge")
    at = np.pad(wanted, (0, -wanted.size % _POSITIONS), mode="edge")
    everywhere = jnp.broadcast_to(jnp.asarray(at), (data.sources.shape[0], at.size))
    chunks = [
        _line_laws(jnp.asarray(padded[i : i + _CHUNK]), everywhere, data, priors)
        for i in range(0, len(padded), _CHUNK)
    ]
    mean, covariance, shape = (np.concatenate(parts)[: len(values)] for parts in zip(*chunks, strict=True))
    return LineLaws(mean, covariance, shape[..., : wanted.size])


@jax.jit
def _line_laws(values, wanted, data, priors):
    def one(values):
        left, shape = line_law(values, wanted, data, priors)
        return left.mean, left.covariance, shape

    return jax.vmap(one)(values)


def cut_normal(x: Float[jax.Array, "*draws"], share: Float[jax.Array, "*draws"]) -> Float[jax.Array, "*draws"]:
    """Value of N(x, 1) cut to positive values that a share of its probability exceeds.

    Deep below zero, where probabilities underflow, the tail is an exponential of rate |x|.
    """
    above = jnp.maximum(x, _DEEP)
    usual = above - ndtri(ndtr(above) * share)
    return jnp.where(x < _DEEP, -jnp.log(share) / jnp.maximum(-x, 1), jnp.maximum(usual, 0))


@jax.jit
def draw_lines(
    mean: Float[jax.Array, "draw 2"],
    covariance: Float[jax.Array, "draw 2 2"],
    uniform: Float[jax.Array, " draw"],
    normal: Float[jax.Array, " draw"],
) -> tuple[Float[jax.Array, " draw"], Float[jax.Array, " draw"]]:
    """(m, k) of one curve from uniform and normal numbers: k from its cut normal by its tail, then m given k."""
    error = jnp.sqrt(covariance[:, 1, 1])
    contrast = error * cut_normal(mean[:, 1] / error, uniform)
    share = covariance[:, 0, 1] / covariance[:, 1, 1]
    spread = jnp.sqrt(covariance[:, 0, 0] - share * covariance[:, 0, 1])
    return mean[:, 0] + share * (contrast - mean[:, 1]) + spread * normal, contrast
