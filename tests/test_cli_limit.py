"""`jaxkinetic limit`: its law files, its numbers, and what it refuses."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, CodewordPrompts, DensityPrompts, ExpCosine, cli, solve_correlations
from jaxkinetic.cli.law_file import read_settings
from jaxkinetic.law_table import LAWS, build_law
from tests.limit.laws import CODEWORDS, SMOOTH, codeword_probabilities, smooth_modes
from tests.test_cli import no_cache_of_the_user, refusal, run

__all__ = ["no_cache_of_the_user"]

WAVES = """
beta = 0.7
lam = -1
times = [0, 0.25]
sources = [0.4]
observable_mode = 2
[law]
waves = [{ n = 1, cos = [0.6], turn = 2 }, { n = 2, sin = [0, 0.2] }]
"""


# Laws ---------------------------------------------------------------------------------------------------


def test_named_laws_are_those_of_the_docstring() -> None:
    smooth, codewords = build_law("smooth"), build_law("codewords")
    assert isinstance(codewords, CodewordPrompts)
    for s in (0.0, 0.37, 1.0):
        sigma = jnp.asarray(s)
        np.testing.assert_allclose(smooth.fourier(sigma, 2), smooth_modes(sigma), rtol=0, atol=1e-15)
        np.testing.assert_allclose(
            codewords.atom_probabilities(sigma), codeword_probabilities(sigma), rtol=0, atol=1e-15
        )
    assert np.all(build_law("uniform").fourier(jnp.asarray(0.3), 4) == 0)


def test_waves_add_up_to_the_density_they_are_written_as() -> None:
    table = [{"n": 1, "cos": [0.1, 0.2], "sin": [0.3, 0, -0.1], "turn": 1.5}, {"n": 1, "cos": [0.05]}]
    theta, s = np.linspace(0, 6, 13), 0.7
    exact = 1 + 0.24 * np.cos(theta - 1.05) + (0.3 - 0.049) * np.sin(theta - 1.05) + 0.05 * np.cos(theta)
    law = build_law({"waves": table})
    assert isinstance(law, DensityPrompts)
    np.testing.assert_allclose(law.density(jnp.asarray(s), jnp.asarray(theta)), exact, rtol=0, atol=1e-14)


def test_a_file_says_what_a_name_says(tmp_path: Path) -> None:
    file = tmp_path / "law.toml"
    file.write_text(WAVES)
    settings = read_settings(file)
    assert settings["law"] == LAWS["smooth"]
    assert (settings["beta"], settings["times"], settings["observable_mode"]) == (0.7, [0.0, 0.25], 2)


def test_the_docstring_shows_files_that_can_be_read(tmp_path: Path) -> None:
    text = cli.limit.__doc__ or ""
    blocks = [block for block in text.split("\n\n") if "[law]" in block]
    assert len(blocks) == 2
    for block, law in zip(blocks, ("smooth", "codewords"), strict=True):
        file = tmp_path / f"{law}.toml"
        file.write_text("\n".join(line.strip() for line in block.splitlines()))
        assert read_settings(file)["law"] == LAWS[law]


# Results ------------------------------------------------------------------------------------------------


def test_densities_equal_the_librarys_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """A flag wins over the file."""
    file, arrays = tmp_path / "law.toml", tmp_path / "results" / "limit.npz"
    file.write_text(WAVES)
    sizes = ["--n-sigma", "5", "--n-theta", "7", "--n-modes", "3"]
    arguments = ["--config", str(file), "--lam", "1", *sizes, "--out", str(tmp_path / "results")]
    assert run(monkeypatch, "limit", *arguments, "--json", "-", "--npz", str(arrays)) == 0
    record, found = json.loads(capsys.readouterr().out), dict(np.load(arrays))
    model = CausalAttention(ExpCosine(0.7), ALiBi(1.0))
    own = solve_correlations(model, SMOOTH, [0.0, 0.25], jnp.array([0.4]), observable_mode=2)
    sigma, theta = np.arange(1, 6) / 5, 2 * np.pi * np.arange(7) / 7
    density = [own.field.density(t, sigma, jnp.asarray(theta)) for t in (0.0, 0.25)]
    np.testing.assert_allclose(found["density"], density, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["cross"][1], own.cross(0.25, sigma, 3), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["auto"][1], own.auto(0.25, 3), rtol=0, atol=1e-12)
    assert np.abs(found["cross"][1, 0, 2:]).min() > 1e-4
    assert found["lam"] == record["lam"] == 1
    assert json.loads(str(found["law"])) == record["law"] == LAWS["smooth"]
    assert record["sigma"] == sigma.tolist()
    np.testing.assert_array_equal(
        np.array(record["cross_real"]) + 1j * np.array(record["cross_imag"]), found["cross"]
    )
    np.testing.assert_array_equal(record["density"], found["density"])
    assert (tmp_path / "results" / "limit.png").stat().st_size > 10_000


def test_codewords_give_characteristics_and_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    arrays = tmp_path / "limit.npz"
    arguments = ["--law", "codewords", "--times", "0.5", "--sources", "0.3", "0.6", "--n-sigma", "4"]
    assert run(monkeypatch, "limit", *arguments, "--out", str(tmp_path), "--npz", str(arrays)) == 0
    found = dict(np.load(arrays))
    model = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
    own = solve_correlations(model, CODEWORDS, [0.5], jnp.array([0.3, 0.6]))
    sigma = np.arange(1, 5) / 4
    np.testing.assert_allclose(
        found["characteristics"][0], own.field.characteristics(0.5, sigma), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(found["weights"], [codeword_probabilities(s) for s in sigma], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["cross"][0], own.cross(0.5, sigma, 8), rtol=0, atol=1e-11)
    assert "density" not in found
    last = complex(own.cross(0.5, 1.0, 1)[1, 0])
    assert f"{last.real:+.6f}" in capsys.readouterr().out


# Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--times", "1", "0.5"], "Argument `times` must increase strictly"),
        (["--times", "-1"], "Argument `times` must be non-negative"),
        (["--sources", "1"], "Argument `source` must lie in (0, 1), but is [1.]"),
        (["--sources", "0.3", "0"], "Argument `source` must lie in (0, 1)"),
        (["--beta", "0"], "Argument `beta` must be positive and finite, but is 0"),
        (["--tolerance", "0"], "Argument `tolerance` must be positive and finite, but is 0"),
        (["--lam", "nan"], "Argument `lam` must be finite, but is nan"),
        (["--observable-mode", "0"], "Argument `observable_mode` must be a non-zero integer"),
        (["--n-modes", "0"], "Argument `n_modes` must be at least 1, but is 0"),
        (["--config", "missing.toml"], "No such file"),
        (["--json", "missing/limit.json"], "Argument `json` must be a file that can be written"),
        (["--npz", "missing/limit.npz"], "Argument `npz` must be a file that can be written"),
        (["--npz", "/"], "Argument `npz` must be a file that can be written"),
    ],
)  # fmt: skip
def test_bad_flags_are_one_line_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert message in refusal(monkeypatch, capsys, tmp_path, "limit", *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sorces = [0.3]", "is unknown; the nearest is `sources`"),
        ("[law]\nprobabilites = [[0.5], [0.5]]", "is unknown; the nearest is `probabilities`"),
        ("[law]\nwaves = [{ n = 1, sine = [0.1] }]", "Key `sine` of waves is unknown; the nearest is `sin`"),
        ("beta = ", "law.toml is not TOML"),
        ("tolerance = '1e-9'", "Argument `tolerance` must be made of numbers, but holds '1e-9'"),
        ("beta = true", "Argument `beta` must be made of numbers, but holds True"),
        ("times = 1", "Argument `times` must be a list of numbers, but is 1"),
        ("sources = []", "Argument `sources` must be a list of numbers, but is []"),
        ("times = [0.5, 0.5]", "Argument `times` must increase strictly"),
        ("sources = [1.5]", "Argument `source` must lie in (0, 1)"),
        ("observable_mode = 1.5", "Argument `observable_mode` must be a non-zero integer"),
        ("law = 'smoth'", "Argument `law` must be one of uniform, smooth, codewords or a table, but is 'smoth'"),
        ("law = 3", "Argument `law` must be one of uniform, smooth, codewords or a table, but is 3"),
        ("[law]\nprobabilities = [[0.5, -0.6], [0.5, 0.6]]", "Argument `probabilities` must not be negative"),
        ("[law]\nprobabilities = [[0.5], [0.6]]", "Argument `probabilities` must sum to one, but sums to 1.1"),
        ("[law]\nprobabilities = [[1.0]]", "at least 2 probabilities"),
        ("[law]\nprobabilities = [0.5, 0.5]", "Argument `probabilities` must be a list of numbers, but is 0.5"),
        ("[law]\nwaves = [{ n = 1, cos = [1.1] }]", "must give a density, but it goes negative: -0.1"),
        ("[law]\nwaves = [{ n = 0, cos = [0.1] }]", "`n` of a wave must be a positive integer, but is 0"),
        ("[law]\nwaves = [{ cos = [0.1] }]", "`n` of a wave must be a positive integer, but is None"),
        ("[law]\nwaves = [{ n = 1, cos = [nan] }]", "Argument `modes` must be finite"),
        ("[law]\nwaves = []", "Argument `waves` must be a list of tables, but is []"),
        ("[law]\nwaves = [1]", "Argument `waves` must be a list of tables, but holds 1"),
        ("[law]\nwaves = [{ n = 1 }]\nprobabilities = [[0.5], [0.5]]", "`waves` or `probabilities`, but has both"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "law.toml").write_text(text)
    (tmp_path / "empty").mkdir()
    arguments = ["--config", str(tmp_path / "law.toml")]
    assert message in refusal(monkeypatch, capsys, tmp_path / "empty", "limit", *arguments)


def test_a_tolerance_reaches_the_solver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """No expansion is resolved to 1e-30; the refusal says which is not and what to change."""
    error = refusal(
        monkeypatch, capsys, tmp_path, "limit", "--law", "codewords", "--times", "0.5", "--tolerance", "1e-30"
    )
    assert "above the tolerance 1e-30" in error
    assert "a larger `tolerance`" in error
