"""Fits of the published curves and of curves with planted parameters, and what is refused."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

import jaxkinetic as jk
from jaxkinetic.inference import CurveFit, RetrievalCurve, fit_curves, load_curves
from jaxkinetic.inference.fit import search
from jaxkinetic.model import ExpCosine
from jaxkinetic.theories import paper
from tests.inference import oracle
from tests.inference.planted import BETA, LAM, planted, points

pytestmark = pytest.mark.optimized

# Chi-squared of the settled fits to the digits quoted, and of the best fit to six.
PUBLISHED = {
    "LongChat-13B (16K)": (13.9, 13.851396),
    "Claude-1.3": (14.8, 14.823134),
    "MPT-30B-Instruct": (16.6, 16.626149),
    "GPT-3.5-Turbo (16K)": (82, 81.766474),
}


SIXTHS, UNEVEN = (np.arange(6) + 0.5) / 6, [0.62, 0.5, 0.41, 0.47, 0.45, 0.6]


@pytest.fixture(scope="module")
def fits() -> dict[str, CurveFit]:
    return {model: fit_curves(load_curves(model=model)) for model in PUBLISHED}


@pytest.fixture(scope="module")
def exact() -> CurveFit:
    return fit_curves(planted(4 * 10**6))


# The published curves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", list(PUBLISHED))
def test_published_curves(fits: dict[str, CurveFit], model: str):
    fit = fits[model]
    quoted, measured = PUBLISHED[model]
    assert fit.chi2 == pytest.approx(quoted, abs=0.5 if quoted == 82 else 0.05)
    assert fit.chi2 == pytest.approx(measured, abs=2e-6)
    assert fit.dof == 7
    assert fit.p_value == pytest.approx(stats.chi2.sf(fit.chi2, 7), rel=1e-9)
    assert fit.aic == pytest.approx(fit.chi2 + 16, rel=1e-12)
    assert not fit.identifiable["beta"]
    assert fit.intervals["beta"].low_open
    assert str(fit.intervals["beta"]).startswith("[<0.01, ")
    # The interval, and so the region that it bounds, spans more than a decade.
    assert fit.intervals["beta"].high > 10 * fit.intervals["beta"].low
    assert fit.ridge == pytest.approx(2 * fit.lam / float(ExpCosine(fit.beta).growth_rates()[0]), rel=1e-12)


def test_best_region_of_longchat(fits: dict[str, CurveFit]):
    fit = fits["LongChat-13B (16K)"]
    there = points(fit.curves)
    # Flat: the place quoted is within two hundredths of the minimum.
    assert oracle.chi2(there, 0.56, 0.20) - fit.chi2 == pytest.approx(0, abs=0.02)
    assert fit.beta == pytest.approx(0.6708, abs=1e-3)
    assert fit.lam == pytest.approx(0.2511, abs=1e-3)


@pytest.mark.parametrize("model", ["LongChat-13B (16K)", "MPT-30B-Instruct"])
def test_minimum_is_global(fits: dict[str, CurveFit], model: str):
    there = points(fits[model].curves)
    starts = [
        (-4.0, 0.02),
        (-1.0, 0.2),
        (0.0, 1.1),
        (1.0, 20.0),
        (1.0, 80.0),
        (-2.0, 10.0),
        (-1.0, -10.0),
        (1.5, 25.0),
    ]
    found, lowest = oracle.simplex(
        lambda v: oracle.quick_chi2(there, math.exp(v[0]), v[1]),
        starts,
        [(math.log(0.01), math.log(10)), (-20, 100)],
    )
    assert fits[model].chi2 == pytest.approx(lowest, abs=1e-7)
    assert fits[model].beta == pytest.approx(math.exp(found[0]), rel=1e-3)
    assert fits[model].lam == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize(("name", "degree"), [("constant", 0), ("quadratic", 2)])
def test_alternatives_are_weighted_polynomials(fits: dict[str, CurveFit], name: str, degree: int):
    for fit in fits.values():
        (ours,) = [a for a in fit.alternatives if a.name == name]
        expected = 0.0
        for p in points(fit.curves):
            coefficients = np.polyfit(p.sources, p.accuracy, degree, w=1 / p.error)
            expected += np.sum(((np.polyval(coefficients, p.sources) - p.accuracy) / p.error) ** 2)
        assert ours.chi2 == pytest.approx(expected, rel=1e-9)
        assert ours.dof == 15 - 3 * (degree + 1)
        assert ours.aic == pytest.approx(expected + 6 * (degree + 1), rel=1e-9)
        assert ours.p_value == pytest.approx(stats.chi2.sf(expected, ours.dof), rel=1e-8)


def test_a_curve_of_two_points_takes_two_parameters_of_a_polynomial():
    """A line through the two: a quadratic leaves the three points that are too many for the other curve."""
    two, six = RetrievalCurve([0.2, 0.9], [0.4, 0.55], 400), RetrievalCurve(SIXTHS, UNEVEN, 400)
    constant, quadratic = fit_curves([two, six]).alternatives
    (p,) = points([six])
    rest = p.accuracy - np.polyval(np.polyfit(SIXTHS, p.accuracy, 2, w=1 / p.error), SIXTHS)
    assert (constant.dof, quadratic.dof) == (6, 3)
    assert quadratic.chi2 == pytest.approx(np.sum((rest / p.error) ** 2), rel=1e-9)
    assert quadratic.aic == pytest.approx(quadratic.chi2 + 10, rel=1e-9)
    assert quadratic.p_value == pytest.approx(stats.chi2.sf(quadratic.chi2, 3), rel=1e-8)


def test_prediction_is_the_bounded_line(fits: dict[str, CurveFit]):
    fit = fits["LongChat-13B (16K)"]
    at = np.array([0.01, 0.3, 1.0])
    total = 0.0
    for curve, p in zip(fit.curves, points(fit.curves), strict=True):
        both = oracle.shape(np.concatenate([p.sources, at]), fit.beta, fit.lam)
        c0, c1, _ = oracle.line(p, both[: p.sources.size])
        fitted = fit.predict(curve)
        np.testing.assert_allclose(fitted, c0 + c1 * both[: p.sources.size], atol=1e-9)
        np.testing.assert_allclose(fit.predict(curve, at), c0 + c1 * both[p.sources.size :], atol=1e-9)
        total += np.sum(((fitted - p.accuracy) / p.error) ** 2)
    assert total == pytest.approx(fit.chi2, rel=1e-9)


def test_band_is_that_of_every_allowed_curve(fits: dict[str, CurveFit]):
    """Constrained optimisation of c0 + c1 S over (log beta, lam, c0, c1) against the scan."""
    fit = fits["LongChat-13B (16K)"]
    there, k = points(fit.curves), 2
    limit = fit.chi2 + stats.chi2.ppf(0.95, 1)
    at = np.array([0.02, 0.5, 1.0])
    low, high = fit.band(fit.curves[k], at)
    p = there[k]

    def scaled(v: np.ndarray) -> np.ndarray:
        values = oracle.shape(np.append(p.sources, at), math.exp(v[0]), v[1])
        own = values[:-3]
        return (values - own.mean()) / np.ptp(own)

    def room(v: np.ndarray) -> float:
        others = oracle.quick_chi2(there[:k] + there[k + 1 :], math.exp(v[0]), v[1])
        fitted = v[2] + v[3] * scaled(v)[:-3]
        return float(limit) - others - float(np.sum(((p.accuracy - fitted) / p.error) ** 2))

    bounds = [(math.log(0.01), math.log(10)), (-20, 100), (0, 1), (0, 1)]
    for j in range(3):
        for side, ours in ((-1, low[j]), (1, high[j])):
            reached = []
            for b, lam in ((-0.4, 0.25), (-3.0, 0.02), (1.35, 20.0), (0.3, 0.8)):
                found = optimize.minimize(
                    lambda v, j=j, side=side: -side * (v[2] + v[3] * scaled(v)[j - 3]),
                    [b, lam, 0.53, 0.05],
                    method="SLSQP",
                    bounds=bounds,
                    constraints={"type": "ineq", "fun": room},
                    options={"maxiter": 300, "ftol": 1e-12},
                )
                if room(found.x) > -1e-6:
                    reached.append(-side * found.fun)
            assert ours == pytest.approx(side * max(side * np.array(reached)), abs=1e-3)


def test_band_contains_the_fit_and_widens_with_the_level(fits: dict[str, CurveFit]):
    wide = fits["MPT-30B-Instruct"]
    narrow = fit_curves(wide.curves, level=0.5)
    at = np.array([1e-6, 0.01, 0.2, 0.5, 0.8, 1.0])
    for curve in wide.curves:
        low, high = wide.band(curve, at)
        inner_low, inner_high = narrow.band(curve, at)
        fitted = wide.predict(curve, at)
        assert np.all(np.isfinite([low, high, fitted]))
        assert np.all((low < fitted) & (fitted < high))
        # At the positions between the curve's own ends, where the band is not all extrapolation.
        assert np.all((low < inner_low)[2:5] & (inner_high < high)[2:5])
        assert np.all((low <= inner_low + 1e-4) & (inner_high <= high + 1e-4))


# Planted parameters -----------------------------------------------------------------------------------


def test_exact_curves_give_back_what_was_planted(exact: CurveFit):
    assert exact.beta == pytest.approx(BETA, rel=1e-5)
    assert exact.lam == pytest.approx(LAM, rel=1e-5)
    assert exact.chi2 < 1e-6
    assert exact.dof == 16 + 20 + 24 - 8
    assert exact.p_value == pytest.approx(1.0)
    assert exact.identifiable == {"beta": True, "lam": True}
    for name, value in (("beta", BETA), ("lam", LAM)):
        interval = exact.intervals[name]
        assert interval.low < value < interval.high
        assert interval.closed
        assert interval.high - interval.low < 0.2 * value
    assert all(a.chi2 > 1000 for a in exact.alternatives)


def test_narrow_intervals_are_those_of_the_curvature(exact: CurveFit):
    """With many questions the profile is a parabola: its width follows from the Hessian of chi-squared."""
    there = points(exact.curves)
    step = 1e-3
    origin = np.array([BETA, LAM])

    def chi2(shift: np.ndarray) -> float:
        return oracle.quick_chi2(there, *(origin + shift))

    e = np.eye(2) * step
    hessian = np.array(
        [[(chi2(a + b) - chi2(a - b) - chi2(b - a) + chi2(-a - b)) / (4 * step**2) for a in e] for b in e]
    )
    deviation = np.sqrt(np.diag(np.linalg.inv(hessian / 2))) * math.sqrt(stats.chi2.ppf(0.95, 1))
    for name, expected in zip(("beta", "lam"), deviation, strict=True):
        interval = exact.intervals[name]
        assert interval.high - interval.low == pytest.approx(2 * expected, rel=0.01)


def test_narrow_band_is_that_of_the_delta_method(exact: CurveFit):
    """The allowed region is far smaller than the grid's steps; the band must find it all the same."""
    curve, p = exact.curves[1], points(exact.curves)[1]
    at = np.array([0.03, 0.4, 0.97])

    def model(v: np.ndarray) -> list[np.ndarray]:
        result = []
        for i, q in enumerate(points(exact.curves)):
            wanted = np.append(q.sources, at) if i == 1 else q.sources
            values = oracle.shape(wanted, v[0], v[1])
            own = values[: q.sources.size]
            result.append(v[2 + 2 * i] + v[3 + 2 * i] * (values - own.mean()) / np.ptp(own))
        return result

    start = [BETA, LAM]
    for q in points(exact.curves):
        s = oracle.shape(q.sources, BETA, LAM)
        slope, offset = np.polyfit((s - s.mean()) / np.ptp(s), q.accuracy, 1)
        start += [offset, slope]
    v, steps = np.array(start), 1e-5 * np.eye(8)
    columns = [[(a - b) / 2e-5 for a, b in zip(model(v + s), model(v - s), strict=True)] for s in steps]
    errors = [q.error for q in points(exact.curves)]
    jacobian = np.array(
        [np.concatenate([d[: e.size] / e for d, e in zip(c, errors, strict=True)]) for c in columns]
    )
    wanted = np.array([c[1][p.sources.size :] for c in columns])
    covariance = np.linalg.inv(jacobian @ jacobian.T)
    half = np.sqrt(stats.chi2.ppf(0.95, 1) * np.diag(wanted.T @ covariance @ wanted))
    low, high = exact.band(curve, at)
    np.testing.assert_allclose((high - low) / 2, half, rtol=0.05)


