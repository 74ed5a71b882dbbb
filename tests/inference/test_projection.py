"""The likelihood, its lines eliminated, against bounded least squares and scipy's Bessel functions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.inference import RetrievalCurve, load_curves
from jaxkinetic.inference.fit.likelihood import (
    CurveData,
    chi_squared,
    lines,
    residuals,
    shapes,
    stack_curves,
)
from jaxkinetic.inference.lines import best_line
from jaxkinetic.theories import paper
from tests.inference import oracle
from tests.inference.planted import points

fast_chi_squared = eqx.filter_jit(chi_squared)
fast_lines = eqx.filter_jit(lines)
fast_shapes = eqx.filter_jit(shapes)
PAIRS = [
    (0.01, 0.004),
    (0.01, 90.0),
    (0.01, -19.0),
    (0.3, 0.0),
    (0.67, 0.25),
    (1.0, 1e-9),
    (2.77, 83.4),
    (4.0, 22.4),
    (5.0, -3.0),
    (10.0, 99.0),
]


def stacked(curves: list[RetrievalCurve], time: float = 1.0, vocab_size: int = 8) -> CurveData:
    return stack_curves(curves, paper(time, vocab_size))[0]


def chi2_of(curves: list[RetrievalCurve], beta: float, lam: float, **how) -> float:
    return float(fast_chi_squared(jnp.array([beta, lam]), stacked(curves, **how)))


@pytest.mark.parametrize("model", ["MPT-30B-Instruct", "LongChat-13B (16K)"])
def test_chi_squared_is_that_of_bounded_least_squares(model):
    curves = load_curves(model=model)
    data, there = stacked(curves), points(curves)
    fast = jax.jit(lambda values: chi_squared(values, data))
    for beta, lam in PAIRS:
        assert float(fast(jnp.array([beta, lam]))) == pytest.approx(oracle.chi2(there, beta, lam), rel=1e-11)


@pytest.mark.parametrize(("time", "vocab_size"), [(0.25, 3), (3.0, 8), (1.0, 20)])
def test_depth_and_vocabulary_enter(time, vocab_size):
    curves = load_curves(model="LongChat-13B (16K)")
    ours = chi2_of(curves, 0.8, 0.5, time=time, vocab_size=vocab_size)
    assert ours == pytest.approx(oracle.chi2(points(curves), 0.8, 0.5, time, vocab_size), rel=1e-11)
    assert abs(ours - chi2_of(curves, 0.8, 0.5)) > 1e-4


def test_shipped_curves_at_the_settled_place():
    # The best region of the settled fit is flat: its quoted point is as good as the minimum to the digits quoted.
    assert chi2_of(load_curves(model="LongChat-13B (16K)"), 0.56, 0.20) == pytest.approx(13.9, abs=0.05)


@pytest.mark.parametrize(("beta", "lam"), PAIRS)
def test_lines_are_those_of_bounded_least_squares(beta, lam):
    curves = load_curves(model="LongChat-13B (16K)")
    best, values = fast_lines(jnp.array([beta, lam]), stacked(curves))
    for i, p in enumerate(points(curves)):
        s = oracle.shape(p.sources, beta, lam)
        c0, c1, _ = oracle.line(p, s)
        n = p.sources.size
        fitted = best.mean[i] + best.slope[i] * (values[i, :n] - best.center[i])
        np.testing.assert_allclose(fitted, c0 + c1 * s, atol=1e-10)


def test_curves_that_want_a_negative_slope_get_none():
    # At beta = 4, lam = 0 the profile falls with sigma_0; these accuracies rise.
    curve = RetrievalCurve([0.1, 0.3, 0.5, 0.7, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5], 1000)
    data = stacked([curve])
    best, _ = fast_lines(jnp.array([4.0, 0.0]), data)
    assert best.free_slope[0] < 0
    assert best.slope[0] == 0
    (there,) = points([curve])
    mean = np.average(there.accuracy, weights=there.error**-2)
    expected = np.sum(((there.accuracy - mean) / there.error) ** 2)
    assert chi2_of([curve], 4.0, 0.0) == pytest.approx(expected, rel=1e-13)
    # The same accuracies the other way round are fitted with a slope.
    falling = RetrievalCurve(curve.sources, curve.accuracy[::-1], 1000)
    assert chi2_of([falling], 4.0, 0.0) < 0.9 * expected


@pytest.mark.parametrize("left", [0.5, 3.84])
@pytest.mark.parametrize("tilt", [0.0, 0.06, 0.11, 0.2])
def test_extremes_of_lines_are_those_of_a_search(tilt, left):
    """Of lines m + k s with k >= 0 whose chi-squared exceeds the best of theirs by no more than is left."""
    s = np.array([1.4, -0.2, -1.3, -0.6, 0.7])
    accuracy, weight = np.array([0.2, 0.35, 0.5, 0.42, 0.3]) + tilt * s, np.full(5, 0.05**-2)
    at = np.array([*s, 0.0, 4.0, -30.0])
    best = best_line(jnp.asarray(s), jnp.asarray(accuracy), jnp.asarray(weight))
    low, high = best.extremes(jnp.asarray(at), jnp.asarray(left))
    # For each slope the offset is free within what the slope has left of chi-squared.
    k = np.linspace(0, 0.5, 500_001)
    m = np.average(accuracy) - k * s.mean()
    chi2 = (weight[0] * (accuracy - m[:, None] - k[:, None] * s) ** 2).sum(axis=1)
    allowed = chi2 <= chi2.min() + left
    room = np.sqrt((left - (chi2 - chi2.min()))[allowed] / weight.sum())
    for x, below, above in zip(at, low, high, strict=True):
        line = (m + k * x)[allowed]
        assert float(below) == pytest.approx((line - room).min(), abs=2e-6 * max(1, abs(x)))
        assert float(above) == pytest.approx((line + room).max(), abs=2e-6 * max(1, abs(x)))
    if tilt == 0 and left == 3.84:
        # No line with c1 >= 0 rises enough to matter at the curve's own positions.
        np.testing.assert_allclose(
            [low[:5], high[:5]], np.outer([0.354 - 0.04382, 0.354 + 0.04382], np.ones(5)), atol=1e-5
        )


def test_padding_changes_nothing():
    curves = load_curves(model="MPT-30B-Instruct")
    assert len({c.sources.size for c in curves}) == 3
    for beta, lam in PAIRS:
        apart = sum(chi2_of([c], beta, lam) for c in curves)
        assert chi2_of(curves, beta, lam) == pytest.approx(apart, rel=1e-12)
    r = residuals(jnp.array([1.0, 1.0]), stacked(curves))
    assert r.shape == (3, 7)
    assert np.all(np.asarray(r)[0, 3:] == 0)
    assert np.all(np.asarray(r)[0, :3] != 0)


def test_unknown_errors_weigh_all_points_alike():
    data, known = stack_curves([RetrievalCurve([0.2, 0.5], [0.3, 0.4]), RetrievalCurve([0.5], [0.3])], paper())
    assert not known
    np.testing.assert_array_equal(data.weight, [[1, 1], [1, 0]])
    assert stack_curves([RetrievalCurve([0.2, 0.5], [0.3, 0.4], 100)], paper())[1]


def test_chi_squared_is_scale_free_in_the_shape():
    values = jnp.array([3.0, 1.0, 1.2, 2.0])
    accuracy, weight = jnp.array([0.7, 0.5, 0.5, 0.6]), jnp.array([1e4, 2e4, 1e4, 3e4])
    one, other = (best_line(s * values + shift, accuracy, weight) for s, shift in ((1, 0), (1e-40, 0)))
    np.testing.assert_allclose(one.slope, other.slope * 1e-40, rtol=1e-13)
    np.testing.assert_allclose(one.slope**2 * one.spread, other.slope**2 * other.spread, rtol=1e-13)


def test_affine_accuracies_are_fitted_alike():
    curves = load_curves(model="LongChat-13B (16K)")
    data = stacked(curves)
    moved = CurveData(data.sources, 0.1 + 0.5 * data.accuracy, data.weight / 0.25, data.theory)
    for beta, lam in PAIRS:
        pair = jnp.array([beta, lam])
        np.testing.assert_allclose(fast_chi_squared(pair, moved), fast_chi_squared(pair, data), rtol=1e-9)


def test_shapes_elsewhere_share_the_scale_of_the_curve():
    curve = RetrievalCurve([0.3, 0.6, 0.9], [0.6, 0.5, 0.7], 100)
    at = np.array([0.05, 0.2, 1.0])
    for beta, lam in [(0.5, 0.5), (3.0, 5.0), (10.0, -2.0)]:
        data = stacked([curve])
        own = fast_shapes(jnp.array([beta, lam]), data)
        there = fast_shapes(jnp.array([beta, lam]), data, jnp.asarray(at)[None])
        expected = oracle.shape(np.concatenate([curve.sources, at]), beta, lam)
        np.testing.assert_allclose(there[0] / own[0, 0], expected[3:] / expected[0], rtol=1e-11)


def test_nothing_is_nan_in_the_whole_range():
    sources = [1e-6, 0.01, 0.5, 1.0]
    data = stacked([RetrievalCurve(sources, [0.9, 0.6, 0.5, 0.7], 1000), load_curves(model="MPT-30B-Instruct")[0]])
    grid = np.meshgrid([0.01, 0.1, 1, 4, 10], [-20, -1, -1e-9, 0, 1e-9, 1, 20, 100.0])
    pairs = jnp.stack([x.ravel() for x in grid], axis=1)
    value = jax.jit(jax.vmap(lambda v: chi_squared(v, data)))(pairs)
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda v: chi_squared(v, data))))(pairs)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slope))


def test_gradient_is_that_of_differences():
    data = stacked(load_curves(model="LongChat-13B (16K)"))
    values, step = jnp.array([0.9, 0.6]), 1e-4
    got = jax.jit(jax.jacfwd(lambda v: chi_squared(v, data)))(values)
    for k, direction in enumerate(np.eye(2) * step):
        ahead, behind = (fast_chi_squared(values + s * direction, data) for s in (1, -1))
        assert float(got[k]) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("lam", [100.0, 200.0, 400.0])
def test_steep_shapes_are_no_flat_ones(lam):
    """At beta = 8 the shape over these positions is that of its first point alone, whatever lam."""
    curve = RetrievalCurve([0.05, 0.25, 0.5, 0.75, 0.95], [0.7, 0.5, 0.42, 0.44, 0.5], 500)
    data, _ = stack_curves([curve], paper(beta_range=(0.01, 8.0)))
    # Weighted scatter of the other four points round their mean.
    weight, accuracy = curve.standard_error[1:] ** -2, curve.accuracy[1:]
    expected = np.sum(weight * (accuracy - np.average(accuracy, weights=weight)) ** 2)
    assert float(chi_squared(jnp.array([8.0, lam]), data)) == pytest.approx(expected, rel=1e-9)
