import json
from pathlib import Path

import numpy as np
import pytest

import jaxkinetic as jk
from tests.test_cli import CURVE, no_cache_of_the_user, refusal, run

pytestmark = pytest.mark.optimized

__all__ = ["no_cache_of_the_user"]


def test_posterior_writes_table_picture_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert run(monkeypatch, "posterior", "--json", "-", "--out", str(tmp_path)) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)["posteriors"][0]
    found = jk.curve_posterior(jk.load_curves(model="MPT-30B-Instruct"))
    assert record["log_evidence"] == pytest.approx(found.log_evidence, abs=1e-9)
    assert record["log_evidence_of"] == pytest.approx(found.log_evidence_of)
    assert record["identifiable"] == {"beta": False, "lam": False}
    assert record["intervals"]["beta"]["high"] == pytest.approx(found.intervals["beta"].high)
    assert record["priors"]["contrast_spread"] == 0.2
    edges, share = np.array(record["marginals"]["lam"]["edges"]), np.array(record["marginals"]["lam"]["share"])
    assert edges.size == share.size + 1
    assert share.sum() == pytest.approx(1)
    for curve in record["curves"]:
        assert np.all(np.array(curve["low"]) < np.array(curve["median"]))
        assert np.all(np.array(curve["median"]) < np.array(curve["high"]))
    assert f"beta        unidentified, {found.intervals['beta']} (90 %)" in captured.err
    assert "flat in log(beta), 0.01 to 10" in captured.err
    for name, evidence in found.log_evidence_of.items():
        assert f"{found.log_evidence - evidence:+.2f} against {name}" in captured.err
    assert (tmp_path / "posterior.txt").read_text().strip() in captured.err
    assert json.loads((tmp_path / "posterior.json").read_text())["posteriors"] == [record]
    assert (tmp_path / "posterior.png").stat().st_size > 10_000


@pytest.mark.slow
def test_models_are_pooled_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    names = "Claude-1.3", "LongChat-13B (16K)"
    models = [argument for name in names for argument in ("--model", name)]
    options = ["--beta-range", "0.05", "5", "--lam-range", "-5", "20", "--out", str(tmp_path)]
    assert run(monkeypatch, "posterior", *models, *options, "--pool") == 0
    table = capsys.readouterr().out
    record = json.loads((tmp_path / "posterior.json").read_text())
    curves = [jk.load_curves(model=name) for name in names]
    theory = jk.theories.paper(beta_range=(0.05, 5.0), lam_range=(-5.0, 20.0))
    pooled = jk.curve_posterior([*curves[0], *curves[1]], theory=theory).log_evidence
    apart = [jk.curve_posterior(c, theory=theory).log_evidence for c in curves]
    assert [p["log_evidence"] for p in record["posteriors"]] == [pytest.approx(pooled)]
    assert record["log_evidence_apart"] == pytest.approx(dict(zip(names, apart, strict=True)))
    assert len(record["posteriors"][0]["curves"]) == 6
    assert f"{pooled - sum(apart):+.2f} for one beta and lam, against a pair for each of 2 models" in table
    assert "Claude-1.3 and LongChat-13B (16K), multi-document-qa: 30 points, 10, 20, 30 items" in table
    assert [p.name for p in tmp_path.glob("*.png")] == ["posterior.png"]


def test_models_of_a_csv_stay_apart_and_depths_are_weighed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    rows = CURVE.splitlines()
    lines = [f"model,{rows[0]}"] + [f"{name},{row}" for name in ("A", "B") for row in rows[1:]]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "results"
    arguments = ["--csv", str(tmp_path / "mine.csv"), "--time", "0.5", "2", "--level", "0.5", "--out", str(out)]
    assert run(monkeypatch, "posterior", *arguments) == 0
    table = capsys.readouterr().out
    a, b = json.loads((out / "posterior.json").read_text())["posteriors"]
    assert (a["curves"][0]["name"], b["curves"][0]["name"]) == ("A", "B")
    assert a["log_evidence"] == b["log_evidence"]
    assert a["marginals"]["time"]["values"] == [0.5, 2.0]
    assert sum(a["marginals"]["time"]["share"]) == pytest.approx(1)
    assert f"time        {a['marginals']['time']['share'][0]:.3g} at 0.5" in table
    assert sorted(p.name for p in out.glob("*.png")) == ["posterior-2.png", "posterior.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "GPT-9"], "Argument `model` must be one of"),
        (["--csv", "missing.csv"], "No such file"),
        (["--csv", "missing.csv", "--all"], "Argument `csv` must stand alone"),
        (["--model", "Claude-1.3", "--all"], "Argument `all` must stand alone"),
        (["--pool"], "Argument `pool` needs curves of several models"),
        (["--level", "1"], "Argument `level` must lie in (0, 1), but is 1"),
        (["--time", "0"], "Argument `time` must be positive"),
        (["--vocab-size", "8", "1"], "Argument `vocab_size` must be a number of at least 2, but is 1"),
        (["--beta-range", "3", "2"], "Argument `beta_range` must increase"),
        (["--contrast-spread", "0"], "Argument `contrast_spread` must be positive"),
        (["--contrast-spread", "1e-4"], "Argument `priors` excludes the data"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refusal(monkeypatch, capsys, tmp_path, "posterior", *arguments)
