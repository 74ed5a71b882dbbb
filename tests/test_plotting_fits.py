"""Pictures of fits show the numbers they stand for."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting

pytestmark = pytest.mark.optimized


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fits() -> list[jk.CurveFit]:
    return [jk.fit_curves(jk.load_curves(model=m, task=None)) for m in jk.list_models(task="key-value-retrieval")]


def simulation_fit() -> jk.SimulationFit:
    curve = jk.RetrievalCurve([0.25, 0.5, 0.75], [0.6, 0.5, 0.55], 100, name="A")
    history = np.stack([np.log([1.0, 1.2, 1.1, 1.3, 1.25]), np.arcsinh([0.5, 0.4, 0.45, 0.42, 0.43])], axis=1)
    square, pair = np.diag([0.04, 0.09]), {"beta": True, "lam": False}
    return jk.SimulationFit(
        theory=jk.theories.paper(), values={"beta": 1.2, "lam": 0.44},
        covariance=square, data_covariance=square, monte_carlo_covariance=square / 100,
        identifiable=pair, converged=False, monte_carlo_error=0.1, chi2=1.5, dof=1, p_value=0.2,
        offset=np.array([0.4]), contrast=np.array([0.1]), sources=np.array([0.25, 0.5, 0.75]),
        profile=np.array([1.9, 1.0, 1.4]), profile_error=np.array([0.1, 0.2, 0.3]), curves=[curve], n_tokens=8,
        estimator="adjoint", n_prompts=320, n_steps=2, step_error=1e-6, history=history,
    )  # fmt: skip


def test_intervals_have_arrows_where_they_are_open(fits: list[jk.CurveFit]) -> None:
    for name in ("beta", "lam"):
        ax = plotting.plot_intervals(fits, name, plt.figure().subplots())
        assert [t.get_text() for t in ax.get_yticklabels()] == [f.curves[0].name for f in fits]
        for row, fit in enumerate(fits):
            interval = fit.intervals[name]
            drawn = [line for line in ax.lines if np.all(np.asarray(line.get_ydata()) == row)]
            span, low, high, best = (np.asarray(line.get_xdata(), float) for line in drawn)
            np.testing.assert_array_equal(span, [interval.low, interval.high])
            assert (low[0], high[0], best[0]) == (interval.low, interval.high, getattr(fit, name))
            assert drawn[1].get_marker() == ("<" if interval.low_open else "|")
            assert drawn[2].get_marker() == (">" if interval.high_open else "|")


def test_many_fits_have_a_panel_each_within_what_an_accuracy_can_be(fits: list[jk.CurveFit]) -> None:
    figure = plotting.plot_fits(fits)
    panels = [ax for sub in figure.subfigs for ax in sub.axes]
    assert len(panels) == len(fits) + 2
    for fit, ax in zip(fits, panels, strict=False):
        assert fit.curves[0].name in ax.get_title()
        assert f"p = {fit.p_value:.2g}" in ax.get_title()
        low, high = ax.get_ylim()
        assert -30 < low < high < 130
        assert low < 100 * fit.curves[0].accuracy.min()


def test_simulated_curve_is_the_fit_with_its_monte_carlo_band() -> None:
    fit = simulation_fit()
    ax = plotting.plot_simulated_curve(fit, fit.curves[0])
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata(), float), [59.0, 50.0, 54.0], rtol=1e-12)
    band = np.asarray(ax.collections[0].get_paths()[0].vertices, float)[:, 1]
    assert (band.min(), band.max()) == pytest.approx((46.0, 61.0))


def test_history_leaves_out_the_first_quarter_and_says_unidentified() -> None:
    fit = simulation_fit()
    beta, lam = (plotting.plot_history(fit, name, plt.figure().subplots()) for name in ("beta", "lam"))
    hollow, counted = beta.lines[2:4]
    np.testing.assert_allclose(np.asarray(hollow.get_ydata(), float), [1.0], rtol=1e-12)
    np.testing.assert_allclose(np.asarray(counted.get_ydata(), float), [1.2, 1.1, 1.3, 1.25], rtol=1e-12)
    assert hollow.get_markerfacecolor() == "white"
    assert len(beta.patches) == 1
    assert len(lam.patches) == 0
    assert "unidentified" in lam.get_title()
    figure = plotting.plot_simulation_fit(fit)
    assert "320 prompts of 8 tokens" in figure.get_suptitle()
    assert "not converged" in figure.get_suptitle()
    (key,) = figure.legends
    assert key.get_texts()[0].get_text() == "two Monte Carlo errors"
    assert [ax.get_xlabel() for ax in figure.axes] == [
        r"position of the source, $\sigma_0$", "", "block of stochastic steps",
    ]  # fmt: skip


def test_the_band_of_a_simulated_curve_stays_within_0_and_100_per_cent() -> None:
    fit = simulation_fit()
    wide = dataclasses.replace(fit, profile_error=np.full_like(fit.profile_error, 1e3))
    error = 200 * wide.prediction_error(wide.curves[0])
    assert np.all(error > 100)
    band = plotting.plot_simulated_curve(wide, wide.curves[0]).collections[0]
    heights = np.asarray(band.get_paths()[0].vertices, float)[:, 1]
    assert (heights.min(), heights.max()) == (0, 100)
