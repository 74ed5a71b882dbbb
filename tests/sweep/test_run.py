"""Sweeps give the numbers of single estimates, whatever their chunks, and reach what they are asked for."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval.estimators import ESTIMATORS, Naive
from jaxkinetic.sweep.cost import evaluations, expected_prompts
from tests.sweep.sweeps import TINY


def swept(config: jk.SweepConfig, store: Path):
    jk.run_sweep(config, store)
    return jk.open_sweep(store)


def assert_same(found, exact):
    for name in exact.data_vars:
        np.testing.assert_array_equal(found[name].values, exact[name].values, err_msg=name)


def test_every_point_is_the_estimate_of_its_parameters(tmp_path: Path):
    config = TINY.replace(lam=[0.0, 1.0], law=["uniform", "codewords"], time=1.0, n_steps=4)
    found = swept(config, tmp_path / "s")
    assert found["values"].dims == (*found["count"].dims, "source")
    assert found["values"].sizes == {
        "beta": 1, "lam": 2, "time": 1, "n_tokens": 1, "vocab_size": 1, "law": 2, "estimator": 1, "source": 2,
    }  # fmt: skip
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    single = jk.estimate_profile(
        model, 1.0, 4, 8, n_prompts=96, key=jax.random.key(0), estimator="naive", control_variate=False,
        sources=[0.3, 0.7], n_steps=4,
    )  # fmt: skip
    point = found.sel(lam=1.0, law="uniform").squeeze()
    np.testing.assert_array_equal(point["values"], single.values)
    np.testing.assert_array_equal(point["standard_error"], single.standard_error)
    np.testing.assert_array_equal(point["sigma_0"], single.sources)
    assert int(point["n_steps"]) == 4
    assert float(point["step_error"]) == single.step_error
    other = found.sel(lam=1.0, law="codewords").squeeze()
    assert np.all(other["values"].values != point["values"].values)


def test_dataset_says_what_it_is(tmp_path: Path):
    found = swept(TINY, tmp_path / "s")
    for name in (*found.coords, *found.data_vars):
        expected = {"long_name"} if name in ("law", "estimator") else {"long_name", "units"}
        assert expected <= set(found[name].attrs), name
    assert found.attrs["seed"] == 0
    assert found.attrs["x64"] == "true"
    assert "cpu" in found.attrs["device"]
    for package in ("jaxkinetic", "jax", "numpy", "icechunk", "python"):
        assert f'"{package}": "' in found.attrs["versions"]
    assert '"estimator": ["naive"]' in found.attrs["configuration"]


@pytest.mark.parametrize("chunk", [64, 4096])
def test_size_of_chunks_changes_nothing(tmp_path: Path, chunk: int):
    exact = swept(TINY, tmp_path / "fine")
    assert_same(swept(TINY.replace(chunk=chunk), tmp_path / "coarse"), exact)


def test_an_extended_sweep_is_the_longer_one(tmp_path: Path):
    exact = swept(TINY.replace(n_prompts=224, chunk=128), tmp_path / "long")
    jk.run_sweep(TINY, tmp_path / "s")
    jk.extend_sweep(tmp_path / "s", n_prompts=160)
    jk.extend_sweep(tmp_path / "s", n_prompts=224, chunk=64)
    jk.extend_sweep(tmp_path / "s")
    assert_same(jk.open_sweep(tmp_path / "s"), exact)


def test_target_error_is_reached_and_no_more_is_spent(tmp_path: Path):
    config = TINY.replace(n_prompts=None, standard_error=0.35, chunk=64)
    found = swept(config, tmp_path / "s")
    worst = found["standard_error"].max("source")
    assert np.all(worst <= 0.35)
    counts = found["count"].values.ravel()
    assert np.all(counts % 64 == 0)
    assert np.all(counts >= 192)
    # One chunk fewer would not have done, by its own moments.
    for time, count in zip(config.time, counts.tolist(), strict=True):
        shorter = config.replace(time=time, n_prompts=count - 64, standard_error=None, max_prompts=None)
        before = swept(shorter, tmp_path / f"t{time}")
        assert before["standard_error"].max() > 0.35
    with pytest.raises(ValueError, match=r"`standard_error` must be at most 0\.35"):
        jk.extend_sweep(tmp_path / "s", standard_error=0.5)
    jk.extend_sweep(tmp_path / "s", standard_error=0.25)
    assert np.all(jk.open_sweep(tmp_path / "s")["standard_error"].max("source") <= 0.25)


def test_target_error_out_of_reach_ends_at_the_most_prompts(tmp_path: Path):
    found = swept(TINY.replace(n_prompts=32, standard_error=1e-6, max_prompts=96, chunk=64), tmp_path / "s")
    assert np.all(found["count"] == 96)
    with pytest.raises(ValueError, match="`max_prompts` must be at least 96"):
        jk.extend_sweep(tmp_path / "s", max_prompts=64)


def test_all_sources_of_several_lengths_share_one_array(tmp_path: Path):
    found = swept(TINY.replace(n_tokens=[5, 8], time=1.0, sources="all", n_prompts=32), tmp_path / "s")
    sigma = found["sigma_0"].values
    np.testing.assert_allclose(sigma[0], [1 / 5, 2 / 5, 3 / 5, 4 / 5, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(sigma[1], np.arange(1, 8) / 8)
    values = found["values"].squeeze().values
    np.testing.assert_array_equal(np.isnan(values), np.isnan(sigma))


def test_plan_counts_what_is_left_and_writes_nothing(tmp_path: Path):
    store = tmp_path / "s"
    plan = jk.plan_sweep(TINY, store)
    assert list(tmp_path.iterdir()) == []
    assert (plan.n_points, plan.n_left, plan.n_prompts, plan.most_prompts, plan.n_steps) == (2, 2, 192, 192, 4)
    # Four steps to depth 1 are taken for two to depth 0.5.
    assert plan.evaluations == 8 * 96 * (24 + 12)
    assert 0 < plan.seconds < 60
    jk.run_sweep(TINY, store)
    longer = jk.plan_sweep(TINY, store)
    assert (longer.n_left, longer.n_prompts, longer.seconds) == (0, 0, 0.0)
    target = jk.plan_sweep(TINY.replace(standard_error=1e-3))
    assert 1e5 < target.n_prompts <= target.most_prompts == 2 * 2**20


def test_work_of_estimators_that_run_a_prompt_several_times():
    kinds = TINY.replace(time=1.0, estimator=["naive", "glauber", "adjoint"])
    once, redrawn, differentiated = (evaluations(kinds, point, 4) for point in kinds.points())
    assert once == 8 * 24
    # Glauber runs each of two sources again; a value with its gradient counts as three.
    assert redrawn == differentiated == 3 * once


def test_expected_prompts_follow_the_variance():
    config = TINY.replace(standard_error=0.5, max_prompts=4096)
    values = np.array([[-2.0], [2.0]] * 16)
    moments = Moments.of(values)
    assert expected_prompts(config, moments) == 96
    assert expected_prompts(config.replace(standard_error=0.1), moments) == int(32 * moments.m2[0] / 31 / 32 / 0.01)
    assert expected_prompts(config.replace(standard_error=1e-5), moments) == 4096
    assert expected_prompts(config, None) == 96


def test_points_that_differ_by_values_share_their_programs(tmp_path: Path, monkeypatch):
    """One for each number of steps, also for laws given by tables, which differ at every point."""
    traces = []

    class Counted(Naive):
        def value(self, problem, drawn):
            traces.append(problem.n_steps)
            return super().value(problem, drawn)

    monkeypatch.setitem(ESTIMATORS, "naive", Counted())
    config = TINY.replace(
        lam=[0.0, 0.5, 1.0], time=[0.5, 1.0], law=["one", "other"], n_prompts=32, n_steps=4,
        laws={"one": {"probabilities": [[0.4], [0.6]]}, "other": {"probabilities": [[0.7], [0.3]]}},
    )  # fmt: skip
    jk.run_sweep(config, tmp_path / "s")
    assert traces == [4, 8]
    both = config.replace(law=["one", "uniform"])
    jk.run_sweep(both, tmp_path / "both")
    assert traces == [4, 8] * 2


def test_joint_sweeps_keep_the_covariance_of_single_estimates(tmp_path: Path):
    """Also through a restart, and for points with fewer sources than the longest."""
    config = TINY.replace(n_tokens=[4, 8], time=1.0, sources="all", joint=True, n_prompts=64, n_steps=4)
    jk.run_sweep(config, tmp_path / "s")
    jk.extend_sweep(tmp_path / "s", n_prompts=96)
    found = jk.open_sweep(tmp_path / "s")
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    for n_tokens in (4, 8):
        single = jk.estimate_profile(
            model, 1.0, 4, n_tokens, n_prompts=96, key=jax.random.key(0), estimator="naive", control_variate=False,
            joint=True, n_steps=4,
        )  # fmt: skip
        point = found.sel(n_tokens=n_tokens).squeeze()
        n = n_tokens - 1
        np.testing.assert_allclose(point["covariance"].values[:n, :n], single.covariance, rtol=1e-14)
        np.testing.assert_array_equal(point["standard_error"].values[:n], single.standard_error)
        assert np.all(np.isnan(point["covariance"].values[n:]))
    assert found["covariance"].dims[-2:] == ("source", "other_source")
