"""Ensembles give the same numbers however they are cut, shared out, continued or merged."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic.particles import ensemble
from jaxkinetic.particles.ensemble import BLOCK, Moments, batch_size, run_ensemble

KEY = jax.random.key(11)
PROGRAM = Path(__file__).parent / "ensemble_program.py"
ROOT = Path(__file__).parents[2]


def cosines(frequencies, key):
    return jnp.cos(frequencies * jax.random.normal(key, frequencies.shape))


FREQUENCIES = jnp.arange(1.0, 6.0)


def values(n_prompts):
    prompts = [cosines(FREQUENCIES, jax.random.fold_in(KEY, p)) for p in range(n_prompts)]
    return np.stack(prompts)


def test_moments_are_those_of_the_prompts_one_by_one():
    n = 2 * BLOCK + 5
    exact = values(n)
    found = run_ensemble(cosines, FREQUENCIES, KEY, n, joint=True)
    assert found.count == n
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.standard_error, exact.std(axis=0, ddof=1) / np.sqrt(n), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(exact.T) / n, rtol=1e-11, atol=1e-16)


def test_an_extended_ensemble_is_the_longer_one():
    whole = run_ensemble(cosines, FREQUENCIES, KEY, 6 * BLOCK)
    parts = [
        run_ensemble(cosines, FREQUENCIES, KEY, 2 * BLOCK),
        run_ensemble(cosines, FREQUENCIES, KEY, 4 * BLOCK, first=2 * BLOCK),
    ]
    merged = parts[0].merge(parts[1])
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-13)


def test_memory_budget_sets_batches_and_changes_nothing():
    assert [batch_size(1e6, m) for m in (1.0, 1e6, 5e6, 1e12)] == [1, 1, 4, BLOCK]
    little = run_ensemble(cosines, FREQUENCIES, KEY, 70, bytes_per_prompt=1e6, memory=1e6)
    much = run_ensemble(cosines, FREQUENCIES, KEY, 70)
    np.testing.assert_allclose(little.mean, much.mean, rtol=1e-12)
    np.testing.assert_allclose(little.m2, much.m2, rtol=1e-12)


@pytest.mark.parametrize("n_prompts", [70, 10 * BLOCK])
def test_batches_of_several_blocks_change_nothing(monkeypatch, n_prompts):
    """As on an accelerator with room for them: 1, 4 and more blocks at once, the last batch half empty."""
    plain = run_ensemble(cosines, FREQUENCIES, KEY, n_prompts, joint=True)
    monkeypatch.setattr(ensemble, "largest_batch", lambda devices: 8192)  # noqa: ARG005
    batches = []
    run_blocks = ensemble.run_blocks

    def watched(*arguments):
        batches.append(arguments[-1])
        return run_blocks(*arguments)

    monkeypatch.setattr(ensemble, "run_blocks", watched)
    for memory in (1.0, 4.0 * BLOCK, 1e9):
        many = run_ensemble(cosines, FREQUENCIES, KEY, n_prompts, joint=True, bytes_per_prompt=1.0, memory=memory)
        assert many.count == n_prompts
        np.testing.assert_allclose(many.mean, plain.mean, rtol=1e-13)
        np.testing.assert_allclose(many.m2, plain.m2, rtol=0, atol=1e-12 * plain.m2.max())
    assert batches[0] == 1
    assert max(batches) == 2 ** int(np.log2(-(-n_prompts // BLOCK) * BLOCK))


@pytest.mark.parametrize("first", [2**16 - BLOCK, 2**16, 2**31, 2**32 - 2 * BLOCK])
def test_prompts_keep_their_keys_however_far_they_are(first):
    found = run_ensemble(cosines, FREQUENCIES, KEY, BLOCK + 3, first=first)
    keys = [jax.random.fold_in(KEY, jnp.asarray(p, jnp.uint32)) for p in range(first, first + BLOCK + 3)]
    exact = np.stack([cosines(FREQUENCIES, key) for key in keys])
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)


def test_prompts_beyond_the_indices_of_keys_are_refused():
    """Keys are folded with 32 bits: prompt 2^32 would be prompt 0 again."""
    with pytest.raises(ValueError, match=r"must end at prompt 2\^32 at most, but end at 4294967297"):
        run_ensemble(cosines, FREQUENCIES, KEY, BLOCK + 1, first=2**32 - BLOCK)


def test_more_blocks_than_a_round_are_counted_once():
    """Of 70 blocks rounds take 32, 32 and 6."""
    n = 70 * BLOCK - 5
    found = run_ensemble(cosines, FREQUENCIES, KEY, n)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(n))
    exact = np.asarray(jax.vmap(lambda key: cosines(FREQUENCIES, key))(keys))
    assert found.count == n
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.m2, n * exact.var(axis=0), rtol=1e-11)


@pytest.mark.parametrize("n_prompts", [BLOCK, 3 * BLOCK, 67 * BLOCK + 1])
def test_processes_return_the_same_moments_also_without_a_block_of_their_own(monkeypatch, n_prompts):
    """Two processes as two threads: one block leaves the second without, three leave it one less."""
    alone = run_ensemble(cosines, FREQUENCIES, KEY, n_prompts, joint=True)
    place, shared, meet = threading.local(), [np.empty(0)] * 2, threading.Barrier(2, timeout=20)

    def gathered(mine):
        shared[place.index] = mine
        meet.wait()
        both = np.stack(shared)
        meet.wait()
        return both

    def one(index):
        place.index = index
        return run_ensemble(cosines, FREQUENCIES, KEY, n_prompts, joint=True)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: place.index)
    monkeypatch.setattr(ensemble.multihost_utils, "process_allgather", gathered)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(one, (0, 1)):
            assert found.count == n_prompts
            np.testing.assert_array_equal(found.mean, alone.mean)
            np.testing.assert_array_equal(found.m2, alone.m2)


def test_only_processors_alone_move_few_prompts_at_once():
    kinds = {"cpu": SimpleNamespace(platform="cpu"), "gpu": SimpleNamespace(platform="gpu")}
    most = [ensemble.largest_batch([kinds[name] for name in names]) for names in (["cpu"] * 2, ["gpu"], kinds)]
    assert most[0] == BLOCK
    assert most[1] == most[2] > 100 * BLOCK


@pytest.mark.parametrize("memory", [float("nan"), -1.0, 0.0, float("inf")])
def test_a_memory_budget_that_is_none_is_refused(memory):
    with pytest.raises(ValueError, match="`memory` must be positive and finite"):
        run_ensemble(cosines, FREQUENCIES, KEY, 32, memory=memory)


def test_one_prompt_has_no_error_bar_and_no_joint_covariance_unless_asked():
    one = Moments.of(values(1))
    assert np.all(np.isinf(one.standard_error))
    with pytest.raises(ValueError, match="joint=True"):
        _ = one.covariance
    assert np.all(np.isinf(Moments.of(values(1), joint=True).covariance))


def test_merging_with_nothing_changes_nothing():
    some, nothing = Moments.of(values(3)), Moments(0, np.zeros(5), np.zeros(5))
    for merged in (some.merge(nothing), nothing.merge(some)):
        np.testing.assert_array_equal(merged.mean, some.mean)
        assert merged.count == 3


def test_continued_moments_have_the_bits_of_one_run():
    whole = run_ensemble(cosines, FREQUENCIES, KEY, 5 * BLOCK)
    part = run_ensemble(cosines, FREQUENCIES, KEY, 3 * BLOCK)
    both = run_ensemble(cosines, FREQUENCIES, KEY, 2 * BLOCK, first=3 * BLOCK, onto=part)
    assert both.count == whole.count
    np.testing.assert_array_equal(both.mean, whole.mean)
    np.testing.assert_array_equal(both.m2, whole.m2)


@pytest.mark.parametrize("first", [2**16, 2**31, 2**32 - BLOCK])
def test_prompts_are_numbered_in_32_bits(first):
    """A number that is cut to 16 bits, or read with a sign, is that of an earlier prompt."""
    keys = [jax.random.fold_in(KEY, np.uint32(first + p)) for p in range(BLOCK)]
    exact = np.stack([cosines(FREQUENCIES, key) for key in keys])
    found = run_ensemble(cosines, FREQUENCIES, KEY, BLOCK, first=first)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.m2, BLOCK * exact.var(axis=0), rtol=1e-12)


@pytest.mark.parametrize("joint", [False, True])
def test_moments_that_overflow_are_never_finite(joint):
    """The squares of 1e200 have no place in double precision; what callers refuse must not be a number."""
    huge = Moments.of(np.array([[1e200, 1.0], [-1e200, 2.0]]), joint)
    assert not np.isfinite(huge.m2.flat[0])
    assert huge.mean.tolist() == [0.0, 1.5]
    assert huge.m2.flat[-1] == 0.5
    assert not np.isfinite(huge.standard_error[0])
    # Each block is finite, but not the distance of their means.
    apart = [Moments.of(np.full((2, 2), value), joint) for value in (1e200, -1e200)]
    assert np.all(np.isfinite(apart[0].m2))
    assert not np.any(np.isfinite(apart[0].merge(apart[1]).m2))


class Processes:
    """Threads that each take themselves for one of several processes, and exchange arrays as these do."""

    def __init__(self, count: int):
        self.count = count
        self._barrier, self._sent, self._here = threading.Barrier(count, timeout=60), {}, threading.local()

    def index(self) -> int:
        return self._here.index

    def allgather(self, array: np.ndarray) -> np.ndarray:
        self._sent[self.index()] = array
        self._barrier.wait()
        gathered = np.stack([self._sent[i] for i in range(self.count)])
        self._barrier.wait()
        return gathered

    def run(self, action: Callable[[], Moments]) -> list[Moments]:
        def one(index: int) -> Moments:
            self._here.index = index
            return action()

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(one, range(self.count)))


@pytest.mark.parametrize("n_prompts", [BLOCK - 1, 3 * BLOCK + 5, 7 * BLOCK])
@pytest.mark.parametrize("joint", [False, True])
def test_processes_with_more_blocks_fewer_and_none_have_the_bits_of_one(monkeypatch, n_prompts, joint):
    """Three processes; in rounds of two blocks each, so that the last round has one, two or three blocks in all."""
    alone = run_ensemble(cosines, FREQUENCIES, KEY, n_prompts, joint=joint)
    processes = Processes(3)
    monkeypatch.setattr(ensemble, "_ROUND", 2)
    monkeypatch.setattr(ensemble, "_DEVICES", 1)
    monkeypatch.setattr(jax, "process_count", lambda: processes.count)
    monkeypatch.setattr(jax, "process_index", processes.index)
    monkeypatch.setattr(ensemble.multihost_utils, "process_allgather", processes.allgather)
    for found in processes.run(lambda: run_ensemble(cosines, FREQUENCIES, KEY, n_prompts, joint=joint)):
        assert found.count == alone.count == n_prompts
        np.testing.assert_array_equal(found.mean, alone.mean)
        np.testing.assert_array_equal(found.m2, alone.m2)


def profile_of(n_devices: int, *process: str) -> subprocess.Popen:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *process], env=environment, stdout=subprocess.PIPE, text=True
    )


def result(process: subprocess.Popen) -> dict:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(printed.splitlines()[-1])


@pytest.mark.slow
def test_same_bits_for_any_number_of_devices_and_for_two_processes():
    """The profile of 200 prompts, and its errors, on 1, 2 and 4 virtual devices and in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    alone = result(profile_of(1))
    assert alone["devices"] == 1
    for n_devices in (2, 4):
        shared = result(profile_of(n_devices))
        assert shared["devices"] == n_devices
        assert shared["numbers"] == alone["numbers"]
    both = [profile_of(1, address, "2", str(i)) for i in (0, 1)]
    for found in map(result, both):
        assert found["processes"] == 2
        assert found["numbers"] == alone["numbers"]


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["cosines", "adjoint", "glauber"])
def test_peak_memory_is_flat_from_a_thousand_to_two_hundred_thousand_prompts(statistic):
    """Kept for every prompt 15 sources would take 24 MB, their covariance of every block 12 MB; cosines far more.

    Buffers that come and go take up to 8 MB, whatever the number of prompts. One heap for all threads: glibc's
    several ones grow by tens of MB as threads come upon them.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.particles.memory_program", statistic],
        stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    peak = json.loads(done.stdout)
    assert peak["after"] - peak["before"] < 9 * 2**20