def test_unknown_errors_come_from_the_scatter(exact: CurveFit):
    rng = np.random.default_rng(0)
    curves = [
        RetrievalCurve(c.sources, c.accuracy + 1e-3 * rng.standard_normal(c.sources.size)) for c in exact.curves
    ]
    fit = fit_curves(curves)
    assert not fit.errors_known
    assert math.isnan(fit.p_value)
    assert all(math.isnan(a.p_value) for a in fit.alternatives)
    assert fit.chi2 == pytest.approx(fit.dof, rel=1e-6)
    scatter = np.concatenate([c.accuracy - fit.predict(c) for c in curves])
    assert np.sqrt(np.sum(scatter**2) / fit.dof) == pytest.approx(1e-3, rel=0.2)
    assert fit.identifiable == {"beta": True, "lam": True}
    assert fit.intervals["beta"].low < BETA < fit.intervals["beta"].high
    assert fit.intervals["lam"].low < LAM < fit.intervals["lam"].high


def test_prediction_knows_only_its_own_curves(exact: CurveFit):
    with pytest.raises(ValueError, match="one of the fitted curves"):
        exact.predict(planted(10**6)[0])
    for bad in ([0.0], [1.1], [math.nan], [[0.5]]):
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            exact.predict(exact.curves[0], bad)
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            exact.band(exact.curves[0], bad)


