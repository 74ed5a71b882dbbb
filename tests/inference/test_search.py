"""Coordinates along the ridge, the grid, and the many-start search."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.inference import load_curves
from jaxkinetic.inference.fit import search
from jaxkinetic.inference.fit.likelihood import stack_curves
from jaxkinetic.inference.fit.search import FIXED_BETA, FIXED_LAM, FREE, Polished, Range
from jaxkinetic.model import required_modes
from tests.inference import oracle
from tests.inference.planted import points

pytestmark = pytest.mark.optimized

BOUNDS = Range((0.01, 10.0), (-20.0, 100.0))
CURVES = load_curves(model="LongChat-13B (16K)")
DATA, _ = stack_curves(CURVES, 1.0, 8, required_modes(10.0, np.float64))


def test_coordinates_invert_each_other():
    beta = jnp.geomspace(0.011, 9.9, 40)
    np.testing.assert_allclose(search.beta_of(search.b_of(beta, BOUNDS), BOUNDS), beta, rtol=1e-12)
    for lam in (-19.0, -1.0, -1e-6, 0.0, 1e-6, 0.3, 20.0, 98.0):
        values = jnp.full_like(beta, lam)
        q = search.q_of(values, beta, BOUNDS)
        np.testing.assert_allclose(search.lam_of(q, beta, BOUNDS), values, rtol=1e-11)


def test_coordinates_never_leave_the_range():
    b = jnp.array([-1e3, -12.0, 0.0, 12.0, 1e3])
    beta = search.beta_of(b, BOUNDS)
    assert np.all((beta >= 0.01 * (1 - 1e-12)) & (beta <= 10 * (1 + 1e-12)))
    lam = search.lam_of(jnp.array([-1e9, -1e3, 0.0, 1e3, 1e9])[:, None], beta[None, :], BOUNDS)
    assert np.all((lam >= -20) & (lam <= 100))
    # The ridge is straight: to first order lam is q beta.
    np.testing.assert_allclose(search.lam_of(jnp.array(0.3), jnp.array(0.01), BOUNDS), 0.003, rtol=0.02)


def test_grid_covers_the_whole_rectangle():
    whole = search.surface(DATA, BOUNDS)
    assert whole.beta.shape == whole.lam.shape == whole.chi2.shape == search.GRID
    for beta, lam in zip(whole.beta, whole.lam, strict=True):
        assert np.all(beta == beta[0])
        assert np.all(np.diff(lam) > 0)
        # Every row reaches both edges of lam and leaves no gap of more than a tenth of the range.
        assert lam[0] < 0.99 * -20
        assert lam[-1] > 0.99 * 100
        assert np.diff(lam).max() < 12
        # On the ridge, steps are a fraction of beta.
        assert np.abs(lam).min() < 0.1 * beta[0]
    assert whole.beta[0, 0] == pytest.approx(0.01, rel=1e-3)
    assert whole.beta[-1, 0] == pytest.approx(10.0, rel=1e-3)
    some = [(3, 40), (20, 100), (50, 60), (63, 127)]
    there = points(CURVES)
    for i, j in some:
        expected = oracle.quick_chi2(there, whole.beta[i, j], whole.lam[i, j])
        assert whole.chi2[i, j] == pytest.approx(expected, rel=1e-10)


def test_polish_goes_downhill_and_holds_what_is_held():
    rng = np.random.default_rng(2)
    beta, lam = np.exp(rng.uniform(-4, 2, 60)), rng.uniform(-5, 40, 60)
    modes = np.repeat([FREE, FIXED_BETA, FIXED_LAM], 20)
    before = search.chi2_at(beta[:, None], lam[:, None], DATA)[:, 0]
    after = search.polish(beta, lam, modes, DATA, BOUNDS)
    assert np.all(after.chi2 <= before * (1 + 1e-12))
    np.testing.assert_allclose(after.beta[20:40], beta[20:40], rtol=1e-10)
    np.testing.assert_allclose(after.lam[40:], lam[40:], rtol=1e-13)
    assert np.ptp(after.lam[20:40] / lam[20:40]) > 0.1
    np.testing.assert_allclose(search.chi2_at(after.beta[:, None], after.lam[:, None], DATA)[:, 0], after.chi2)
    # More lanes than one chunk: the answer of a lane does not depend on its neighbours.
    twice = search.polish(np.tile(beta, 2), np.tile(lam, 2), np.tile(modes, 2), DATA, BOUNDS)
    np.testing.assert_allclose(twice.chi2, np.tile(after.chi2, 2), rtol=1e-10)


def test_settling_reaches_the_bottom_of_a_flat_valley():
    starts = search.polish(np.array([0.3]), np.array([0.3]), FREE, DATA, BOUNDS)
    settled = search.settle(starts, DATA, BOUNDS)
    found, lowest = oracle.simplex(
        lambda v: oracle.quick_chi2(points(CURVES), np.exp(v[0]), v[1]),
        [(-0.4, 0.25)],
        [(math.log(0.01), math.log(10.0)), BOUNDS.lam],
    )
    assert settled[2] == pytest.approx(lowest, abs=1e-8)
    assert settled[0] == pytest.approx(np.exp(found[0]), rel=1e-3)
    best = search.settle(
        Polished(np.array([9.0, 0.67]), np.array([9.0, 0.25]), np.array([99.0, 13.9])), DATA, BOUNDS
    )
    assert best[2] == pytest.approx(lowest, abs=1e-8)
