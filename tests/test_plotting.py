import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting

MODEL = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_error_bars_are_binomial() -> None:
    curve = jk.RetrievalCurve([0.25, 0.75], [0.5, 0.9], 100)
    ax = plotting.plot_curve(curve)
    (container,) = ax.containers
    segments = container[2][0].get_segments()  # pyright: ignore[reportIndexIssue]
    half = [(s[1, 1] - s[0, 1]) / 2 for s in segments]
    np.testing.assert_allclose(half, [5.0, 100 * np.sqrt(90.5 / 101 * (1 - 90.5 / 101) / 100)], rtol=1e-12)


def test_curves_without_counts_have_no_error_bars() -> None:
    ax = plotting.plot_curve(jk.RetrievalCurve([0.25, 0.75], [0.5, 0.9]))
    assert not ax.containers[0][2]  # pyright: ignore[reportIndexIssue]


def test_profile_marks_its_minimum() -> None:
    ax = plotting.plot_profile(MODEL, 1.0, 8)
    shape = jk.u_shape(MODEL, 1.0, 8)
    (mark,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert mark.get_xdata()[0] == float(shape.argmin)  # pyright: ignore[reportIndexIssue]
    assert mark.get_ydata()[0] == float(shape.minimum)  # pyright: ignore[reportIndexIssue]
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_profile_without_minimum_has_no_mark() -> None:
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(-1.0))
    assert all(line.get_marker() != "o" for line in plotting.plot_profile(model, 1.0, 8).lines)


def test_snapshots_have_a_panel_for_each_time() -> None:
    trajectory = jk.simulate(MODEL, jnp.linspace(0.0, 3.0, 6), [0.0, 1.0, 2.0])
    figure = plotting.plot_snapshots(trajectory)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["t = 0", "t = 1", "t = 2"]
    lines = plotting.plot_angles(trajectory, plt.figure().subplots()).lines
    np.testing.assert_array_equal(lines[5].get_ydata(), trajectory.angles[:, 5])


def test_measured_figure_shows_the_closed_book_baseline() -> None:
    (ax,) = plotting.plot_measured("GPT-3.5-Turbo", 20).axes
    assert any(np.allclose(line.get_ydata(), 56.1) for line in ax.lines)
