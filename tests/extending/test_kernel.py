"""How to add a kernel: a class outside the package, from simulation to the pictures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
from jaxtyping import Array, Float

import jaxkinetic as jk
from jaxkinetic import plotting
from jaxkinetic.model import Kernel
from tests import problems


class PoissonKernel(Kernel):
    """w(theta) = (1 - r^2) / (1 - 2 r cos(theta) + r^2) with w^(n) = r^n, for 0 < r < 0.3."""

    r: Array = eqx.field(converter=jnp.asarray)

    @property
    def n_modes(self) -> int:
        return 36

    def __call__(self, theta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return (1 - self.r**2) / (1 - 2 * self.r * jnp.cos(theta) + self.r**2)

    def coefficients(self) -> Float[Array, " mode"]:
        return self.r ** jnp.arange(1, self.n_modes + 1)

    def is_resolved(self) -> Array:
        return self.n_modes * self.r**self.n_modes < jnp.finfo(self.r.dtype).eps


MODEL = jk.CausalAttention(PoissonKernel(0.25), jk.ALiBi(1.0))


def exact_profile(source: float) -> float:
    """S_1(sigma_0) of (1.21) for M = 8, from a_n = n^2 r^n at forty digits."""
    with mp.workdps(problems.DIGITS):
        terms = (
            mp.exp(-((mp.pi * n / 8) ** 2) / 2) * problems.mp_profile(n**2 * mp.mpf(0.25) ** n, 1, 1, 1, source)
            for n in range(1, 37)
        )
        return float(mp.fsum(terms))  # pyright: ignore[reportArgumentType]


def test_particles_move_by_the_kernel():
    theta = jk.UniformPrompts().sample(jax.random.key(0), 32)
    np.testing.assert_allclose(jk.spectral_drift(MODEL, theta), jk.pairwise_drift(MODEL, theta), atol=1e-13)
    trajectory = jk.simulate(MODEL, theta, [0.0, 1.0])
    assert plotting.plot_snapshots(trajectory).axes


def test_profile_and_estimate():
    sources = [0.25, 0.5, 0.875]
    profile = jk.retrieval_profile(MODEL, 1.0, 8, sources=sources)
    np.testing.assert_allclose(profile.values, [exact_profile(s) for s in sources], rtol=1e-12)
    found = jk.estimate_profile(
        MODEL, 1.0, 8, n_tokens=32, n_prompts=1024, key=jax.random.key(1), sources=sources, estimator="glauber",
        control_variate=False, n_steps=2,
    )  # fmt: skip
    # Prompts of 32 tokens are a few per cent from the limit.
    assert np.all(np.abs(found.values - profile.values) < 0.05 * profile.values + 3 * found.standard_error)
    assert np.all(found.standard_error < 0.07 * profile.values)
    assert plotting.plot_estimate(found).containers
    assert plotting.plot_profiles(MODEL, [1.0], 8).axes


def test_the_u_is_that_of_the_profile():
    shape = jk.u_shape(MODEL, 1.0, 8)
    assert shape.is_u_shaped
    nearby = [exact_profile(float(shape.argmin) + step) for step in (-1e-3, 0.0, 1e-3)]
    assert nearby[1] < min(nearby[0], nearby[2])
