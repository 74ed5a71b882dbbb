"""What cannot be a sweep is refused by name, before anything is compiled or written."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.sweep import SweepConfig, read_config
from jaxkinetic.sweep.config import DIMS

WAVES = "waves = [{ n = 1, cos = [0.6] }]\n"


def read(folder: Path, text: str) -> SweepConfig:
    path = folder / "sweep.toml"
    path.write_text(text)
    return read_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bta = 1.0", "Key `bta` of .*sweep.toml is unknown; the nearest is `beta`"),
        ("n_prompt = 32", "Key `n_prompt` .* is unknown; the nearest is `n_prompts`"),
        ("[law]\nwave = []", "Key `wave` of law is unknown; the nearest is `waves`"),
        ("[laws.mine]\nwave = []", "Key `wave` of law is unknown; the nearest is `waves`"),
        ('law = "unifrm"', "Key `unifrm` of `law` is unknown; the nearest is `uniform`"),
        ("[laws.uniform]\n" + WAVES, "`laws` must leave uniform, smooth, codewords as they are"),
        ("[laws.mine]\nprobabilities = [[0.4], [0.4]]", "`probabilities` must sum to one"),
        ("laws = 3", "`laws` must be a table of laws by name, but is 3"),
        ('estimator = "adjont"', "`estimator` must be one of auto, naive, glauber, adjoint, but is 'adjont'"),
        ('law = "codewords"\nestimator = "adjoint"', "`estimator` must not be 'adjoint' for CodewordPrompts"),
        ('law = ["uniform", "codewords"]\nestimator = ["auto", "adjoint"]', "must not be 'adjoint' for Codeword"),
        ('accuracy = "hard"\nlaw = "smooth"\nestimator = "adjoint"', "must not be 'adjoint' for DensityPrompts"),
        ("estimator = 3", "`estimator` must be a name or a list of names, but holds 3"),
        ('accuracy = "firm"', "`accuracy` must be 'soft' or 'hard', but is 'firm'"),
        ("beta = [1, 0]", "`beta` must be positive and finite"),
        ("beta = inf", "`beta` must be positive and finite"),
        ('beta = "one"', "`beta` must be made of numbers, but holds 'one'"),
        ("beta = true", "`beta` must be made of numbers, but holds True"),
        ("beta = []", "`beta` must be a value or a list of values"),
        ("beta = [1, 2, 1.0]", "`beta` must hold different values"),
        ("beta = [[1], [2]]", "`beta` must be made of numbers"),
        ("lam = nan", "`lam` must be finite, but is"),
        ("time = 0", "`time` must be positive and finite"),
        ("n_tokens = 1", "`n_tokens` must be at least 2, but is 1"),
        ("n_tokens = 8.0", "`n_tokens` must be an integer, but is 8.0"),
        ("vocab_size = [8, 1]", "`vocab_size` must be at least 2, but is 1"),
        ("n_tokens = 4\nsources = [0.1, 0.2]", "0.1 and 0.2 both name token 1 of N = 4"),
        ("n_tokens = [64, 4]", "N = 4 is too small for 9 `sources`"),
        ("sources = [0.5, 1.0]", r"`sources` must lie in \(0, 1\)"),
        ("sources = []", "`sources` must be a non-empty one-dimensional array"),
        ('sources = "some"', "`sources` must be 'all' or positions, but is 'some'"),
        ('sources = ["a"]', "`sources` must be made of numbers, but holds 'a'"),
        ("control_variate = 1", "`control_variate` must be true or false, but is 1"),
        ("seed = -1", r"`seed` must be an integer in \[0, 2\^63\), but is -1"),
        (f"seed = {10**24}", rf"`seed` must be an integer in \[0, 2\^63\), but is {10**24}"),
        (f"n_tokens = {2**31}", f"`n_tokens` must be at most {2**31 - 1}, but is {2**31}"),
        (f"vocab_size = {10**20}", "`vocab_size` must be at most"),
        (f"n_prompts = {2**33}", f"`n_prompts` must be at most {2**32}, but is {2**33}"),
        (f"standard_error = 1\nmax_prompts = {2**33}", f"`max_prompts` must be at most {2**32}"),
        (f"beta = {10**400}", "`beta` must be finite, but holds an integer of 1329 bits"),
        (f"[law]\nwaves = [{{ n = {10**9} }}]", f"`n` of a wave must be at most 4096, but is {10**9}"),
        ("lam = 1e308", r"`lam` must lie in \[-1e6, 1e6\], but is 1e\+308"),
        ("lam = [0, -1e7]", r"`lam` must lie in \[-1e6, 1e6\], but is -10000000.0"),
        ("time = 1e300", r"`beta` and `time` must have a product of at most 12800, .* but have 1\.0 \* 1e\+300"),
        ("time = [1, 1e3]\nbeta = [1, 20]", r"must have a product of at most 12800, .* but have 20\.0 \* 1000\.0"),
        ("n_tokens = 1e12", "`n_tokens` must be an integer, but is 1000000000000.0"),
        (f"n_tokens = {10**12}", f"`n_tokens` must be at most {2**31 - 1}, but is {10**12}"),
        ("vocab_size = 1e23", r"`vocab_size` must be an integer, but is 1e\+23"),
        ("standard_error = 1\nmax_prompts = 1e300", r"`max_prompts` must be an integer, but is 1e\+300"),
        (f"n_tokens = {2 * 10**9}\nsources = 'all'", "at most 1073741824 results, .* but this one has 1999999999"),
        (
            "joint = true\nsources = 'all'\nn_tokens = 40000",
            "results, points times sources squared, but this one has",
        ),
        (f'["laws"."\\u001b[31m"]\n{WAVES}', r"`laws` must have names that can be printed, but has '\\x1b\[31m'"),
        ("joint = 1", "`joint` must be true or false, but is 1"),
        ("seed = 0.5", r"`seed` must be an integer in \[0, 2\^63\), but is 0.5"),
        ("n_steps = 1000", "`n_steps` must be at most 128, but is 1000"),
        ("n_prompts = 100", "`n_prompts` must be a multiple of 32, but is 100"),
        ("n_prompts = 0", "`n_prompts` must be at least 32, but is 0"),
        ("chunk = 33", "`chunk` must be a multiple of 32, but is 33"),
        ("chunk = 64.0", "`chunk` must be an integer, but is 64.0"),
        ("standard_error = 0", "`standard_error` must be positive and finite"),
        ('standard_error = "low"', "`standard_error` must be made of numbers, but holds 'low'"),
        ("max_prompts = 64", "`max_prompts` must come with `standard_error`, but none is asked for"),
        ("standard_error = 1\nn_prompts = 64\nmax_prompts = 32", "`max_prompts` must be at least 64, but is 32"),
        ("beta = ", "sweep.toml is not TOML"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_bad_files(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_scalars_and_lists_make_a_grid_in_order(tmp_path: Path):
    config = read(tmp_path, 'beta = [2, 1]\nlam = 0\nn_tokens = [16, 32]\nestimator = ["naive", "auto"]\n')
    assert config.shape == (2, 1, 1, 2, 1, 1, 2)
    points = list(config.points())
    assert [(p.beta, p.n_tokens, p.estimator) for p in points[:3]] == [
        (2.0, 16, "naive"),
        (2.0, 16, "auto"),
        (2.0, 32, "naive"),
    ]
    assert [p.index for p in points] == list(np.ndindex(config.shape))
    assert str(points[0]).startswith("beta = 2.0, lam = 0.0, time = 1.0, n_tokens = 16, ")


def test_laws_of_ones_own_by_name_or_alone(tmp_path: Path):
    named = read(tmp_path, 'law = ["mine", "uniform"]\n[laws.mine]\n' + WAVES)
    alone = read(tmp_path, "[law]\n" + WAVES)
    assert (named.law, alone.law) == (("mine", "uniform"), ("custom",))
    for law in (named.build_law("mine"), alone.build_law("custom")):
        np.testing.assert_allclose(law.fourier(jnp.asarray(0.5), 2), [0.3, 0], atol=1e-15)
    assert alone.chosen_estimator("custom", "auto").name == "adjoint"


@pytest.mark.usefixtures("as_installed")
def test_record_gives_the_same_configuration_back():
    config = SweepConfig(
        beta=np.array([0.5, 1.0]), n_tokens=np.array([64, 128]), law={"waves": ({"n": 1, "cos": (0.6,)},)},
        sources=np.array([0.2, 0.4]), standard_error=0.1, seed=np.int64(3), n_prompts=np.int32(64),  # pyright: ignore
    )  # fmt: skip
    assert SweepConfig(**json.loads(json.dumps(config.record()))) == config
    assert config.n_tokens == (64, 128)
    assert all(type(n) is int for n in config.n_tokens)


def test_goals_left_out_have_their_defaults():
    assert (SweepConfig().n_prompts, SweepConfig().max_prompts) == (1024, None)
    target = SweepConfig(standard_error=0.1, chunk=64)
    assert (target.n_prompts, target.max_prompts) == (64, 2**20)
    assert all(len(getattr(target, name)) == 1 for name in DIMS)


def test_chunks_end_at_multiples_and_at_goals():
    config = SweepConfig(n_prompts=224, chunk=96)
    assert [config.next_chunk(count) for count in (0, 32, 96, 192)] == [96, 64, 96, 32]
    target = SweepConfig(n_prompts=64, standard_error=0.1, max_prompts=128, chunk=96)
    assert [target.next_chunk(count) for count in (0, 64, 96)] == [64, 32, 32]


def test_the_shipped_example_is_read():
    shipped = read_config(Path(__file__).parents[2] / "scripts" / "sweep_example.toml")
    assert shipped.lam == (0, 1, 3)
    assert (shipped.standard_error, shipped.max_prompts, shipped.chunk) == (0.03, 4096, 256)
    assert shipped.shape == (1, 3, 1, 3, 1, 1, 1)
