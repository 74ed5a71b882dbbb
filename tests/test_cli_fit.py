"""`jaxkinetic fit` of many models, of a user's files, and through the simulator."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.law_table import build_law
from tests.test_cli import CURVE, no_cache_of_the_user, refusal, run

pytestmark = pytest.mark.optimized

__all__ = ["no_cache_of_the_user"]


def two_models(folder: Path) -> Path:
    """The same curve as models A and B, the second with other accuracies."""
    header, *rows = CURVE.splitlines()
    lines = [f"model,{header}", *(f"A,{row}" for row in rows)]
    lines += [f"B,{row.replace(',5', ',6')}" for row in rows]
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_every_published_model_of_every_task_with_one_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert run(monkeypatch, "fit", "--all", "--out", str(tmp_path)) == 0
    table = capsys.readouterr().out
    fits = json.loads((tmp_path / "fit.json").read_text())["fits"]
    assert [f["curves"][0]["name"] for f in fits] == jk.list_models(task=None)
    assert {c["task"] for f in fits for c in f["curves"]} == {"multi-document-qa", "key-value-retrieval"}
    assert table.count("chi-squared") == len(fits) == 9
    for f in fits:
        name = f["curves"][0]["name"]
        expected = jk.load_curves(model=name, task=None)
        assert [c["n_items"] for c in f["curves"]] == [c.n_items for c in expected]
        for c, measured in zip(f["curves"], expected, strict=True):
            assert c["accuracy"] == measured.accuracy.tolist()
        points = np.concatenate(
            [(np.array(c["fitted"]) - c["accuracy"]) / c["standard_error"] for c in f["curves"]]
        )
        assert float(points @ points) == pytest.approx(f["chi2"], rel=1e-9)
        assert f"{name}, {expected[0].task}: {points.size} points" in table
    assert (tmp_path / "fit.png").stat().st_size > 100_000


def test_all_of_one_task_in_the_range_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    ranges = ["--beta-range", "0.1", "2", "--lam-range", "-1", "5"]
    arguments = ["--all", "--task", "key-value-retrieval", "--level", "0.5", *ranges, "--out", str(tmp_path)]
    assert run(monkeypatch, "fit", *arguments, "--json", "-") == 0
    fits = json.loads(capsys.readouterr().out)["fits"]
    assert [f["curves"][0]["name"] for f in fits] == ["mpt-30b-instruct", "longchat-13b-16k"]
    for f in fits:
        expected = jk.fit_curves(
            jk.load_curves(model=f["curves"][0]["name"], task="key-value-retrieval"),
            level=0.5, theory=jk.theories.paper(beta_range=(0.1, 2.0), lam_range=(-1.0, 5.0)),
        )  # fmt: skip
        assert f["chi2"] == expected.chi2
        assert f["level"] == 0.5
        assert f["theory"] == "S_t(sigma_0; beta, lam), t = 1, M = 8"
        for name, p in f["parameters"].items():
            interval = expected.intervals[name]
            assert (p["value"], p["low"], p["high"]) == (expected.values[name], interval.low, interval.high)
            assert (p["low_open"], p["high_open"]) == (interval.low_open, interval.high_open)
            assert p["identifiable"] == expected.identifiable[name]
        assert f["quantities"] == expected.quantities
        assert [a["p_value"] for a in f["alternatives"]] == [a.p_value for a in expected.alternatives]


def test_a_model_is_found_whatever_its_task_and_may_be_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = ["--model", "mpt-30b-instruct", "--model", "longchat-13b-16k", "--model", "mpt-30b-instruct"]
    assert run(monkeypatch, "fit", *models, "--out", str(tmp_path)) == 0
    fits = json.loads((tmp_path / "fit.json").read_text())["fits"]
    assert [f["curves"][0]["name"] for f in fits] == ["mpt-30b-instruct", "longchat-13b-16k"]


def test_models_of_a_csv_are_fitted_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    source, out = two_models(tmp_path), tmp_path / "results"
    assert run(monkeypatch, "fit", "--csv", str(source), "--out", str(out)) == 0
    table = capsys.readouterr().out
    a, b = json.loads((out / "fit.json").read_text())["fits"]
    for f, name, curve in zip((a, b), "AB", jk.read_curves(source), strict=True):
        assert [c["name"] for c in f["curves"]] == [name]
        assert f["chi2"] == pytest.approx(jk.fit_curves(curve).chi2, abs=1e-9)
        assert f["dof"] == 1
        assert f"{name}: 5 points, 10 items" in table
    assert a["chi2"] != b["chi2"]


SIMULATED = ["--n-tokens", "32", "--vocab-size", "4", "--steps", "4", "--batch", "8", "--max-blocks", "2"]


@pytest.mark.parametrize("law", ["uniform", pytest.param("codewords", marks=pytest.mark.slow)])
def test_fit_through_the_simulator_is_the_librarys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, law: str
) -> None:
    source = tmp_path / "mine.csv"
    source.write_text(CURVE)
    options = ["--law", law, "--start", "1", "-1", "--seed", "3", "--level", "0.5", "--out", str(tmp_path)]
    assert run(monkeypatch, "fit", "--csv", str(source), *SIMULATED, *options, "--json", "-") == 0
    captured = capsys.readouterr()
    (record,) = json.loads(captured.out)["fits"]
    with pytest.warns(UserWarning, match="ended after 2 blocks"):
        found = jk.fit_by_simulation(
            jk.read_curves(source), 32, jax.random.key(3),
            theory=jk.theories.paper(vocab_size=4, beta_range=(0.01, 3.0)), start=(1.0, -1.0),
            max_blocks=2, steps=4, batch=8, prompts=build_law(law),
        )  # fmt: skip
    beta, simulation = record["parameters"]["beta"], record["simulation"]
    assert (beta["value"], beta["low"]) == (found.beta, found.interval("beta", 0.5)[0])
    assert (beta["identifiable"], beta["high_open"], beta["high"]) == (False, True, None)
    assert record["parameters"]["lam"]["value"] == found.lam
    assert record["chi2"] == found.chi2
    assert simulation["estimator"] == found.estimator == ("adjoint" if law == "uniform" else "glauber")
    assert (simulation["n_tokens"], simulation["seed"], simulation["converged"]) == (32, 3, False)
    assert record["curves"][0]["fitted"] == found.predict(found.curves[0]).tolist()
    assert f"t = 1, M = 4, N = 32, {law} prompts" in captured.err
    assert found.describe("beta") in captured.err
    assert "not settled after 2 blocks" in captured.err
    assert "UserWarning" not in captured.err
    assert (tmp_path / "fit.txt").read_text().strip() in captured.err
    assert (tmp_path / "fit.png").stat().st_size > 10_000


def test_a_simulated_fit_goes_on_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "mine.csv"
    source.write_text(CURVE)
    arguments = ["--csv", str(source), *SIMULATED, "--start", "1", "-1", "--out", str(tmp_path)]
    arguments += ["--checkpoint", str(tmp_path / "fit.npz")]
    assert run(monkeypatch, "fit", *arguments) == 0
    two = json.loads((tmp_path / "fit.json").read_text())["fits"][0]
    assert run(monkeypatch, "fit", *arguments, "--max-blocks", "3", "--overwrite") == 0
    three = json.loads((tmp_path / "fit.json").read_text())["fits"][0]
    assert three["simulation"]["history"][:2] == two["simulation"]["history"]
    assert len(three["simulation"]["history"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "Claude-1.3", "--all"], "Argument `all` must stand alone"),
        (["--model", "Claude-1.3", "--task", "key-value-retrieval"], "no curves of key-value-retrieval"),
        (["--beta-range", "3", "2"], "Argument `beta_range` must increase"),
        (["--lam-range", "2", "1"], "Argument `lam_range` must increase"),
        (["--law", "codewords"], "Argument `law` must come with `n_tokens`"),
        (["--checkpoint", "fit.npz"], "Argument `checkpoint` must come with `n_tokens`"),
        (["--n-tokens", "1"], "Argument `n_tokens` must be at least 2, but is 1"),
        (["--n-tokens", "16", "--level", "1"], "Argument `level` must lie in (0, 1), but is 1"),
        (["--n-tokens", "16"], "0.95 names the last of N = 16: give other sources, or more tokens"),
        (["--n-tokens", "64", "--start", "5", "1"], "Argument `beta` must lie in the theory's range, 0.01 to 3"),
        (["--n-tokens", "64", "--law", "codewords", "--estimator", "adjoint"], "must not be 'adjoint'"),
        (["--n-tokens", "64", "--all", "--checkpoint", "a.npz"], "Argument `checkpoint` must be of one fit"),
        (["--n-tokens", "64", "--config", "missing.toml"], "No such file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refusal(monkeypatch, capsys, tmp_path, "fit", *arguments)