def test_a_fit_that_is_read_back_is_the_fit(exact: CurveFit, tmp_path: Path):
    exact.to_json(tmp_path / "fit.json")
    found = jk.load(tmp_path / "fit.json")
    assert isinstance(found, CurveFit)
    assert (found.values, found.intervals, found.identifiable) == (
        exact.values,
        exact.intervals,
        exact.identifiable,
    )
    assert (found.chi2, found.alternatives, found.ridge) == (exact.chi2, exact.alternatives, exact.ridge)
    assert found.summary() == exact.summary()
    np.testing.assert_array_equal(found.surface.chi2, exact.surface.chi2)
    at = [0.1, 0.7]
    for ours, theirs in zip(found.curves, exact.curves, strict=True):
        np.testing.assert_array_equal(found.predict(ours, at), exact.predict(theirs, at))
        np.testing.assert_array_equal(found.band(ours, at), exact.band(theirs, at))


# What is refused --------------------------------------------------------------------------------------

GOOD = RetrievalCurve([0.1, 0.3, 0.5, 0.7, 0.9], [0.6, 0.5, 0.4, 0.5, 0.6], 100, name="A")
UNCOUNTED = RetrievalCurve([0.1, 0.3, 0.5, 0.7, 0.9], [0.6, 0.5, 0.4, 0.5, 0.6])
FLAT = RetrievalCurve([0.1, 0.3, 0.5, 0.7], [0.5, 0.5, 0.5, 0.5], 100)
SHORT = RetrievalCurve([0.1, 0.5, 0.9], [0.6, 0.4, 0.6], 100)
SINGLE = RetrievalCurve([0.5], [0.6], 100)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("curves", "options", "says"),
    [
        ([], {}, "at least one curve"),
        (["MPT-30B-Instruct"], {}, "RetrievalCurve, but holds str"),
        ([GOOD, UNCOUNTED], {}, "in every curve or in none"),
        (SHORT, {}, "3 positions for 4 parameters"),
        ([GOOD, SHORT, SHORT], {}, None),
        ([SHORT, SHORT], {}, None),
        ([GOOD, GOOD, SINGLE], {}, "2 positions at least"),
        (FLAT, {}, "every curve is constant"),
        (GOOD, {"time": 0.0}, "`time` must be positive"),
        (GOOD, {"time": math.inf}, "`time` must be positive"),
        (GOOD, {"vocab_size": 1}, "`vocab_size` must be a number of at least 2"),
        (GOOD, {"vocab_size": math.nan}, "`vocab_size` must be a number of at least 2"),
        (GOOD, {"level": 0.0}, "`level` must lie"),
        (GOOD, {"level": 1.0}, "`level` must lie"),
        (GOOD, {"level": math.nan}, "`level` must lie"),
        (GOOD, {"beta_range": (0.0, 1.0)}, "`beta_range` must be positive"),
        (GOOD, {"beta_range": (1.0, math.inf)}, "`beta_range` must be finite"),
        (GOOD, {"beta_range": (2.0, 1.0)}, "`beta_range` must increase"),
        (GOOD, {"lam_range": (2.0, 1.0)}, "`lam_range` must increase"),
        (GOOD, {"lam_range": (-1.0, math.inf)}, "`lam_range` must be finite"),
        (GOOD, {"lam_range": (math.nan, 1.0)}, "`lam_range` must be finite"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(curves, options, says, monkeypatch):
    class CompiledError(Exception):
        pass

    def compiled(*_):
        raise CompiledError

    monkeypatch.setattr(search, "scan_all", compiled)
    # Where nothing is wrong, the search begins.
    level = options.get("level", 0.95)
    of_theory = {k: v for k, v in options.items() if k != "level"}
    with pytest.raises(ValueError if says else CompiledError, match=says):
        fit_curves(curves, theory=paper(**of_theory), level=level)


def test_single_precision_is_refused():
    code = (
        "from jaxkinetic.inference import fit_curves, load_curves\n"
        "try:\n    fit_curves(load_curves(model='MPT-30B-Instruct'))\n"
        "except ValueError as error:\n    assert 'double precision' in str(error)\n"
        "else:\n    raise SystemExit('nothing was refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_parameters_and_quantities_are_attributes_that_python_completes_and_suggests(fits):
    fit = fits["LongChat-13B (16K)"]
    assert (fit.beta, fit.ridge) == (fit.values["beta"], fit.quantities["ridge"])
    assert {"beta", "lam", "ridge", "chi2"} <= set(dir(fit))
    with pytest.raises(AttributeError, match="no attribute 'betta'") as raised:
        _ = fit.betta
    assert (raised.value.name, raised.value.obj) == ("betta", fit)
