import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.integrate import Solve, as_times, integrate


def relax(_, y, rate):
    return -rate * jnp.sin(y)


def error(options, dtype=jnp.float64):
    solution = integrate(relax, jnp.asarray([2.0], dtype), jnp.asarray([2.0]), jnp.asarray(1.7, dtype), options)
    assert solution.values.dtype == dtype
    return abs(float(solution.values[0, 0]) - 2 * np.arctan(np.tan(1.0) * np.exp(-3.4)))


@pytest.mark.parametrize(
    ("solver", "order"),
    [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (diffrax.Bosh3(), 3), (diffrax.Dopri5(), 5), (diffrax.Dopri8(), 8)],
    ids=lambda x: getattr(type(x), "__name__", x) if not isinstance(x, int) else str(x),
)
def test_constant_steps_converge_at_the_order_of_the_solver(solver, order):
    step = {1: 1e-3, 2: 2e-2, 3: 4e-2, 5: 0.1, 8: 0.25}[order]
    coarse, fine = (error(Solve(solver=solver, step=h, max_steps=10**6)) for h in (step, step / 2))
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.2)


def test_tolerances_are_met_and_matter():
    assert error(Solve()) < 1e-11
    assert 1e-11 < error(Solve(rtol=1e-4)) < 1e-3
    assert error(Solve(), jnp.float32) < 1e-3
    assert error(Solve(controller=diffrax.PIDController(rtol=1e-9, atol=1e-9))) < 1e-6


def test_times_are_taken_in_many_forms():
    for given in ([0, 1, 2], (0.0, 1.0, 2.0), np.arange(3), jnp.arange(3.0)):
        np.testing.assert_array_equal(as_times(given, jnp.float64), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(as_times(2.0), [2.0])
