import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxkinetic as jk
from jaxkinetic import cli

CURVE = "position,accuracy,n_questions,n_items\n0,62,500,10\n2,55,500,10\n4,52,500,10\n6,53,500,10\n9,60,500,10\n"

COMMANDS = [
    "fit",
    "posterior",
    "profile",
    "limit",
    "estimate",
    "sensitivity",
    "phase",
    "design",
    "simulate",
    "figures",
    "sweep",
]


@pytest.fixture(autouse=True)
def no_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Where this is set when JAX starts it is used; set later, no cache is.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["jaxkinetic", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, folder: Path, *arguments: str) -> str:
    """The one line with which a command refuses, having written nothing to an empty folder."""
    assert run(monkeypatch, *arguments, "--out", str(folder / "results")) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("jaxkinetic: error: ")
    assert "\n" not in error
    assert list(folder.iterdir()) == []
    return error


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("jaxkinetic") == jk.__version__


def test_help_of_every_command_does_not_wait_for_jax() -> None:
    code = (
        "import sys; from jaxkinetic.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['jaxkinetic', *command.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "sys.exit(bool({'jax', 'matplotlib', 'xarray', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "", *COMMANDS, "sweep run"], capture_output=True, text=True, check=False,
        env=os.environ | {"COLUMNS": "400"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listing = done.stdout.partition("usage: jaxkinetic fit")[0]
    assert "fit.txt" not in listing
    assert "fit.txt" in done.stdout
    for command in COMMANDS[:-1]:
        assert (getattr(cli, command).__doc__ or "").partition("\n")[0] in listing


def test_estimate_writes_what_the_library_estimates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    arguments = [
        "--n-tokens",
        "6",
        "--n-prompts",
        "64",
        "--vocab-size",
        "3",
        "--seed",
        "4",
        "--sources",
        "0.2",
        "0.6",
    ]
    assert run(monkeypatch, "estimate", *arguments, "--json", "-", "--out", str(tmp_path)) == 0
    record = json.loads(capsys.readouterr().out)
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    found = jk.estimate_profile(model, 1.0, 3, 6, n_prompts=64, key=jax.random.key(4), sources=[0.2, 0.6])
    assert record["values"] == found.values.tolist()
    assert record["standard_error"] == found.standard_error.tolist()
    assert (record["estimator"], record["control_variate"]) == ("adjoint", True)
    assert (tmp_path / "estimate.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bta = 2.0\n[law]\n", "Key `bta` of"),
        ('law = "round"\n', "`law` must be one of uniform, smooth, codewords or a table, but is 'round'"),
        ("[law]\nprobabilities = [[0.4], [0.4]]\n", "`probabilities` must sum to one"),
    ],
)
def test_estimate_refuses_a_law_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "law.toml").write_text(text)
    out = tmp_path / "out"
    assert run(monkeypatch, "estimate", "--config", str(tmp_path / "law.toml"), "--out", str(out)) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_estimate_takes_from_a_file_what_no_flag_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """The file is one of `jaxkinetic limit`, whose depths are not of an estimate."""
    file = tmp_path / "mine.toml"
    file.write_text(
        "beta = 0.5\nlam = 2\ntimes = [0, 0.5]\nsources = [0.4]\n[law]\nwaves = [{ n = 1, cos = [0.4] }]\n"
    )
    sizes = ["--n-tokens", "6", "--n-prompts", "32", "--vocab-size", "3", "--accuracy", "hard"]
    common = [*sizes, "--config", str(file), "--json", "-", "--out", str(tmp_path), "--overwrite"]
    for flags, beta, lam, law, sources in (
        ([], 0.5, 2.0, {"waves": [{"n": 1, "cos": [0.4]}]}, [0.5]),
        (["--beta", "1", "--lambda", "3", "--law", "uniform", "--sources", "0.2"], 1.0, 3.0, {}, [1 / 3]),
    ):
        assert run(monkeypatch, "estimate", *common, *flags) == 0
        printed = capsys.readouterr()
        record = json.loads(printed.out)
        assert (record["beta"], record["lam"], record["law"], record["time"]) == (beta, lam, law, 1.0)
        assert record["sources"] == pytest.approx(sources)
        missing = "control     none: the hard decoder has no slope to predict with" in printed.err
        assert missing is (not record["control_variate"]) is (record["estimator"] == "glauber")


def test_estimate_does_not_wait_for_a_limit_that_its_control_could_not_resolve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def unresolved(*_: object) -> None:
        raise RuntimeError("The limit is not resolved: raise its modes.")

    monkeypatch.setattr("jaxkinetic.retrieval.profile_ensemble.law_control", unresolved)
    monkeypatch.setattr(sys.modules["jaxkinetic.cli.estimate"], "_limit", unresolved)
    sizes = ["--n-tokens", "6", "--n-prompts", "32", "--vocab-size", "3", "--sources", "0.5"]
    assert run(monkeypatch, "estimate", *sizes, "--law", "smooth", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert "warning: No control variate" in printed.err
    assert "limit       not available: it is not resolved, as the warning says" in printed.out
    assert "control     none" not in printed.out
    assert (tmp_path / "estimate.png").stat().st_size > 10_000


def test_profile_prints_json_alone_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert run(monkeypatch, "profile", "--json", "-", "--out", str(tmp_path), "--n-sources", "4") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["u_shape"]["is_u_shaped"] is True
    assert record["u_shape"]["recency_threshold"] == pytest.approx(2.457489, abs=1e-6)
    assert record["sources"] == [0.25, 0.5, 0.75, 1.0]
    assert record["values"][3] == pytest.approx(1.6382511, abs=1e-7)
    assert (tmp_path / "profile.png").stat().st_size > 10_000


def test_profile_table_names_the_minimum_or_its_absence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert run(monkeypatch, "profile", "--out", str(tmp_path)) == 0
    assert "at sigma_0 = 0.259276" in capsys.readouterr().out
    assert run(monkeypatch, "profile", "--lam", "-1", "--out", str(tmp_path / "other")) == 0
    table = capsys.readouterr().out
    assert "none in the interior" in table
    assert "recency     no (at no depth)" in table
    assert run(monkeypatch, "profile", "--lam", "-800", "--out", str(tmp_path / "third")) == 0
    table = capsys.readouterr().out
    assert "recency     no (at no depth)" in table
    assert "nan" not in table


def test_simulate_writes_the_trajectory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    arguments = ["--n-tokens", "8", "--times", "0.5", "2", "--prompts", "uniform", "--seed", "3"]
    assert run(monkeypatch, "simulate", *arguments, "--out", str(tmp_path), "--json", str(target)) == 0
    record = json.loads(target.read_text())
    assert record["times"] == [0.0, 0.5, 2.0]
    assert [len(row) for row in record["angles"]] == [8, 8, 8]
    # The first token attends to nothing; the second goes to the first.
    assert record["angles"][0][0] == record["angles"][2][0]
    assert record["angles"][0][1] != record["angles"][2][1]
    assert (tmp_path / "simulate.png").exists()


def test_fit_of_a_users_csv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    source, out = tmp_path / "mine.csv", tmp_path / "results"
    source.write_text(CURVE)
    assert run(monkeypatch, "fit", "--csv", str(source), "--out", str(out)) == 0
    table = capsys.readouterr().out
    assert "unidentified" in table
    assert (out / "fit.txt").read_text().strip() in table
    fitted = json.loads((out / "fit.json").read_text())["fits"][0]
    assert fitted["parameters"]["beta"]["identifiable"] is False
    assert fitted["parameters"]["beta"]["low_open"] is True
    assert fitted["dof"] == 1
    assert len(fitted["curves"][0]["fitted"]) == 5
    assert (out / "fit.png").stat().st_size > 10_000


@pytest.mark.slow
def test_figures_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, "figures", "--out", str(tmp_path)) == 0
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["figure1.png", "figure2.png", "figure3.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "--beta", "0"], "Argument `beta` must be positive and finite, but is 0"),
        (["profile", "--beta", "nan"], "Argument `beta` must be positive and finite, but is nan"),
        (["profile", "--beta", "1e4"], "Argument `beta` must be at most 700, but is"),
        (["profile", "--lam", "inf"], "Argument `lam` must be finite, but is inf"),
        (["profile", "--lam", "1e308"], "Argument `lam` must be at most 1000000, but is 1e+308"),
        (["profile", "--beta", "12", "--lam", "100"], "S_t exceeds the range of float64"),
        (["profile", "--time", "-1"], "Argument `time` must be non-negative and finite, but is -1"),
        (["profile", "--vocab-size", "1"], "Argument `vocab_size` must be at least 2, but is 1"),
        (["profile", "--n-sources", "0"], "Argument `n_sources` must be at least 1, but is 0"),
        (["simulate", "--n-tokens", "1"], "Argument `n_tokens` must be at least 2, but is 1"),
        (["simulate", "--times", "-1"], "Argument `times` must be non-negative and finite"),
        (["fit", "--model", "GPT-9"], "Argument `model` must be one of"),
        (["fit", "--csv", "missing.csv"], "No such file"),
        (["fit", "--csv", "missing.csv", "--all"], "Argument `csv` must stand alone"),
        (["fit", "--level", "2"], "Argument `level` must lie in (0, 1), but is 2"),
        (["estimate", "--n-prompts", "1"], "Argument `n_prompts` must be at least 2"),
        (["estimate", "--n-prompts", "3", "--joint"], "Argument `n_prompts` must be at least 4"),
        (["estimate", "--seed", "99999999999999999999"], "Argument `seed` must be an integer in [0, 2^63)"),
        (["simulate", "--seed", "99999999999999999999"], "Argument `seed` must be an integer in [0, 2^63)"),
        (["fit", "--n-tokens", "32", "--seed", "-1"], "Argument `seed` must be an integer in [0, 2^63)"),
        (["estimate", "--seed", "-1"], "Argument `seed` must be an integer in [0, 2^63)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    arguments = [*arguments, "--json", str(tmp_path / "out.json")]
    assert message in refusal(monkeypatch, capsys, tmp_path, *arguments)


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_json_that_cannot_be_written_is_refused_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, command: str
) -> None:
    for folder in (tmp_path / "missing", Path(__file__)):
        shown = refusal(monkeypatch, capsys, tmp_path, command, "--json", str(folder / "out.json"))
        assert "Argument `json` must be a file that can be written" in shown


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, command: str
) -> None:
    (tmp_path / "occupied").write_text("not a folder")
    assert run(monkeypatch, command, "--out", str(tmp_path / "occupied" / "deep")) == 2
    assert "Argument `out` must be a folder that can be written" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["occupied"]


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jaxkinetic.cli", "profile", "--beta", "-1"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "jaxkinetic: error: Argument `beta` must be positive and finite, but is -1.0."


@pytest.mark.parametrize("platform", ["cuda", "quantum"])
def test_no_device_is_one_line_and_writes_nothing(tmp_path: Path, platform: str) -> None:
    """As users meet it: in a process of its own, on a platform that is not there."""
    arguments = ["estimate", "--n-tokens", "8", "--n-prompts", "32", "--out", str(tmp_path / "results")]
    done = subprocess.run(
        [sys.executable, "-m", "jaxkinetic.cli", *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"JAX_PLATFORMS": platform},
    )  # fmt: skip
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("jaxkinetic: error: There is no device: ")
    assert f"JAX_PLATFORMS is '{platform}'" in last
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
