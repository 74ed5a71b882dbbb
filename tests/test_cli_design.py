import json
from pathlib import Path

import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, PowerLaw, SplineWeights, retrieval_profile
from tests.test_cli import no_cache_of_the_user, refusal, run

pytestmark = pytest.mark.optimized

__all__ = ["no_cache_of_the_user"]


@pytest.mark.slow
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


def test_a_target_is_followed_by_another_family(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """The profile of a power law, from a file, by the family it is from."""
    power = PowerLaw(0.7, 0.4)
    sources = np.linspace(0.1, 0.9, 9)
    values = retrieval_profile(CausalAttention(ExpCosine(1.0), power), 1.0, 8, sources).values
    rows = [f"{s},{v + 2}" for s, v in zip(sources, values.tolist(), strict=True)]
    # As a spreadsheet writes it: with a byte order mark, and here a space.
    (tmp_path / "target.csv").write_text("\n".join(["position, value", *rows[::-1]]) + "\n", encoding="utf-8-sig")
    arguments = ["--target", str(tmp_path / "target.csv"), "--mean-distance", str(float(power.mean_distance))]
    options = ["--family", "power-law", "--check-prompts", "0", "--out", str(tmp_path), "--json", "-"]
    assert run(monkeypatch, "design", *arguments, *options) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert (record["family"], record["exponent"], record["scale"]) == (
        "PowerLaw", pytest.approx(0.7, rel=1e-3), pytest.approx(0.4, rel=2e-3),
    )  # fmt: skip
    assert record["sources"] == pytest.approx(sources.tolist())
    assert "times closer to the target" in captured.err
    assert "particles" not in captured.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sigma,value\n0.1,1\n", "target.csv must have a column position."),
        ("position,value\n", "target.csv must have rows, but has none"),
        ("position,value\n0.1,x\n", "target.csv, row 2: value must be a number, but is 'x'"),
        ("position,value\n0.1,1\n0.2,nan\n", "target.csv, row 3: value must be a number, but is 'nan'"),
        ("position,value\n0.1,1\n0.2,1\n0.1,2\n", "target.csv must have one value for each position, but 0.1"),
    ],
)
def test_targets_that_cannot_be_read_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "target.csv"
    file.write_text(text)
    (tmp_path / "empty").mkdir()
    found = refusal(monkeypatch, capsys, tmp_path / "empty", "design", "--target", str(file))
    assert message in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean-distance", "1.2"], "`mean_distance` must lie in (0, 1), but is 1.2"),
        (["--mean-distance", "0.0001"], "`mean_distance` must lie in [0.0133, 0.987]"),
        (["--knots", "2"], "`n_knots` must be at least 4, but is 2"),
        (["--first", "0.5", "--last", "0.2"], "0 < first < last < 1, but are 0.5 and 0.2"),
        (["--check-prompts", "-1"], "`check_prompts` must be 0, or at least 2 for error bars, but is -1"),
        (["--check-prompts", "1"], "`check_prompts` must be 0, or at least 2 for error bars, but is 1"),
        (["--family", "exponentials", "--terms", "1"], "`n_terms` must be at least 2, but is 1"),
        (["--family", "power-law", "--mean-distance", "0.6"], "`mean_distance` must be below 1/2 for power laws"),
        (["--target", "missing.csv"], "No such file"),
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
