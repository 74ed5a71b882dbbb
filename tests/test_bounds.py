"""Numbers without sense are refused with a bound, by every command and every function that takes them."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxkinetic as jk
from jaxkinetic._bounds import LARGEST, check_sensible
from tests.test_cli import CURVE, no_cache_of_the_user, refusal

__all__ = ["no_cache_of_the_user"]

BIG, HUGE = 10**12, 10**400
TABLE = {
    "fit": {
        "vocab-size": BIG, "time": 1e300, "n-tokens": BIG, "beta-range": "0.1 1e4", "lam-range": "-1e308 1e308",
        "steps": BIG, "batch": BIG, "max-blocks": BIG, "start": "1 1e308", "n-items": BIG,
    },
    "posterior": {
        "vocab-size": f"8 {BIG}", "time": "1 1e300", "beta-range": "0.1 1e4", "lam-range": "-1e308 1",
        "next-questions": "1e300", "n-items": BIG,
    },
    "profile": {"beta": 1e4, "lam": 1e308, "time": 1e300, "vocab-size": 10**23, "n-sources": BIG},
    "estimate": {
        "beta": 1e4, "lam": -1e308, "time": 1e300, "vocab-size": HUGE, "n-tokens": BIG, "n-prompts": BIG,
    },
    "limit": {
        "beta": 1e4, "lam": 1e308, "times": "0 1e300", "n-sigma": BIG, "n-theta": BIG, "n-modes": BIG,
        "observable-mode": BIG,
    },
    "sensitivity": {
        "beta": 1e4, "lam": 1e308, "time": 1e300, "vocab-size": 1e23, "n-positions": BIG, "n-questions": 1e300,
    },
    "phase": {"beta": 1e4, "lam": 1e308, "vocab-size": 1e23, "beta-range": "0.1 1e4", "lam-range": "1 1e308"},
    "design": {
        "beta": 1e4, "lam": 1e308, "time": 1e300, "vocab-size": BIG, "knots": BIG, "terms": BIG,
        "check-tokens": BIG, "check-prompts": BIG,
    },
    "simulate": {"beta": 1e4, "lam": 1e308, "n-tokens": BIG, "times": "0 1e300"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [(command, option, str(value)) for command, row in TABLE.items() for option, value in row.items()],
)
def test_commands_refuse_numbers_without_sense_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    command: str,
    option: str,
    value: str,
) -> None:
    # Nothing may be computed, not even JAX be configured.
    monkeypatch.setattr("jaxkinetic.cli.command.configure", lambda: pytest.fail("went on"))
    start = time.perf_counter()
    error = refusal(monkeypatch, capsys, tmp_path, command, f"--{option}", *value.split())
    assert f"Argument `{option.replace('-', '_')}` must be at " in error
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("text", "name"),
    [("beta = 1e4", "beta"), ("lam = -1e308", "lam"), ("times = [0, 1e300]", "times")],
)
def test_files_with_numbers_without_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, text: str, name: str
) -> None:
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "empty").mkdir()
    arguments = ["limit", "--config", str(tmp_path / "a.toml")]
    assert f"Argument `{name}` must be at " in refusal(monkeypatch, capsys, tmp_path / "empty", *arguments)


def model(beta: Any = 1.0, lam: Any = 1.0) -> jk.CausalAttention:
    return jk.CausalAttention(jk.ExpCosine(beta), jk.ALiBi(lam))


def curves(tmp_path: Path) -> list[jk.RetrievalCurve]:
    (tmp_path / "a.csv").write_text(CURVE)
    return jk.read_curves(tmp_path / "a.csv")


ANGLES, KEY = jnp.array([0.0, 1.0, 2.0]), jax.random.key(0)
FUNCTIONS = {
    "beta": lambda _: jk.ExpCosine(1e4),
    "lam": lambda _: jk.ALiBi(-1e308),
    "n_tokens": lambda _: jk.UniformPrompts().sample(KEY, BIG),
    "n_tokens of weights": lambda _: jk.ALiBi(1.0).weights(BIG),
    "times": lambda _: jk.simulate(model(), ANGLES, [1e300]),
    "times of a limit": lambda _: jk.solve_mean_field(model(), jk.UniformPrompts(), [0.0, 1e300]),
    "time": lambda _: jk.retrieval_profile(model(), 1e300, 8, [0.5]),
    "time of a shape": lambda _: jk.u_shape(model(), 1e300, 8),
    "vocab_size": lambda _: jk.u_shape(model(), 1.0, 10**23),
    "vocab_size of a decoder": lambda _: jk.decode(ANGLES, 10**23),
    "n_prompts": lambda _: jk.estimate_profile(model(), 1.0, 8, 16, n_prompts=BIG, key=KEY),
    "n_tokens of an estimate": lambda _: jk.estimate_profile(model(), 1.0, 8, BIG, n_prompts=32, key=KEY),
    "time of a fit": lambda path: jk.fit_curves(curves(path), theory=jk.theories.paper(1e300)),
    "lam_range": lambda _: jk.theories.paper(lam_range=(-1e308, 1.0)),
    "beta_range": lambda _: jk.theories.paper(beta_range=(0.1, 1e4)),
    "time of a posterior": lambda path: jk.curve_posterior(curves(path), theory=jk.theories.paper(1e300)),
    "vocab_size of a posterior": lambda path: jk.curve_posterior(
        curves(path), theory=jk.theories.paper(1.0, 10**23)
    ),
    "n_tokens of a fit": lambda path: jk.fit_by_simulation(curves(path), BIG, KEY),
    "time of a diagram": lambda _: jk.phase_diagram(1.0, 1.0, [1.0, 1e300], 8),
    "vocab_size of a diagram": lambda _: jk.phase_diagram(1.0, 1.0, 1.0, 1e23),
    "n_questions": lambda _: jk.plan_experiment([0.2, 0.5, 0.8], 1e300, [1.0, 1.0], c0=0.4, c1=0.1),
    "time of a design": lambda _: jk.design_weights(jk.ExpCosine(1.0), 1e300, 8, mean_distance=0.4),
}


@pytest.mark.parametrize(("name", "call"), FUNCTIONS.items(), ids=FUNCTIONS.keys())
def test_functions_refuse_the_same(tmp_path: Path, name: str, call: Any) -> None:
    with pytest.raises(ValueError, match=f"Argument `{name.partition(' ')[0]}` must be at (most|least) [-0-9]"):
        call(tmp_path)


def test_bounds_themselves_and_what_is_no_number_pass() -> None:
    check_sensible(**{name: bound for name, (bound, _) in LARGEST.items()})
    check_sensible(
        lam=-LARGEST["lam"][0], beta=None, time="soon", n_tokens=[], other=1e300, vocab_size=float("nan")
    )
    assert jax.jit(lambda lam: jk.ALiBi(lam).lam)(2.0) == 2
