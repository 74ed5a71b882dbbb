"""The table of exact answers is itself checked, by means that share nothing with it."""

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from tests import problems


def pairs_velocity(force, lam, n_tokens):
    """(1.1) over all pairs, in NumPy."""
    j = np.arange(1, n_tokens + 1)
    logits = np.where(j[None, :] < j[:, None], -lam * (j[:, None] - j[None, :]) / n_tokens, -np.inf)
    weights = np.zeros((n_tokens, n_tokens))
    weights[1:] = np.exp(logits[1:] - logits[1:].max(axis=1, keepdims=True))
    weights[1:] /= weights[1:].sum(axis=1, keepdims=True)
    return lambda _, theta: (weights * force(theta[:, None] - theta[None, :])).sum(axis=1)


@pytest.mark.parametrize("problem", problems.ANGLE_PROBLEMS, ids=lambda p: p.name)
def test_exact_angles_solve_the_equation(problem):
    velocity = pairs_velocity(lambda x: -2 * problem.coefficient * np.sin(x), problem.lam, problem.start.shape[0])
    solution = solve_ivp(velocity, (0, 1.3), problem.start, method="DOP853", rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(solution.y[:, -1], problem.angles(1.3), rtol=0, atol=1e-11)


@pytest.mark.parametrize("problem", problems.ANGLE_PROBLEMS, ids=lambda p: p.name)
def test_exact_slopes_are_slopes(problem):
    h = 1e-5
    ahead, behind = (replace(problem, distance=problem.distance + d).angles(0.7)[-1] for d in (h, -h))
    assert (ahead - behind) / (2 * h) == pytest.approx(problem.slope(0.7), rel=1e-8)


def test_problems_have_distinct_names():
    names = [p.name for p in problems.ANGLE_PROBLEMS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("lam", [-1.5, 0.0, 2.0])
@pytest.mark.parametrize("rate", [0.8, -3.0])
def test_reference_profile_solves_the_volterra_hardy_equation(lam, rate):
    sigma, source, t, h = 0.9, 0.2, 1.1, 1e-5
    g = lambda time, s: float(problems.mp_profile(rate, time, lam, s, source))  # noqa: E731
    k = lambda s, r: float(problems.mp_graphon(lam, s, r))  # noqa: E731
    left = (g(t + h, sigma) - g(t - h, sigma)) / (2 * h)
    right = rate * (k(sigma, source) + quad(lambda s: k(sigma, s) * g(t, s), source, sigma)[0])
    assert left == pytest.approx(right, rel=1e-7)
    assert g(0.0, sigma) == 0


@pytest.mark.parametrize("lam", [2.2, 0, 1e-9, -1.0])
def test_reference_slopes_are_slopes(lam):
    with mp.workdps(80):
        slopes = problems.MpProfile(1.3, lam, 8).value_and_slopes(0.7, 0.3)
        value = lambda b, l, t, s: problems.MpProfile(b, l, 8)(t, s)  # noqa: E731
        point = (mp.mpf("1.3"), mp.mpf(lam), mp.mpf("0.7"), mp.mpf("0.3"))
        for i, name in enumerate(("beta", "lam", "time", "source")):

            def along(x, i=i):
                return value(*(x if k == i else point[k] for k in range(4)))

            assert abs(mp.diff(along, point[i]) / slopes[name] - 1) < 1e-14
