"""Pictures of sweeps show the numbers of the store and, where there is one, the limit."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.results import PointState
from jaxkinetic.sweep.store import open_writer
from tests.sweep.sweeps import TINY


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")
    yield
    plt.close("all")


def invented(store: Path, config: jk.SweepConfig):
    """A sweep whose point number p has means p and p + 0.5, and standard errors 0.1 and 0.2."""
    with open_writer(store, config) as writer:
        for p, point in enumerate(config.points()):
            size = config.positions(point.n_tokens).size
            error = 0.1 * np.arange(1, size + 1)
            moments = Moments(64, p + 0.5 * np.arange(size), error**2 * 63 * 64)
            writer.write(point, PointState(moments, 4, 1e-6))
    return jk.open_sweep(store)


def test_error_bars_are_those_of_the_store(tmp_path: Path) -> None:
    found = invented(tmp_path / "s", TINY.replace(time=1.0, n_tokens=[8, 16]))
    (ax,) = plotting.plot_sweep(found).axes
    for p, container in enumerate(ax.containers):
        line, _, (bars,) = container  # pyright: ignore[reportGeneralTypeIssues]
        np.testing.assert_allclose(line.get_xdata(), TINY.positions((8, 16)[p]))
        np.testing.assert_allclose(line.get_ydata(), [p, p + 0.5])
        half = [(s[1, 1] - s[0, 1]) / 2 for s in bars.get_segments()]
        np.testing.assert_allclose(half, [0.196, 0.392], rtol=1e-12)
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == [
        r"limit, $S_t(\sigma_0)$",
        "N = 8",
        "N = 16",
    ]


def test_limit_is_the_closed_form_of_each_panel(tmp_path: Path) -> None:
    found = invented(tmp_path / "s", TINY.replace(n_tokens=[8, 16]))
    figure = plotting.plot_sweep(found)
    assert [ax.get_title() for ax in figure.axes] == ["t = 0.5", "t = 1"]
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    for ax, time in zip(figure.axes, TINY.time, strict=True):
        (limit,) = (line for line in ax.lines if line.get_linestyle() == "--")
        x, y = (np.asarray(v, float) for v in limit.get_data())
        np.testing.assert_allclose(y, jk.retrieval_profile(model, time, 4, x).values, rtol=1e-12)


def test_colours_of_models_carry_their_own_limits(tmp_path: Path) -> None:
    found = invented(tmp_path / "s", TINY.replace(time=1.0, lam=[0.0, 1.0, 2.0]))
    (ax,) = plotting.plot_sweep(found).axes
    limits = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_color() for line in limits] == list(plotting.COLOURS[:3])


def test_no_limit_where_there_is_no_closed_form(tmp_path: Path) -> None:
    for name, change in (("law", {"law": "codewords"}), ("hard", {"accuracy": "hard"})):
        found = invented(tmp_path / name, TINY.replace(time=1.0, **change))
        (ax,) = plotting.plot_sweep(found).axes
        assert not [line for line in ax.lines if line.get_linestyle() == "--"]


def test_many_sources_make_a_band_and_missing_points_are_left_out(tmp_path: Path) -> None:
    config = TINY.replace(time=1.0, n_tokens=[8, 40], sources="all")
    whole = invented(tmp_path / "s", config)
    (ax,) = plotting.plot_sweep(whole).axes
    assert len(ax.containers) == 1
    assert len(ax.collections) == 2
    with open_writer(tmp_path / "half", config) as writer:
        point = next(config.points())
        writer.write(point, PointState(Moments(64, np.ones(7), np.ones(7)), 4, 1e-6))
    (ax,) = plotting.plot_sweep(jk.open_sweep(tmp_path / "half")).axes
    assert len(ax.containers) == 1
    assert len(ax.collections) == 1


def test_more_panels_than_can_be_looked_at_are_refused(tmp_path: Path) -> None:
    many = TINY.replace(n_tokens=[8, 9], time=[0.1, 0.2, 0.3, 0.4, 0.5], beta=[0.5, 1.0, 1.5, 2.0])
    with open_writer(tmp_path / "s", many) as writer:
        writer.write(next(many.points()), PointState(Moments(64, np.ones(2), np.ones(2)), 4, 1e-6))
    found = jk.open_sweep(tmp_path / "s")
    with pytest.raises(ValueError, match="makes 20 panels, one for each beta, time, but 16 is the most"):
        plotting.plot_sweep(found)
    assert len(plotting.plot_sweep(found.isel(time=[0, 1])).axes) == 8
