"""Pictures of phases, sensitivities and posteriors show the numbers they stand for."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting
from tests.inference.test_posterior import wide


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")
    yield
    plt.close("all")


def test_marginal_holds_one_and_says_unidentified() -> None:
    posterior = wide()
    ax = plotting.plot_marginal(posterior, "beta")
    stairs = ax.patches[0].get_data()  # pyright: ignore[reportAttributeAccessIssue]
    prior = np.diff(np.log(stairs.edges)) / np.log(8.0 / 0.3)
    assert np.sum(stairs.values * prior) == pytest.approx(1.0, abs=1e-9)
    assert ax.get_title().startswith("unidentified, [<0.3") == (not posterior.identifiable["beta"])


def test_predicted_curve_is_the_posteriors_median() -> None:
    posterior = wide()
    curve = posterior.curves[0]
    ax = plotting.plot_predicted(posterior, curve)
    x, y = (np.asarray(v, float) for v in ax.lines[0].get_data())
    np.testing.assert_allclose(np.interp(curve.sources, x, y), 100 * posterior.predict(curve)[1], atol=0.3)


def test_posterior_figure_shows_priors_and_evidence() -> None:
    posterior = wide()
    text = plotting.plot_posterior(posterior).get_suptitle()
    assert "flat in log(beta), 0.3 to 8" in text
    assert f"{posterior.log_evidence - posterior.log_evidence_of['constant']:+.1f} against constant" in text


def test_band_of_a_blind_experiment_fills_the_axes() -> None:
    blind = jk.plan_experiment([0.2, 0.8], 100, [1.0, 1.0], c0=0.4, c1=0.1)
    ax = plotting.plot_experiment(blind)
    vertices = np.asarray(ax.collections[0].get_paths()[0].vertices, float)
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == (0, 100)
    assert ax.get_ylim() == (0, 100)
    drawn = np.asarray(ax.lines[0].get_ydata(), float)
    np.testing.assert_allclose(drawn[[0, -1]], 100 * blind.accuracy, rtol=1e-12)
