"""The causal averaging operator against adaptive quadrature, over the prompt and from a source."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from jaxkinetic import ALiBi
from jaxkinetic.limit import chebyshev
from jaxkinetic.limit.averaging import SourceNodes, averaging_matrix
from jaxkinetic.limit.closed_form import goursat_variable

LAMS = [-2.0, 0.0, 1.0, 6.0]


def graphon(lam, sigma, tau):
    return 1 / sigma if lam == 0 else lam * np.exp(-lam * (sigma - tau)) / -np.expm1(-lam * sigma)


def wave(sigma):
    return np.cos(3 * sigma) + np.exp(-sigma)


@pytest.mark.parametrize("lam", LAMS)
def test_average_over_the_prompt_matches_quadrature(lam):
    sigma = chebyshev.nodes(25)
    averages = averaging_matrix(ALiBi(lam), 25) @ wave(sigma)
    exact = [quad(lambda t, s=s: graphon(lam, s, t) * wave(t), 0, s, epsabs=1e-14)[0] for s in sigma[1:]]
    np.testing.assert_allclose(averages[1:], exact, rtol=0, atol=2e-14)
    assert averages[0] == pytest.approx(wave(0.0), abs=1e-14)


@pytest.mark.parametrize("lam", [*LAMS, 30.0, -30.0])
def test_average_of_a_constant_is_the_constant(lam):
    np.testing.assert_allclose(jnp.sum(averaging_matrix(ALiBi(lam), 33), axis=1), 1, rtol=0, atol=2e-14)


def test_error_falls_spectrally_in_the_nodes():
    """For an entire function every node more divides the error by a growing factor."""
    sigma = np.linspace(0.05, 1, 20)
    exact = np.array([quad(lambda t, s=s: graphon(1.0, s, t) * wave(t), 0, s, epsabs=1e-14)[0] for s in sigma])
    errors = []
    for n in (5, 9, 13, 17):
        at = chebyshev.interpolation(jnp.asarray(sigma), n)
        errors.append(np.abs(at @ (averaging_matrix(ALiBi(1.0), n) @ wave(chebyshev.nodes(n))) - exact).max())
    assert np.all(np.diff(np.log10(errors)) < -2.5), errors
    assert errors[-1] < 1e-13


@pytest.mark.parametrize("lam", LAMS)
def test_derivative_in_lam(lam):
    values = jnp.asarray(wave(chebyshev.nodes(21)))
    average = lambda lam: averaging_matrix(ALiBi(lam), 21) @ values  # noqa: E731
    step = 1e-4
    differences = (average(lam + step) - average(lam - step)) / (2 * step)
    np.testing.assert_allclose(jax.jacfwd(average)(lam), differences, rtol=0, atol=1e-8)
    np.testing.assert_allclose(jax.jacrev(average)(lam), differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize("lam", [*LAMS, -20.0])
@pytest.mark.parametrize("source", [0.01, 0.3, 0.9])
def test_average_from_a_source_matches_quadrature(lam, source):
    nodes = SourceNodes(ALiBi(lam), jnp.asarray(source), 41)
    sigma = np.asarray(nodes.sigma)
    averages = nodes.average(jnp.asarray(wave(sigma)))
    exact = [
        quad(lambda t, s=s: graphon(lam, s, t) * wave(t), source, s, epsabs=1e-14, epsrel=1e-13)[0] for s in sigma
    ]
    np.testing.assert_allclose(averages, exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lam", [*LAMS, -20.0])
def test_nodes_from_a_source_are_chebyshev_in_their_variable(lam):
    """Y for lam >= 0, log(sigma / sigma_0) for lam < 0; in both the integral of 1 is Y."""
    nodes = SourceNodes(ALiBi(lam), jnp.asarray(0.05), 33)
    variable = jax.vmap(goursat_variable, (0, None, None))
    y = variable(nodes.sigma, nodes.source, jnp.asarray(max(lam, 0.0)))
    np.testing.assert_allclose(y / nodes.length, chebyshev.nodes(33), rtol=0, atol=1e-14)
    assert nodes.sigma[0] == pytest.approx(0.05, rel=1e-14)
    assert nodes.sigma[-1] == pytest.approx(1.0, rel=1e-14)
    exact = variable(nodes.sigma, nodes.source, jnp.asarray(lam))
    np.testing.assert_allclose(jnp.sum(nodes.integral(), axis=1), exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lam", [-3.0, 0.0, 2.0])
def test_derivatives_of_an_average_from_a_source(lam):
    """In lam, across the change of variable at 0 too, and in the source."""

    @jax.jit
    def average(at):
        nodes = SourceNodes(ALiBi(at[0]), at[1], 33)
        values = jnp.cos(3 * nodes.sigma) + jnp.exp(-nodes.sigma)
        return nodes.interpolation(jnp.asarray(0.8)) @ nodes.average(values)

    at, step = jnp.array([lam, 0.2]), 1e-3
    differences = [
        (8 * (average(at + d) - average(at - d)) - average(at + 2 * d) + average(at - 2 * d)) / (12 * step)
        for d in step * jnp.eye(2)
    ]
    np.testing.assert_allclose(jax.grad(average)(at), differences, rtol=0, atol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(average)(at), jax.grad(average)(at), rtol=1e-11)


def test_interpolation_is_exact_and_smooth_at_the_nodes():
    """The barycentric formula would give NaN or zero derivatives where the point is a node."""
    n, nodes = 17, chebyshev.nodes(17)
    value = lambda x: chebyshev.interpolation(x, n) @ jnp.asarray(wave(nodes))  # noqa: E731
    for x in (nodes[0], nodes[5], nodes[-1], 0.4321):
        assert value(jnp.asarray(x)) == pytest.approx(wave(x), abs=1e-13)
        slope = -3 * np.sin(3 * x) - np.exp(-x)
        assert jax.grad(value)(jnp.asarray(x)) == pytest.approx(slope, abs=1e-10)


def test_antiderivative_and_moments_integrate_polynomials_exactly():
    n, nodes = 9, chebyshev.nodes(9)
    for power in range(8):
        np.testing.assert_allclose(
            chebyshev.antiderivative(n) @ nodes**power, nodes ** (power + 1) / (power + 1), rtol=0, atol=1e-15
        )


def test_single_precision_stays_single():
    positions = ALiBi(jnp.float32(1.0))
    assert averaging_matrix(positions, 17).dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(averaging_matrix(positions, 17), axis=1), 1, rtol=0, atol=2e-6)
