import json
from pathlib import Path

import numpy as np
import pytest

from jaxkinetic import ALiBi, SplineWeights
from tests.test_cli import no_cache_of_the_user, refusal, run

__all__ = ["no_cache_of_the_user"]


def test_weights_profiles_particles_and_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    arguments = ["--lam", "2", "--knots", "12", "--first", "0.1", "--last", "0.9"]
    check = ["--check-prompts", "64", "--check-tokens", "32"]
    assert run(monkeypatch, "design", *arguments, *check, "--out", str(tmp_path), "--json", "-") == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record["mean_distance"] == pytest.approx(float(ALiBi(2.0).mean_distance), abs=1e-9)
    assert record["lam"] == pytest.approx(2.0, rel=1e-9)
    assert record["range"] == pytest.approx(np.ptp(record["profile"]), rel=1e-12)
    assert record["gain"] == pytest.approx(record["alibi_range"] / record["range"], rel=1e-12)
    assert record["gain"] > 2
    assert record["converged"]
    assert (record["sources"][0], record["sources"][-1]) == pytest.approx((0.1, 0.9))
    weights = SplineWeights(np.asarray(record["log_weights"]))
    assert float(weights.mean_distance) == pytest.approx(record["mean_distance"], abs=1e-9)
    assert record["particles"]["n_tokens"] == record["alibi_particles"]["n_tokens"] == 32
    assert record["particles"]["n_prompts"] == 64
    assert captured.err.count("particles") == 2
    assert "times flatter" in captured.err
    assert (tmp_path / "design.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean-distance", "1.2"], "`mean_distance` must lie in (0, 1), but is 1.2"),
        (["--mean-distance", "0.0001"], "`mean_distance` must lie in [0.0133, 0.987]"),
        (["--knots", "2"], "`n_knots` must be at least 4, but is 2"),
        (["--first", "0.5", "--last", "0.2"], "0 < first < last < 1, but are 0.5 and 0.2"),
        (["--check-prompts", "-1"], "`check_prompts` must be at least 0, but is -1"),
        (["--beta", "0"], "`beta` must be positive"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refusal(monkeypatch, capsys, tmp_path, "design", *arguments)
