"""Profile-likelihood intervals against root-finding on a profile written independently."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from jaxkinetic.inference import CurveFit, Interval, fit_curves, load_curves
from jaxkinetic.inference.fit.intervals import threshold
from jaxkinetic.theories import paper
from tests.inference import oracle
from tests.inference.planted import points

pytestmark = pytest.mark.optimized

Doubles = NDArray[np.float64]
BETAS = np.geomspace(0.01, 10, 160)
LAMS = 0.01 * np.sinh(np.linspace(np.arcsinh(-2000), np.arcsinh(10000), 200))


@pytest.fixture(scope="module")
def longchat() -> CurveFit:
    return fit_curves(load_curves(model="LongChat-13B (16K)"))


@pytest.fixture(scope="module")
def mpt() -> CurveFit:
    return fit_curves(load_curves(model="MPT-30B-Instruct"))


def profile(curves: list[oracle.Points], name: str, value: float) -> float:
    """Smallest chi-squared over the other parameter: a scan, then a line search round each of its lowest dips."""

    def along(other: float) -> float:
        beta, lam = (value, other) if name == "beta" else (other, value)
        return oracle.quick_chi2(curves, beta, lam)

    grid: Doubles = LAMS if name == "beta" else BETAS
    scan = np.array([along(x) for x in grid])
    padded = np.pad(scan, 1, constant_values=np.inf)
    dips = np.flatnonzero((scan <= padded[:-2]) & (scan <= padded[2:]))
    found = [float(scan.min())]
    for i in dips[np.argsort(scan[dips])][:3]:
        bracket = grid[max(i - 1, 0)], grid[min(i + 1, grid.size - 1)]
        search = optimize.minimize_scalar(along, bounds=bracket, method="bounded", options={"xatol": 1e-10})
        found.append(float(search.fun))
    return min(found)


def crossing(curves: list[oracle.Points], name: str, limit: float, near: float) -> float:
    """Where the profile crosses the limit within two per cent of a place."""
    ends = sorted((0.98 * near, 1.02 * near))
    found = optimize.root_scalar(lambda x: profile(curves, name, x) - limit, bracket=ends, xtol=1e-9)
    return float(found.root)


def test_threshold_is_the_quantile_of_one_degree_of_freedom():
    for level in (0.5, 0.6827, 0.95, 0.999):
        assert threshold(level) == pytest.approx(stats.chi2.ppf(level, 1), rel=1e-12)


def test_closed_ends_are_crossings_of_the_profile(longchat: CurveFit):
    there = points(longchat.curves)
    limit = longchat.chi2 + float(stats.chi2.ppf(0.95, 1))
    for name, near in (("beta", longchat.intervals["beta"].high), ("lam", longchat.intervals["lam"].high)):
        assert crossing(there, name, limit, near) == pytest.approx(near, rel=1e-5)
    assert longchat.intervals["beta"].high == pytest.approx(5.0235, abs=2e-4)
    assert longchat.intervals["lam"].high == pytest.approx(82.727, abs=2e-3)


def test_an_end_set_by_the_range_of_the_other_parameter_is_open(longchat: CurveFit):
    there = points(longchat.curves)
    lam = longchat.intervals["lam"]
    limit = longchat.chi2 + float(stats.chi2.ppf(0.95, 1))
    assert lam.low == pytest.approx(-13.147, abs=2e-3)
    assert crossing(there, "lam", limit, lam.low) == pytest.approx(lam.low, rel=1e-5)
    # There beta sits at its lower edge: a smaller one would have let lam fall further.
    assert lam.low_open
    scan = [oracle.quick_chi2(there, float(b), lam.low) for b in BETAS]
    assert np.argmin(scan) == 0


def test_an_end_set_by_the_upper_end_of_beta_is_open(longchat: CurveFit):
    """Above beta = 1 lam would have risen further, to 82.7: the range of beta closes nothing."""
    there = points(longchat.curves)
    found = fit_curves(longchat.curves, theory=paper(beta_range=(0.01, 1.0)))
    lam = found.intervals["lam"]
    limit = found.chi2 + float(stats.chi2.ppf(0.95, 1))
    betas = np.geomspace(0.01, 1.0, 120)
    at_end = [oracle.quick_chi2(there, float(b), lam.high) for b in betas]
    assert np.argmin(at_end) == betas.size - 1
    assert at_end[-1] == pytest.approx(limit, abs=1e-3)
    assert lam.high < 0.9 * longchat.intervals["lam"].high
    assert lam.high_open
    assert found.intervals["beta"].high_open
    assert not found.identifiable["lam"]


def test_an_interval_is_followed_from_valley_to_valley(mpt: CurveFit):
    # At small lam the best beta lies on the ridge, far from the best fit: the interval goes on there.
    there = points(mpt.curves)
    limit = mpt.chi2 + float(stats.chi2.ppf(0.95, 1))
    assert profile(there, "lam", 0.0125) < limit - 1
    lam = mpt.intervals["lam"]
    assert lam.low == pytest.approx(0.008346, abs=2e-6)
    assert crossing(there, "lam", limit, lam.low) == pytest.approx(lam.low, rel=1e-5)
    assert lam.low_open
    assert lam.high_open
    beta = mpt.intervals["beta"]
    assert crossing(there, "beta", limit, beta.high) == pytest.approx(beta.high, rel=1e-6)
    # lam is at its upper edge there.
    assert beta.high_open


@pytest.mark.parametrize("name", ["beta", "lam"])
def test_profiles_are_lowest_at_each_value(longchat: CurveFit, name: str):
    there = points(longchat.curves)
    ours = longchat.profiles[name]
    values = ours.values[:, ["beta", "lam"].index(name)]
    assert np.all(np.diff(values) >= 0)
    assert (*ours.lowest().values, ours.lowest().chi2) == (longchat.beta, longchat.lam, longchat.chi2)
    for i in np.linspace(0, values.size - 1, 7).astype(int):
        assert ours.chi2[i] == pytest.approx(profile(there, name, float(values[i])), abs=2e-4)
        assert ours.chi2[i] == pytest.approx(oracle.quick_chi2(there, *ours.values[i].tolist()), rel=1e-9)


def test_interval_prints_what_it_knows():
    assert str(Interval(0.5, 2.0, False, False, 0.95)) == "[0.5, 2]"
    assert str(Interval(0.01, 3.056, True, True, 0.95)) == "[<0.01, >3.06]"
    assert Interval(0.5, 2.0, False, False, 0.95).closed
    assert not Interval(0.5, 2.0, True, False, 0.95).closed
    assert not Interval(0.5, 2.0, False, True, 0.95).closed


def test_level_sets_the_width(longchat: CurveFit):
    narrow = fit_curves(longchat.curves, level=0.6827)
    limit = longchat.chi2 + 1.0
    assert narrow.intervals["beta"].level == 0.6827
    assert narrow.chi2 == pytest.approx(longchat.chi2, abs=1e-8)
    high = narrow.intervals["beta"].high
    assert high < longchat.intervals["beta"].high
    assert profile(points(longchat.curves), "beta", high) == pytest.approx(limit, abs=1e-4)
    # The 68 per cent region of beta spans more than a decade, down to whatever is searched.
    assert narrow.intervals["beta"].low_open
    assert math.log10(high / narrow.intervals["beta"].low) > 1
