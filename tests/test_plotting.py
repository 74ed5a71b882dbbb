import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting
from tests.limit.laws import CODEWORDS, SMOOTH

MODEL = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))


@pytest.fixture(autouse=True)
def close_figures():
    # What an earlier test left open would be drawn into: plt.gca() finds it.
    plt.close("all")
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


def test_estimates_are_drawn_with_their_error_bars():
    found = jk.estimate_profile(MODEL, 0.5, 3, 6, n_prompts=32, key=jax.random.key(0), n_steps=2)
    ax = plotting.plot_estimate(found)
    segments = ax.containers[0][2][0].get_segments()  # pyright: ignore[reportIndexIssue]
    np.testing.assert_allclose([(s[1, 1] - s[0, 1]) / 2 for s in segments], 1.96 * found.standard_error, rtol=1e-9)
    line = plotting.plot_profile_line(MODEL, 0.5, 3, ax).lines[-1]
    expected = jk.retrieval_profile(MODEL, 0.5, 3, np.asarray(line.get_xdata())).values
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)


# The limit ----------------------------------------------------------------------------------------------


def correlations(law):
    size = jk.Resolution(nodes=17, source_nodes=17, modes=24, tolerance=1e-3)
    return jk.solve_correlations(MODEL, law, [0.0, 0.5], jnp.array([0.2, 0.6]), resolution=size)


def test_cross_correlations_start_at_their_sources() -> None:
    found = correlations(CODEWORDS)
    ax = plotting.plot_cross(found)
    lines = [line for line in ax.lines if line.get_marker() == "None"]
    assert [line.get_label() for line in lines] == [r"$\sigma_0$ = 0.2", r"$\sigma_0$ = 0.6"]
    for i, line in enumerate(lines):
        sigma, values = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert sigma[0] == pytest.approx(float(found.sources[i]), abs=1e-4)
        assert sigma[0] > float(found.sources[i])
        np.testing.assert_allclose(
            values[[0, -1]], np.abs(found.cross(0.5, sigma[[0, -1]], 1)[i, :, 0]), rtol=1e-12
        )
    bars = plotting.plot_cross_modes(found, 0.5, plt.figure().subplots()).patches
    heights = [bar.get_height() for bar in bars]  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(heights, np.abs(found.cross(0.5, 1.0, 8)).ravel(), rtol=1e-12)


def test_limit_has_a_disc_for_each_time() -> None:
    figure = plotting.plot_limit(correlations(SMOOTH))
    assert [ax.get_title() for ax in figure.axes[:2]] == ["t = 0", "t = 0.5"]
    mesh = figure.axes[1].collections[0]
    density = np.asarray(correlations(SMOOTH).field.density(0.5, 1.0, jnp.array([2.0])))
    drawn = np.asarray(mesh.get_array())[-1]
    assert np.interp(2.0, np.linspace(0, 2 * np.pi, drawn.size), drawn) == pytest.approx(density[0], rel=1e-3)


def test_codewords_are_drawn_where_they_went_as_wide_as_they_are_likely() -> None:
    field = correlations(CODEWORDS).field
    ax = plotting.plot_characteristics(field, 0.5, plt.figure().add_subplot(projection="polar"))
    assert len(ax.collections) == 4
    for m, line in enumerate(ax.collections):
        end = line.get_segments()[-1][-1]
        np.testing.assert_allclose(end, [float(field.characteristics(0.5, 1.0)[m]), 1.0], rtol=1e-12)
        grows = line.get_linewidths()[-1] - line.get_linewidths()[0]
        assert np.sign(np.round(grows, 6)) == np.sign([-0.2, 0, -0.1, 0.3][m])


def test_one_observable_at_a_time() -> None:
    found = dataclasses.replace(correlations(CODEWORDS), observable_modes=(1, 2))
    with pytest.raises(ValueError, match="`found` must have one observable, but has"):
        plotting.plot_limit(found)
