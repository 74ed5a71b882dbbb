"""The paper's theory: one head with the exponential-cosine kernel and ALiBi, uniform prompts."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxkinetic._bounds import check_sensible
from jaxkinetic._types import Scalar, as_numbers, round_up, trusted
from jaxkinetic.limit import closed_form
from jaxkinetic.limit.mode_series import largest_exponent, mode_sum
from jaxkinetic.model import ALiBi, CausalAttention, ExpCosine, required_modes
from jaxkinetic.theories.coordinates import Coordinates, SeparateCoordinates
from jaxkinetic.theories.parameter import Parameter
from jaxkinetic.theories.ridge import RidgeCoordinates
from jaxkinetic.theories.theory import ModelTheory, checked_depth

BETA_RANGE, LAM_RANGE = (0.01, 10.0), (-20.0, 100.0)
_LARGEST = 700.0


@dataclasses.dataclass(frozen=True)
class OneHead:
    """The paper's model (beta, lam) -> attention; equal ones share what is compiled.

    Attributes:
        n_modes: Fourier modes of the kernel, enough for the largest beta in play.
    """

    n_modes: int

    @trusted()
    def __call__(self, beta: Scalar, lam: Scalar) -> CausalAttention:
        """Exponential-cosine kernel and ALiBi."""
        return CausalAttention(ExpCosine(beta, n_modes=self.n_modes), ALiBi(lam))


class Paper(ModelTheory):
    """See `paper`."""

    has_ridge: bool = eqx.field(static=True)

    @property
    def coordinates(self) -> Coordinates:
        """Those along the ridge, where the range of lam includes 0."""
        beta, lam = self.parameters
        return RidgeCoordinates(beta, lam) if self.has_ridge else SeparateCoordinates((beta, lam))

    def row_width(self, first: Any) -> Any:
        """The ridge lam ~ beta is as wide for every beta where cells are even in arcsinh(4 lam / beta)."""
        return np.minimum(self.parameters[1].width, first / 4)

    @property
    def widest(self) -> "Paper":
        """Over the default ranges as well as its own."""
        ranges = [
            (min(float(p.low), low), max(float(p.high), high))
            for p, (low, high) in zip(self.parameters, (BETA_RANGE, LAM_RANGE), strict=True)
        ]
        return paper(self.time, self.vocab_size, beta_range=ranges[0], lam_range=ranges[1])

    def quantities(self, values: np.ndarray) -> dict[str, float]:
        """The combination of parameters to which shallow curves are sensitive, r = 2 lam / (a_1 t)."""
        beta, lam = (float(x) for x in values)
        rate = float(ExpCosine(beta).growth_rates()[0])
        return {"ridge": 2 * lam / (rate * float(self.time))}

    def __str__(self) -> str:
        return f"{self.name}(sigma_0; beta, lam), t = {float(self.time):g}, M = {self.vocab_size:g}"

    @trusted()
    def row_shapes(
        self,
        first: Float[Array, " row"],
        second: Float[Array, "row column"],
        sources: Float[Array, "curve position"],
    ) -> Float[Array, "row column curve position"]:
        """The shapes, by the power series that a row of equal beta shares; NaN where that does not serve."""
        beta, lam = first, second
        rates = jax.vmap(lambda b: self.model(b, jnp.zeros_like(b)).kernel.growth_rates())(beta)
        rates = rates[:, : closed_form.growing_modes(self.vocab_size)]
        weights = closed_form.mode_weights(self.vocab_size, rates.shape[1])
        one = jnp.ones((), beta.dtype)

        def everywhere(function):
            found = jax.vmap(lambda v: jax.vmap(lambda source: function(source, v))(sources.ravel()))(lam.ravel())
            return found.reshape(*lam.shape, *sources.shape)

        y = everywhere(lambda source, v: closed_form.goursat_variable(one, source, v))
        graphon = everywhere(lambda source, v: ALiBi(v).graphon(one, source))
        values, log_scale = mode_sum(rates, weights, self.time, y)
        own_scale = jax.vmap(lambda a, at: largest_exponent(a, weights, self.time, at))(rates, jnp.max(y, axis=3))
        scaled = graphon * values * jnp.exp(log_scale - jax.lax.stop_gradient(own_scale)[..., None])
        largest = jnp.max(jnp.abs(scaled), axis=-1, keepdims=True)
        return scaled / jnp.maximum(largest, jnp.finfo(scaled.dtype).tiny)


def paper(
    time: Any = 1.0,
    vocab_size: float = 8,
    *,
    beta_range: tuple[float, float] = BETA_RANGE,
    lam_range: tuple[float, float] = LAM_RANGE,
) -> Paper:
    """The profile S_t(sigma_0; beta, lam) (1.21) of one head, uniform prompts and ALiBi, in closed form.

    Depth t and vocabulary size M are fixed: only a_n t enters the profile, so that t cannot be told from beta.

    Args:
        time: depth t > 0.
        vocab_size: vocabulary size M >= 2 of the decoder; it need not be whole.
        beta_range: sharpness that is searched; its upper end sets the number of modes.
        lam_range: positional bias that is searched.
    """
    time = checked_depth(time, vocab_size)
    for name, given in (("beta_range", beta_range), ("lam_range", lam_range)):
        if as_numbers(name, given).shape != (2,):
            raise ValueError(f"Argument `{name}` must be two numbers, but is {given!r}.")
    check_sensible(beta_range=beta_range, lam_range=lam_range)
    parameters = (
        Parameter("beta", *beta_range, scale="log", symbol=r"\beta", meaning="sharpness of attention"),
        Parameter("lam", *lam_range, scale="asinh", symbol=r"\lambda", meaning="positional bias"),
    )
    # Differences step beyond the range; ranges that need about as many modes share what is compiled.
    n_modes = round_up(required_modes(min(1.05 * float(beta_range[1]), _LARGEST), np.float64), 8)
    return Paper("S_t", parameters, OneHead(n_modes), time, vocab_size, bool(lam_range[0] < 0 < lam_range[1]))
