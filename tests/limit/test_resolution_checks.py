"""Every ingredient of the resolution checks, by a case that it alone refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    CodewordPrompts,
    DensityPrompts,
    ExpCosine,
    FourierKernel,
    UniformPrompts,
    iterated_kernels,
)
from jaxkinetic.limit import Resolution, solve_correlations, solve_mean_field
from jaxkinetic.limit.closed_form import volterra_hardy
from jaxkinetic.limit.iterated_kernels import smallest_source
from tests.limit.laws import SMOOTH

MODEL = CausalAttention(ExpCosine(1.0), ALiBi(1.0))


def one_mode(n, size=1.0):
    """A kernel with the single mode n."""
    return CausalAttention(FourierKernel(jnp.zeros(n).at[n - 1].set(size)), ALiBi(1.0))


def test_weights_of_the_law_that_bend_in_sigma():
    """Two opposite codewords rest, so that their probabilities alone show the kink at 0.4."""
    law = CodewordPrompts(lambda s: 0.5 + 0.2 * jnp.abs(s - 0.4) * jnp.array([1.0, -1.0]))
    with pytest.raises(RuntimeError, match=r"33 polynomials in sigma are 2\.5e-04, above the tolerance 1e-05"):
        solve_mean_field(MODEL, law, [1.0], resolution=Resolution(33, modes=4, tolerance=1e-5))
    assert solve_mean_field(MODEL, law, [1.0], resolution=Resolution(33, modes=4, tolerance=3e-4)).error > 2.5e-4


@pytest.mark.parametrize("method", ["fourier", "characteristics"])
def test_mass_that_the_averages_lose(method):
    """ALiBi weights of rate 200 are a boundary layer, of which 17 nodes lose 1.9 per cent of the mass."""
    model = CausalAttention(ExpCosine(1.0), ALiBi(200.0))
    size = Resolution(17, modes=4, tolerance=0.018)
    with pytest.raises(RuntimeError, match=r"17 polynomials in sigma are 1\.9e-02, above the tolerance 2e-02"):
        solve_mean_field(model, UniformPrompts(), [1.0], method=method, resolution=size)


def test_modes_of_the_cross_correlation():
    """With 18 modes C misses 7.8e-5, A 6.1e-6 and the mean field 1.1e-6."""
    with pytest.raises(RuntimeError, match=r"18 Fourier modes in theta are 7\.8e-05, above the tolerance 2e-05"):
        solve_correlations(MODEL, SMOOTH, [1.0], 0.3, resolution=Resolution(33, modes=18, tolerance=2e-5))


def test_modes_of_the_autocorrelation():
    """At t = 0, where C vanishes, A has mode 1 + 16 of a law with mode 16 and the observable e^{i theta}."""
    law = DensityPrompts(jnp.zeros(16).at[15].set(0.3))
    size = Resolution(9, source_nodes=9, modes=18, tolerance=1e-3)
    with pytest.raises(RuntimeError, match="18 Fourier modes in theta are"):
        solve_correlations(one_mode(1, 1e-9), law, [0.0], 0.3, resolution=size)
    assert solve_mean_field(one_mode(1, 1e-9), law, [0.0], resolution=Resolution(9, modes=18)).error < 1e-11


def test_displacement_of_characteristics_in_their_labels():
    """Modes of f are multiples of 11: 17 modes end before the second, labels show the third, 33, of 34."""
    law = DensityPrompts(jnp.zeros(11).at[10].set(0.4))
    size = Resolution(9, modes=17, tolerance=1e-7)
    with pytest.raises(RuntimeError, match="17 Fourier modes in theta are"):
        solve_mean_field(one_mode(11, 0.01), law, [0.1], method="characteristics", resolution=size)


def test_displacement_that_correlates_in_its_labels():
    """The observable e^{31 i theta} displaces uniform tokens in mode 31, which 16 modes do not hold."""
    size = Resolution(9, source_nodes=9, modes=16, tolerance=1e-3)
    with pytest.raises(RuntimeError, match="16 Fourier modes in theta are"):
        solve_correlations(
            one_mode(31, 0.01), UniformPrompts(), [1.0], 0.3, observable_mode=31, method="characteristics",
            resolution=size,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sources_at_the_edge_of_the_smallest(dtype):
    """A source that rounding puts below the smallest is served, such as 0.03 - 0.02; one farther below is not."""
    positions = ALiBi(jnp.asarray(1.0, dtype))
    kernels = iterated_kernels(positions, 0.01)
    rates, edge = jnp.asarray([0.9], dtype), jnp.asarray([0.01], dtype)
    edge = edge * (1 - 4 * jnp.finfo(dtype).eps)
    exact = volterra_hardy(*(jnp.asarray(x) for x in (0.9, 1.0, 1.0, 0.01)), positions=ALiBi(1.0))
    rounding = 4000 * float(jnp.finfo(dtype).eps)
    found = kernels.profiles(rates, 1.0, edge)[0, 0]
    assert float(found) == pytest.approx(float(exact), rel=rounding)
    with pytest.raises(RuntimeError, match=r"outside \[0.01, 1\]"):
        kernels.profiles(rates, 1.0, edge * (1 - 16 * jnp.finfo(dtype).eps))
    with pytest.raises(RuntimeError, match=r"outside \[0.01, 1\]"):
        kernels.profiles(rates, 1.0, jnp.asarray([1 + 16 * jnp.finfo(dtype).eps], dtype))


def test_the_smallest_source_is_a_power_of_two_below_all():
    assert smallest_source(np.array([0.5, 0.3])) == 0.01
    assert smallest_source(np.array([0.5, 2.0**-9])) == 2.0**-9
    assert smallest_source(np.array([0.5, 0.003])) == 2.0**-9
    jax.jit(lambda s: jnp.asarray(smallest_source(s) == 0.01))(0.001)
