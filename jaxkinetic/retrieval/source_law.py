"""What the law of the source does to an estimator: the mean of the decoder's window, and Stein's kernel.

With phi_n = e^{i n theta_i(0)}, H(x) = sum_n w_n Re e^{i n x} E[conj phi_n] is the mean of h(x - theta_i(0)) for a
last token at x. For a density f_o(sigma_0, .), integration by parts in theta_i(0) gives

    E[(conj phi_n - E conj phi_n) X] = E[-(G_n / f_o)(theta_i(0)) dX / d theta_i(0)],

    G_n(y) = int_0^y (e^{-i n y'} - E conj phi_n) f_o(y') dy',

and T(x, y) = -Re sum_n w_n i n e^{i n x} G_n(y) / f_o(y) takes the place of h(x - y), which it is for f_o = 1.

The modes of the hard decoder decay as 1 / n only, but H needs no more of them than the law has. Discrete laws are
summed over their atoms instead, and laws that know the probability of an arc by that of the decoder's.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxkinetic._types import Scalar, is_concrete
from jaxkinetic.model import PromptLaw
from jaxkinetic.retrieval.window import Accuracy, window, window_modes

SMALLEST_DENSITY = 1e-3
_HARD_MODES = 512
_NEGLIGIBLE = 1e-12


class SourceLaw(eqx.Module):
    """The law of the source tokens, tabulated at their positions.

    Attributes:
        atoms: angles, (A,), and probabilities, (S, A), of a discrete law; None for other laws.
        arcs: a law that knows the probability of an arc, and the positions, for the hard decoder; None otherwise.
        modes: w_n hat f_o(sigma_0, n), (S, n), of other laws; None for those and for uniform tokens.
        density: hat f_o(sigma_0, k), k = -K..K, (S, k), of a density, for Stein's kernel; None otherwise.
        stein: w_n (-i n) times the modes of G_n, (S, n, k); None otherwise.
    """

    atoms: tuple[Float[Array, " atom"], Float[Array, "source atom"]] | None
    arcs: tuple[PromptLaw, Float[Array, " source"]] | None
    modes: Complex[Array, "source mode"] | None
    density: Complex[Array, "source k"] | None
    stein: Complex[Array, "source mode j"] | None
    vocab_size: int = eqx.field(static=True)
    accuracy: Accuracy = eqx.field(static=True)

    def mean_window(self, x: Scalar) -> Float[Array, "*source"]:
        """H(x) at each source, (S,), for a last token at x radians; one zero for uniform tokens."""
        if self.atoms is not None:
            angles, probabilities = self.atoms
            return probabilities @ window(x - angles, self.vocab_size, self.accuracy)
        if self.arcs is not None:
            law, sigma = self.arcs
            hits = jax.vmap(lambda s: law.arc_probability(s, x, math.pi / self.vocab_size))(sigma)
            return ((self.vocab_size * jnp.asarray(hits) - 1) / 2).astype(x.dtype)
        if self.modes is not None:
            n = jnp.arange(1, self.modes.shape[1] + 1, dtype=x.dtype)
            return jnp.real(self.modes @ jnp.exp(1j * n * x))
        return jnp.zeros((), x.dtype)

    def stein_kernel(self, x: Scalar, y: Float[Array, " source"]) -> Float[Array, " source"]:
        """T(x, y) at each source, for a last token at x and sources that began at y, radians."""
        if self.stein is None or self.density is None:
            return window(x - y, self.vocab_size, self.accuracy)
        n_modes, n_j = self.stein.shape[1:]
        n = jnp.arange(1, n_modes + 1, dtype=x.dtype)
        primitive = jnp.einsum("snj,n,sj->s", self.stein, jnp.exp(1j * n * x), _waves(y, n_j))
        return jnp.real(primitive) / self.density_at(y)

    def density_at(self, y: Float[Array, " source"]) -> Float[Array, " source"]:
        """Density f_o(sigma_0, y) of each source against d theta / 2 pi."""
        if self.density is None:
            return jnp.ones_like(y)
        return jnp.real(jnp.sum(self.density * _waves(y, self.density.shape[1]), axis=1))


def tabulate_source(
    law: PromptLaw, sigma: Float[Array, " source"], vocab_size: int, accuracy: Accuracy, stein: bool = False
) -> SourceLaw:
    """Tabulate a law at source positions; with Stein's kernel, which densities have, if asked for.

    Raises:
        ValueError: with the hard decoder, on a law that is known by its modes alone if these do not decay.
    """
    if law.is_uniform:
        return SourceLaw(None, None, None, None, None, vocab_size, accuracy)
    if law.atoms is not None:
        atoms = jnp.asarray(law.atoms, sigma.dtype), jax.vmap(law.atom_probabilities)(sigma).astype(sigma.dtype)
        return SourceLaw(atoms, None, None, None, None, vocab_size, accuracy)
    if accuracy == "hard" and _knows_arcs(law):
        return SourceLaw(None, (law, sigma), None, None, None, vocab_size, accuracy)
    n_hard = _HARD_MODES if law.n_modes is None else law.n_modes
    weights = window_modes(vocab_size, accuracy, n_hard if accuracy == "hard" else None)
    modes = jax.vmap(lambda s: law.fourier(s, weights.size))(sigma)
    if accuracy == "hard" and law.n_modes is None:
        _check_decayed(law, modes)
    density, kernel = None, None
    if stein and law.n_modes is not None:
        n_given = law.n_modes
        density = _two_sided(jax.vmap(lambda s: law.fourier(s, n_given))(sigma))
        kernel = jax.vmap(_stein_modes, (0, None))(density, weights)
    return SourceLaw(None, None, weights[None, :] * modes, density, kernel, vocab_size, accuracy)


def _knows_arcs(law: PromptLaw) -> bool:
    half = jnp.asarray(0.5)
    return jax.eval_shape(lambda: law.arc_probability(half, half, 0.1)) is not None


def _stein_modes(f: Complex[Array, " k"], weights: Float[Array, " mode"]) -> Complex[Array, "mode j"]:
    """w_n (-i n) times the modes of G_n: (hat f(j + n) - hat f(n) hat f(j)) / (i j), its mean left out."""
    n_modes, reach = weights.size, f.size // 2
    edge = n_modes + reach
    j, n = np.arange(-edge, edge + 1), np.arange(1, n_modes + 1)
    at = lambda k: jnp.where(np.abs(k) <= reach, f[np.clip(k + reach, 0, 2 * reach)], 0)  # noqa: E731
    rest = at(j[None, :] + n[:, None]) - at(n)[:, None] * at(j)[None, :]
    j = j[None, :]
    divided = jnp.where(j == 0, 0, rest / (1j * np.where(j == 0, 1, j)))
    return (weights * (-1j * n))[:, None] * divided


def _two_sided(modes: Complex[Array, "source k"]) -> Complex[Array, "source both"]:
    return jnp.concatenate([jnp.conj(modes[:, ::-1]), jnp.ones_like(modes[:, :1]), modes], axis=1)


def _waves(y: Float[Array, " source"], size: int) -> Complex[Array, "source {size}"]:
    k = jnp.arange(size, dtype=y.dtype) - size // 2
    return jnp.exp(1j * k[None, :] * y[:, None])


def lowest_density(law: PromptLaw, sigma: Any = None) -> float:
    """Least density at the given positions, or over the whole prompt; infinite where it is traced."""
    values = law.sampled_density(None if sigma is None else jnp.asarray(sigma))
    return float(values.min()) if is_concrete(values) else np.inf


def _check_decayed(law: PromptLaw, modes: Complex[Array, "source mode"]) -> None:
    if is_concrete(modes) and np.abs(np.asarray(modes)[:, -1]).max() > _NEGLIGIBLE:
        raise ValueError(
            f"Argument `accuracy` must be 'soft' for {type(law).__name__}: its {_HARD_MODES} modes do not decay, "
            "and the mean of the hard decoder's window is not known."
        )
