import json
from pathlib import Path

import pytest

from tests.test_cli import no_cache_of_the_user, refusal, run

__all__ = ["no_cache_of_the_user"]


def test_sensitivity_writes_table_picture_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert run(monkeypatch, "sensitivity", "--json", "-", "--out", str(tmp_path), "--n-positions", "3") == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record["values"]["location"] == pytest.approx(0.259276, abs=1e-6)
    # t d/dt acts on a_n t, as does nothing else: a larger depth moves the minimum towards the end.
    assert record["derivatives"]["location"]["time"] > 0 > record["derivatives"]["location"]["lam"]
    assert record["elasticities"]["drop"]["vocab_size"] == pytest.approx(0.574, abs=1e-3)
    assert record["experiment"]["identifiable"] == {"beta": False, "lam": False, "c0": False, "c1": False}
    assert record["experiment"]["standard_errors"]["beta"] is None
    assert captured.err.count("unidentified") == 4
    assert set(record["standard_errors"].values()) == {None}
    assert captured.err.count("blind") == 5
    assert (tmp_path / "sensitivity.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "3"], "has no interior minimum"),
        (["--n-positions", "0"], "Argument `n_positions` must be at least 1, but is 0"),
        (["--n-questions", "0"], "Argument `n_questions` must be at least 1"),
        (["--c1", "9"], "must give accuracies within (0, 1)"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refusal(monkeypatch, capsys, tmp_path, "sensitivity", *arguments)
