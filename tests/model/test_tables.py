"""Profiles of position from tables: their formulas, and that equal shapes are one program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.law_table import build_law
from jaxkinetic.model import CodewordPrompts, DensityPrompts
from jaxkinetic.model.tables import Polynomials, Waves


def test_polynomials_are_numpys():
    table = [[1.0, -2.0, 0.5], [0.0, 3.0, 0.0]]
    found = jax.vmap(Polynomials(table))(jnp.array([0.0, 0.3, 1.0]))
    for row, coefficients in enumerate(table):
        exact = np.polynomial.polynomial.polyval([0.0, 0.3, 1.0], coefficients)
        np.testing.assert_allclose(found[:, row], exact, rtol=1e-15, atol=1e-15)


def test_waves_are_the_density_that_they_say():
    """Two waves of one order add; the density is compared at angles, without modes."""
    cos, sin = Polynomials([[0.3, 0.1], [0.1, 0.0], [0.0, 0.0]]), Polynomials([[0.0, 0.0], [0.0, 0.2], [0.1, 0.0]])
    law = DensityPrompts(Waves(cos, sin, [2.0, 0.0, -1.0], (1, 3, 1)))
    theta = jnp.linspace(0, 6, 7)
    for sigma in (0.0, 0.4, 1.0):
        exact = (
            1
            + (0.3 + 0.1 * sigma) * np.cos(theta - 2 * sigma)
            + 0.1 * np.cos(3 * theta)
            + 0.2 * sigma * np.sin(3 * theta)
            + 0.1 * np.sin(theta + sigma)
        )
        np.testing.assert_allclose(law.density(jnp.asarray(sigma), theta), exact, rtol=1e-14)


@pytest.mark.usefixtures("as_installed")
def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match="`coefficients` must be a non-empty two-dimensional array"):
        Polynomials([1.0, 2.0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"probabilities": [[0.4], [0.6]]}, {"probabilities": [[0.7], [0.3]]}),
        ({"waves": [{"n": 2, "cos": [0.1, 0.2]}]}, {"waves": [{"n": 2, "cos": [0.3, 0.0], "turn": 1}]}),
    ],
)
def test_laws_that_differ_by_numbers_are_one_program(one, other):
    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def modes(law):
        return law.fourier(jnp.asarray(0.5), 2)

    found = [modes(build_law(law)) for law in (one, one, other)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_coefficients_carry_gradients():
    law = CodewordPrompts(Polynomials([[0.4, 0.1], [0.6, -0.1]]))
    gradient = eqx.filter_grad(lambda law: jnp.real(law.fourier(jnp.asarray(0.5), 1)[0]))(law)
    # The mode is p_0 - p_1.
    np.testing.assert_allclose(gradient.probabilities.coefficients, [[1, 0.5], [-1, -0.5]])
