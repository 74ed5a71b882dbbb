"""Coordinates along the ridge, the grid, and the many-start search."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.inference import load_curves
from jaxkinetic.inference.fit import search
from jaxkinetic.inference.fit.likelihood import stack_curves
from jaxkinetic.inference.fit.search import Scan
from jaxkinetic.theories import paper
from jaxkinetic.theories.ridge import GRID, RidgeCoordinates
from tests.inference import oracle
from tests.inference.planted import points

pytestmark = pytest.mark.optimized

CURVES = load_curves(model="LongChat-13B (16K)")
THEORY = paper()
RIDGE = RidgeCoordinates(*THEORY.parameters)
DATA, _ = stack_curves(CURVES, THEORY)


def test_coordinates_invert_each_other():
    beta = np.geomspace(0.011, 9.9, 40)
    for lam in (-19.0, -1.0, -1e-6, 0.0, 1e-6, 0.3, 20.0, 98.0):
        values = np.stack([beta, np.full_like(beta, lam)], axis=-1)
        found = np.stack([RIDGE.values_at(v) for v in RIDGE.coordinates_of(values)])
        np.testing.assert_allclose(found, values, rtol=1e-11)
        np.testing.assert_allclose(
            RIDGE.values_at(jnp.asarray(RIDGE.coordinates_of(values)[7])), values[7], rtol=1e-11
        )


def test_coordinates_never_leave_the_range():
    beta = RIDGE.beta_of(jnp.array([-1e3, -12.0, 0.0, 12.0, 1e3]))
    assert np.all((beta >= 0.01 * (1 - 1e-12)) & (beta <= 10 * (1 + 1e-12)))
    lam = RIDGE.lam_of(jnp.array([-1e9, -1e3, 0.0, 1e3, 1e9])[:, None], beta[None, :])
    assert np.all((lam >= -20) & (lam <= 100))
    # The ridge is straight: to first order lam is q beta.
    np.testing.assert_allclose(RIDGE.lam_of(np.array(0.3), np.array(0.01)), 0.003, rtol=0.02)


def test_grid_covers_the_whole_rectangle():
    whole = search.scan_all(DATA)
    assert whole.chi2.shape == GRID
    for row in whole.values:
        beta, lam = row.T
        assert np.all(beta == beta[0])
        assert np.all(np.diff(lam) > 0)
        # Every row reaches both edges of lam and leaves no gap of more than a tenth of the range.
        assert lam[0] < 0.99 * -20
        assert lam[-1] > 0.99 * 100
        assert np.diff(lam).max() < 12
        # On the ridge, steps are a fraction of beta.
        assert np.abs(lam).min() < 0.1 * beta[0]
    assert whole.values[0, 0, 0] == pytest.approx(0.01, rel=1e-3)
    assert whole.values[-1, 0, 0] == pytest.approx(10.0, rel=1e-3)
    for place in [(3, 40), (20, 100), (50, 60), (63, 127)]:
        expected = oracle.quick_chi2(points(CURVES), *whole.values[place])
        assert whole.chi2[place] == pytest.approx(expected, rel=1e-10)


def test_polish_goes_downhill_and_holds_what_is_held():
    rng = np.random.default_rng(2)
    values = np.stack([np.exp(rng.uniform(-4, 2, 60)), rng.uniform(-5, 40, 60)], axis=1)
    held = np.repeat(np.array([[False, False], [True, False], [False, True]]), 20, axis=0)
    before = search.chi2_at(values, DATA)
    after = search.polish(values, held, DATA)
    assert np.all(after.chi2 <= before * (1 + 1e-12))
    np.testing.assert_array_equal(after.values[held], values[held])
    assert np.ptp(after.values[20:40, 1] / values[20:40, 1]) > 0.1
    np.testing.assert_allclose(search.chi2_at(after.values, DATA), after.chi2)
    # More lanes than one chunk: the answer of a lane does not depend on its neighbours.
    twice = search.polish(np.tile(values, (2, 1)), np.tile(held, (2, 1)), DATA)
    np.testing.assert_allclose(twice.chi2, np.tile(after.chi2, 2), rtol=1e-10)
    np.testing.assert_array_equal(search.polish(values, np.ones_like(held), DATA).chi2, before)


def test_polishing_until_still_reaches_the_bottom_of_a_flat_valley():
    settled = search.polish_until_still(search.polish(np.array([[0.3, 0.3]]), np.zeros((1, 2), bool), DATA), DATA)
    found, lowest = oracle.simplex(
        lambda v: oracle.quick_chi2(points(CURVES), np.exp(v[0]), v[1]),
        [(-0.4, 0.25)],
        [(math.log(0.01), math.log(10.0)), (-20, 100)],
    )
    assert settled.chi2 == pytest.approx(lowest, abs=1e-8)
    assert settled.values[0] == pytest.approx(np.exp(found[0]), rel=1e-3)
    best = search.polish_until_still(Scan(np.array([[9.0, 9.0], [0.67, 0.25]]), np.array([99.0, 13.9])), DATA)
    assert best.chi2 == pytest.approx(lowest, abs=1e-8)


def test_the_bottom_is_reached_along_a_valley_so_flat_that_damped_steps_stop_short():
    # From here damped steps alone end at lam = 83.3445; a simplex on scipy's Bessel functions finds 83.3730.
    curves = load_curves(model="MPT-30B-Instruct")
    data, _ = stack_curves(curves, THEORY)
    start = np.array([[2.76929, 83.3445]])
    best = search.polish_until_still(Scan(start, search.chi2_at(start, data)), data)
    found, lowest = oracle.simplex(
        lambda v: oracle.quick_chi2(points(curves), v[0], v[1]), [(2.7694, 83.355)], [(1, 9), (20, 100)]
    )
    assert best.chi2 == pytest.approx(lowest, abs=1e-11)
    np.testing.assert_allclose(best.values, found, rtol=1e-5)
