import json
from pathlib import Path

import numpy as np
import pytest

from tests.test_cli import no_cache_of_the_user, refusal, run

__all__ = ["no_cache_of_the_user"]


def test_phase_writes_picture_points_and_thresholds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    arguments = ["--resolution", "17", "--lam-range", "0.1", "10", "--beta-range", "0.5", "2"]
    assert run(monkeypatch, "phase", *arguments, "--json", "-", "--out", str(tmp_path)) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    lam = record["sections"]["lam"]
    # lam = 1 lies in the middle of the section: the threshold that the authors print.
    assert lam["lam"][8] == pytest.approx(1.0)
    assert lam["recency_time"][8] == pytest.approx(2.457489, abs=1e-6)
    assert record["sections"]["beta"]["recency_time"][-1] == pytest.approx(0.600716, abs=1e-6)
    for section in record["sections"].values():
        assert section["n_proved_but_not_u"] == 0
        assert 0 < section["n_proved"] < section["n_u_shaped"] < section["n_points"] == 289
        assert min(section["outlives"]) > 1
    assert "proved by Theorem 1.3" in captured.err
    with np.load(tmp_path / "phase.npz") as points:
        assert points["lam_argmin"].shape == (17, 17)
        assert int(points["beta_is_u_shaped"].sum()) == record["sections"]["beta"]["n_u_shaped"]
    assert (tmp_path / "phase.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beta", "-1"], "Argument `beta` must be positive and finite, but is -1"),
        (["--lam", "0"], "Argument `lam` must be positive for a phase diagram, but is 0"),
        (["--vocab-size", "1.5"], "Argument `vocab_size` must be at least 2, but is 1.5"),
        (["--lam-range", "2", "1"], "Argument `lam_range` must be positive, finite and increase"),
        (["--beta-range", "0", "1"], "Argument `beta_range` must be positive, finite and increase"),
        (["--resolution", "1"], "Argument `resolution` must lie in [2, 2000], but is 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refusal(monkeypatch, capsys, tmp_path, "phase", *arguments)
