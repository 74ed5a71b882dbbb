"""Levenberg-Marquardt against known minima and scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxkinetic.inference.levenberg_marquardt import least_squares

BOTH = jnp.array([True, True])


def rosenbrock(v):
    return jnp.stack([10 * (v[1] - v[0] ** 2), 1 - v[0]])


def decay(v):
    """Residuals of a curve that no a e^{-b x} passes through."""
    x = jnp.linspace(0.0, 3.0, 9)
    return v[0] * jnp.exp(-v[1] * x) - (2 * jnp.exp(-x) + 0.1 * jnp.cos(7 * x))


def test_a_curved_valley_is_followed_to_its_end_from_many_starts():
    starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (40, 2)))
    found, squares = jax.vmap(lambda v: least_squares(rosenbrock, v, BOTH))(starts)
    np.testing.assert_allclose(found, 1.0, rtol=0, atol=1e-5)
    assert np.all(squares < 1e-12)


@pytest.mark.parametrize("start", [(1.0, 0.5), (5.0, 3.0)])
def test_a_minimum_that_is_not_zero_is_scipys(start):
    found, squares = least_squares(decay, jnp.array(start), BOTH)
    other = optimize.least_squares(lambda v: np.asarray(decay(v)), start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    np.testing.assert_allclose(found, other.x, rtol=1e-6)
    assert float(squares) == pytest.approx(2 * other.cost, rel=1e-12)


@pytest.mark.parametrize("held", [0, 1])
def test_what_is_held_stays_and_the_other_finds_its_minimum(held):
    start = jnp.array([1.3, 0.8])
    found, squares = least_squares(decay, start, jnp.arange(2) != held)
    assert found[held] == start[held]

    def along(x):
        return float(jnp.sum(decay(start.at[1 - held].set(x)) ** 2))

    other = optimize.minimize_scalar(along, bounds=(0.1, 4.0), method="bounded", options={"xatol": 1e-10})
    assert float(found[1 - held]) == pytest.approx(other.x, rel=1e-6)  # pyright: ignore[reportAttributeAccessIssue]
    assert float(squares) == pytest.approx(other.fun, rel=1e-11)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_end_is_never_above_the_start():
    start = jnp.array([-1.5, 1.5])
    before = float(jnp.sum(rosenbrock(start) ** 2))
    ends = [float(least_squares(rosenbrock, start, BOTH, max_steps=n)[1]) for n in range(1, 12)]
    assert ends[0] == before
    assert np.all(np.diff(ends) <= 0)
    assert ends[-1] < before


def test_residuals_that_nothing_moves_end_at_once():
    found, squares = least_squares(lambda v: jnp.ones(3) + 0 * v[0], jnp.array([0.3, 0.4]), BOTH)
    np.testing.assert_array_equal(found, [0.3, 0.4])
    assert float(squares) == 3.0


def test_a_step_into_what_is_not_finite_is_not_taken():
    found, squares = least_squares(lambda v: jnp.stack([jnp.log(v[0]) + 3, v[1]]), jnp.array([5.0, 1.0]), BOTH)
    np.testing.assert_allclose(found, [np.exp(-3), 0], rtol=0, atol=1e-6)
    assert float(squares) < 1e-12
