"""The picture of designed weights shows the numbers it stands for."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")
    yield
    plt.close("all")


def test_density_integrates_to_one():
    for positions in (jk.ALiBi(2.0), jk.PowerLaw(1.5, 0.1), jk.SplineWeights([0.0, 1.0, -1.0, 0.5])):
        x, y = (
            np.asarray(v, float) for v in plotting.plot_weights(positions, plt.figure().gca()).lines[0].get_data()
        )
        assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
        assert np.trapezoid(x * y, x) == pytest.approx(float(positions.mean_distance), abs=1e-3)


def test_both_profiles_and_the_target_are_drawn():
    sources = np.linspace(0.1, 0.9, 20)
    target = 0.1 * sources
    designed = jk.design_weights(
        jk.ExpCosine(1.0), 0.5, 8, mean_distance=0.45, target=target, sources=sources, n_knots=8
    )
    figure = plotting.plot_design(designed)
    left, right = figure.axes
    assert "0.45" in left.get_title()
    assert "closer to the target" in right.get_title()
    lines = [np.asarray(line.get_data()[1], float) for line in right.lines]
    np.testing.assert_array_equal(lines[0], designed.profile)
    np.testing.assert_array_equal(lines[1], designed.alibi_profile)
    np.testing.assert_allclose(np.diff(lines[2]), np.diff(target), atol=1e-12)
