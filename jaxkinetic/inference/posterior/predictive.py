"""What is left to say about the accuracies of a curve once beta and lam are known.

For given (beta, lam) the accuracy at sigma_0 is m + k s, with s the standardised S_t there and (m, k) normal, cut
to k >= 0: see `nuisances`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Float

from jaxkinetic.inference.fit.likelihood import CurveData
from jaxkinetic.inference.posterior.grid_likelihood import remaining
from jaxkinetic.inference.posterior.priors import LinePriors

_CHUNK, _POSITIONS = 256, 64
_DEEP = -30.0


class Outlook(NamedTuple):
    """Mean accuracy m and contrast k >= 0 of each curve at each of several (beta, lam), and S_t where it is wanted.

    Attributes:
        mean: (m^, k^) before the cut, (D, C, 2).
        covariance: theirs, (D, C, 2, 2).
        shape: standardised S_t at the wanted positions, (D, C, S).
    """

    mean: Float[np.ndarray, "draw curve 2"]
    covariance: Float[np.ndarray, "draw curve 2 2"]
    shape: Float[np.ndarray, "draw curve wanted"]


def outlook(
    beta: Float[np.ndarray, " draw"],
    lam: Float[np.ndarray, " draw"],
    wanted: Float[np.ndarray, " wanted"],
    data: CurveData,
    priors: LinePriors,
) -> Outlook:
    """See `Outlook`; the wanted positions are those of every curve."""
    # Padded to few shapes, so that many calls compile once.
    padded = [np.pad(x, (0, -x.size % _CHUNK), mode="edge") for x in (beta, lam)]
    at = np.pad(wanted, (0, -wanted.size % _POSITIONS), mode="edge")
    everywhere = jnp.broadcast_to(jnp.asarray(at), (data.sources.shape[0], at.size))
    chunks = [
        _outlook(*(x[i : i + _CHUNK] for x in padded), everywhere, data, priors)
        for i in range(0, padded[0].size, _CHUNK)
    ]
    mean, covariance, shape = (np.concatenate(parts)[: beta.size] for parts in zip(*chunks, strict=True))
    return Outlook(mean, covariance, shape[..., : wanted.size])


@jax.jit
def _outlook(beta, lam, wanted, data, priors):
    def one(beta, lam):
        left, shape = remaining(jnp.stack([beta, lam]), wanted, data, priors)
        return left.mean, left.covariance, shape

    return jax.vmap(one)(beta, lam)


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
