"""What a dry run says is what a run then takes."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.integrate import march
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval import estimators
from jaxkinetic.sweep.cost import expected_prompts, relative_cost
from jaxkinetic.sweep.progress import Meter
from tests.sweep.sweeps import TINY

ROOT = Path(__file__).parents[2]


def test_planned_work_is_what_a_run_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every velocity of a token that the solver asks for is counted in the run itself."""
    counted = []

    def watched(field, *rest):
        def counting(theta, model):
            jax.debug.callback(lambda angles: counted.append(angles.size), theta)
            return field(theta, model)

        return march(counting, *rest)

    jk.run_sweep(TINY, tmp_path / "s")
    monkeypatch.setattr(estimators, "march", watched)
    jax.clear_caches()
    plan = jk.plan_extension(tmp_path / "s", n_prompts=160)
    jax.effects_barrier()
    counted.clear()
    jk.extend_sweep(tmp_path / "s", n_prompts=160)
    jax.effects_barrier()
    assert sum(counted) == plan.evaluations
    jax.clear_caches()


def test_prompts_to_a_target_follow_from_the_variance_so_far(tmp_path: Path):
    store = tmp_path / "s"
    jk.run_sweep(TINY.replace(n_tokens=[8, 16], time=1.0, n_prompts=512, chunk=512), store)
    plan = jk.plan_extension(store, standard_error=0.15, max_prompts=2**15)
    jk.extend_sweep(store, standard_error=0.15, max_prompts=2**15, chunk=32)
    counts = jk.open_sweep(store)["count"].values.ravel()
    assert counts[1] > 2 * counts[0]
    assert abs(plan.n_prompts / (counts.sum() - 2 * 512) - 1) < 0.3
    assert plan.n_prompts < plan.most_prompts == 2 * (2**15 - 512)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak when told")
@pytest.mark.parametrize(("estimator", "n_tokens"), [("naive", 8192), ("adjoint", 2048)])
def test_planned_memory_is_what_a_run_takes(estimator: str, n_tokens: int):
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.memory_program", estimator, str(n_tokens)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["plan"] == 32 * found["one"] > 5e7
    assert 0.5 < (found["plan"] - found["one"]) / found["grown"] < 2


def test_extensions_are_planned_without_touching_the_store(tmp_path: Path):
    store = tmp_path / "s"
    with pytest.raises(ValueError, match="there is none at"):
        jk.plan_extension(store, n_prompts=128)
    jk.run_sweep(TINY, store)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    plan = jk.plan_extension(store, n_prompts=160)
    assert (plan.n_left, plan.n_prompts, plan.evaluations) == (2, 128, 2 * 64 * 8 * 24)
    assert jk.plan_extension(store).n_left == 0
    with pytest.raises(ValueError, match="`n_prompts` must be at least 96, as the store has it, but is 64"):
        jk.plan_extension(store, n_prompts=64)
    with pytest.raises(ValueError, match="`memory` must be positive and finite"):
        jk.plan_extension(store, memory=-1.0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_bar_moves_by_cost_and_guesses_from_what_has_run():
    """Re-drawing is three times as dear, and twice the depth as well; a bar by prompts would be at a quarter."""
    config = TINY.replace(time=[1.0, 2.0], estimator=["naive", "glauber"], n_prompts=64)
    cheap = relative_cost(config, next(config.points()))
    meter = Meter(config, [None] * 4, False)
    assert (meter.done, meter.total) == (0, 64 * (1 + 3 + 2 + 6) * cheap)
    for count in (32, 64):
        meter.update(0, Moments(count, np.zeros(2), np.ones(2)))
        assert meter.done == count * cheap
    assert meter.done == meter.total / 12
    # Towards a target, the first point's variance tells what the others will take.
    target = config.replace(standard_error=0.01, max_prompts=2**16)
    wide = Moments(64, np.zeros(2), np.full(2, 63.0 * 4))
    meter = Meter(target, [wide, None, None, None], False)
    expected = expected_prompts(target, wide)
    assert meter.total == expected * 12 * cheap
    assert 3e4 < expected < 2**16
