"""Stores: one writer, one configuration, and no finished chunk is lost."""

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import icechunk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import jaxkinetic as jk
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval.estimators import ESTIMATORS, Naive
from jaxkinetic.sweep import creation, manifest, writer_lock
from jaxkinetic.sweep.location import Location, StoreError, one_line_errors, open_storage, parse_location
from jaxkinetic.sweep.manifest import sessions
from jaxkinetic.sweep.results import PointState
from jaxkinetic.sweep.run import _Writer
from jaxkinetic.sweep.store import open_writer
from jaxkinetic.sweep.writer_lock import lock_path, only_writer
from tests.sweep.sweeps import TINY

POINT = next(TINY.points())
STATE = PointState(Moments(32, np.array([1.0, 2.0]), np.array([3.0, 4.0])), 4, 1e-5)


def hold(store: str, ready) -> None:
    with only_writer(parse_location(store)):
        ready.set()
        signal.pause()


def contents(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def test_second_writer_is_refused_until_the_first_is_gone_even_if_killed(tmp_path: Path):
    store = tmp_path / "s"
    jk.run_sweep(TINY, store)
    before = contents(store)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    first = context.Process(target=hold, args=(str(store), ready))
    first.start()
    assert ready.wait(60)
    for attempt in (lambda: jk.run_sweep(TINY, store), lambda: jk.extend_sweep(store, n_prompts=128)):
        with pytest.raises(StoreError, match=rf"is being written by another process \({first.pid}\)"):
            attempt()
    assert contents(store) == before
    assert jk.open_sweep(store)["count"].sum() == 192
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert lock_path(store).exists()
    jk.extend_sweep(store, n_prompts=128)
    assert jk.open_sweep(store)["count"].sum() == 256
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_commits_of_another_writer_are_seen_where_there_are_no_locks(tmp_path: Path, monkeypatch):
    """As in an object store, whose only defence is the commit."""
    store = tmp_path / "s"
    unlocked = monkeypatch.context
    with unlocked() as patch:
        patch.setattr(writer_lock, "_lock", lambda *_: os.open(os.devnull, os.O_WRONLY))
        with open_writer(store, TINY) as first, open_writer(store, TINY) as second:
            first.write(POINT, STATE)
            with pytest.raises(StoreError, match="has been written by another process since this one opened it"):
                second.write(POINT, STATE)
            first.write(POINT, PointState(STATE.moments.merge(STATE.moments), 4, 1e-5))
    assert int(jk.open_sweep(store)["count"].max()) == 64


def history(store: Path) -> list[str]:
    """Messages of all commits, the first one first."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store)))
    return [info.message for info in repository.ancestry(branch="main")][::-1]


def test_one_commit_a_chunk_and_none_without_one(tmp_path: Path):
    store = tmp_path / "s"
    jk.run_sweep(TINY.replace(n_prompts=64), store)
    points = [str(point) for point in TINY.points()]
    made = ["Repository initialized", "new sweep", *(f"{n} prompts at {p}" for p in points for n in (32, 64))]
    assert history(store) == made
    jk.run_sweep(TINY.replace(n_prompts=64), store)
    assert history(store) == made
    jk.extend_sweep(store, n_prompts=128, chunk=96)
    longer = [*made, "new goals", *(f"{n} prompts at {p}" for p in points for n in (96, 128))]
    assert history(store) == longer
    before = contents(store)
    jk.extend_sweep(store, n_prompts=128)
    jk.extend_sweep(store)
    assert contents(store) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there, but 1 here. Nothing was changed"),
        ({"beta": 2.0}, r"beta is \[1.0\] there, but \[2.0\] here"),
        ({"beta": 2.0, "lam": 3.0}, "and 1 more differ"),
        ({"n_tokens": [8, 9]}, r"n_tokens is \[8\] there, but \[8, 9\] here"),
        ({"sources": [0.3, 0.6]}, "sources is"),
        ({"law": "smooth"}, "law is"),
        ({"n_steps": 8}, "n_steps is None there, but 8 here"),
        (
            {"n_prompts": 128},
            "n_prompts is 96 there, but 128 here. Nothing was changed. To change goals use `extend`",
        ),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, change: dict, message: str):
    with open_writer(tmp_path / "s", TINY) as store:
        store.write(POINT, STATE)
    before = contents(tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        jk.run_sweep(TINY.replace(**change), tmp_path / "s")
    with pytest.raises(ValueError, match="holds another configuration"):
        jk.plan_sweep(TINY.replace(**change), tmp_path / "s")
    assert contents(tmp_path / "s") == before


def test_fewer_prompts_are_refused(tmp_path: Path):
    with open_writer(tmp_path / "s", TINY):
        pass
    before = contents(tmp_path / "s")
    with pytest.raises(ValueError, match="`n_prompts` must be at least 96, as the store has it, but is 64"):
        jk.extend_sweep(tmp_path / "s", n_prompts=64)
    assert contents(tmp_path / "s") == before


def test_no_devices_and_no_store(tmp_path: Path):
    with pytest.raises(ValueError, match="`devices` must hold at least one device"):
        jk.run_sweep(TINY, tmp_path / "s", devices=[])
    for attempt in (jk.open_sweep, jk.extend_sweep):
        with pytest.raises(ValueError, match="there is none at"):
            attempt(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_loses_no_finished_chunk(tmp_path: Path, monkeypatch):
    """Files may no longer grow after the second of three chunks; the same call goes on once they may."""
    store, exact = tmp_path / "s", tmp_path / "exact"
    jk.run_sweep(TINY, exact)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writes, write = [], _Writer.write

    def full_after_two(self: _Writer, *given) -> None:
        if len(writes) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        write(self, *given)
        writes.append(given)

    with monkeypatch.context() as patch:
        patch.setattr(_Writer, "write", full_after_two)
        try:
            with pytest.raises(
                StoreError, match=r"cannot be written: .*[Ff]ile too large.* finished chunks are safe"
            ):
                jk.run_sweep(TINY, store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert jk.open_sweep(store)["count"].values.ravel().tolist() == [64, 0]
    jk.run_sweep(TINY, store)
    np.testing.assert_array_equal(jk.open_sweep(store)["values"], jk.open_sweep(exact)["values"])


def mount(folder: Path, size: int) -> None:
    """A disk of so many bytes, in memory."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no disk to fill: {done.stderr.strip()}; test_full_disk_loses_no_finished_chunk limits files")


@pytest.fixture
def small_disk(tmp_path: Path):
    if shutil.which("mount") is None:
        pytest.skip("no `mount` here; test_full_disk_loses_no_finished_chunk limits files instead")
    folder = tmp_path / "disk"
    mount(folder, 2**20)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    path = disk / "full"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_a_disk_that_is_full_loses_no_finished_chunk_and_goes_on_with_room(small_disk: Path, tmp_path: Path):
    """A real one: while a store is made, and from chunk to chunk."""
    store, exact = small_disk / "s", tmp_path / "exact"
    full = fill(small_disk)
    with pytest.raises(StoreError, match=r"The store .* cannot be (made|opened): .*[Nn]o space left"):
        jk.run_sweep(TINY, store)
    assert [p.name for p in small_disk.iterdir()] == ["full"]
    full.unlink()
    writes, write = [], _Writer.write

    def full_after_two(self: _Writer, *given) -> None:
        if len(writes) == 2:
            fill(small_disk)
        write(self, *given)
        writes.append(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Writer, "write", full_after_two)
        with pytest.raises(StoreError, match=r"cannot be written: .*[Nn]o space left.* finished chunks are safe"):
            jk.run_sweep(TINY, store)
    assert jk.open_sweep(store)["count"].values.ravel().tolist() == [64, 0]
    full.unlink()
    jk.run_sweep(TINY, store)
    jk.run_sweep(TINY, exact)
    np.testing.assert_array_equal(jk.open_sweep(store)["values"], jk.open_sweep(exact)["values"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_values_that_are_not_finite_never_enter_the_store(tmp_path: Path, monkeypatch, value: float):
    """The second point blows up at a late chunk; the error names it, and chunks before it stay.

    The square of 1e200 overflows, and with it the standard error.
    """

    class Sick(Naive):
        def __call__(self, problem, key):
            late = (problem.time > 0.7) & (jax.random.uniform(key) > 0.995)
            return jnp.where(late, value, super().__call__(problem, key))

    monkeypatch.setitem(ESTIMATORS, "naive", Sick())
    with pytest.raises(
        ValueError,
        match=r"The point beta = 1\.0, lam = 1\.0, time = 1\.0, n_tokens = 8, .* are not finite.* are safe",
    ):
        jk.run_sweep(TINY.replace(n_steps=4, n_prompts=640), tmp_path / "s")
    found = jk.open_sweep(tmp_path / "s")
    counts = found["count"].values.ravel()
    assert counts[0] == 640
    assert counts[1] < 640
    assert np.all(np.isfinite(found["mean"].values[found["count"].values > 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"law": {"waves": [{"n": 1, "cos": [1.0]}]}, "estimator": ["naive", "adjoint"]},
            "`estimator` must not be .adjoint. for a density that falls to 0",
        ),
        ({"time": [0.5, 5000.0]}, r"The point .* time = 5000\.0, .* cannot be computed: 128 constant steps do not"),
        ({"n_tokens": [8, 2 * 10**9]}, r"The point .* n_tokens = 2000000000, .* one prompt takes .* GiB of memory"),
        ({"memory": float("nan")}, "`memory` must be positive and finite"),
        ({"memory": -1.0}, "`memory` must be positive and finite"),
    ],
)
def test_points_that_cannot_be_computed_are_found_before_a_store_is_made(
    tmp_path: Path, change: dict, message: str
):
    change = dict(change)
    options = {"memory": change.pop("memory")} if "memory" in change else {}
    with pytest.raises(ValueError, match=message):
        jk.run_sweep(TINY.replace(**change), tmp_path / "s", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_names_model_versions_and_device_and_every_run_is_recorded(tmp_path: Path, monkeypatch):
    store = tmp_path / "s"
    with open_writer(store, TINY) as writer:
        writer.write(POINT, STATE)
    first = jk.open_sweep(store).attrs
    assert json.loads(first["model"]) == {
        "kernel": {"name": "ExpCosine", "parameters": {"beta": [1.0]}},
        "positions": {"name": "ALiBi", "parameters": {"lam": [1.0]}},
    }
    assert json.loads(first["laws"]) == {"uniform": {}}
    versions = json.loads(first["versions"])
    for name in ("jaxkinetic", "jax", "jaxlib", "diffrax", "equinox", "numpy", "icechunk", "zarr"):
        assert versions[name] == importlib.metadata.version(name)
    assert first["platform"] == platform.platform()
    assert [run["event"] for run in sessions(first)] == ["made"]

    # Looking, and opening without a commit, leave no record.
    with open_writer(store, TINY):
        pass
    assert jk.open_sweep(store).attrs == first
    now = manifest.session

    def other(event: str) -> dict:
        later = now(event)
        return later | {"versions": later["versions"] | {"jax": "9.9.9"}, "device_kind": "TPU v9"}

    monkeypatch.setattr(manifest, "session", other)
    with pytest.warns(
        UserWarning, match=rf"jax {versions['jax']} before, 9\.9\.9 now; device cpu before, TPU v9 now"
    ):
        jk.extend_sweep(store, n_prompts=128)
    runs = sessions(jk.open_sweep(store).attrs)
    assert [run["event"] for run in runs] == ["made", "extended"]
    assert (runs[1]["versions"]["jax"], runs[1]["device_kind"]) == ("9.9.9", "TPU v9")
    assert json.loads(jk.open_sweep(store).attrs["versions"]) == versions


@pytest.mark.parametrize("damage", ["reference", "snapshots"])
def test_unreadable_store_is_left_as_it_is(tmp_path: Path, damage: str):
    store = tmp_path / "s"
    with open_writer(store, TINY) as writer:
        writer.write(POINT, STATE)
    whole = contents(store)
    if damage == "reference":
        (store / "refs" / "branch.main" / "ref.json").write_text("{")
    else:
        for file in (store / "snapshots").iterdir():
            file.write_bytes(file.read_bytes()[:7])
    broken = contents(store)
    for attempt in (
        lambda: jk.run_sweep(TINY, store),
        lambda: jk.extend_sweep(store, n_prompts=128),
        lambda: jk.open_sweep(store),
    ):
        with pytest.raises(StoreError, match=r"cannot be (read|opened)") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert contents(store) == broken
    for name, data in whole.items():
        (store / name).write_bytes(data)
    assert int(jk.open_sweep(store)["count"].sum()) == 32


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_else_is_never_overwritten(tmp_path: Path, kind: str):
    other = tmp_path / "other"
    if kind == "folder":
        other.mkdir()
        (other / "thesis.tex").write_text("\\begin{document}")
    else:
        other.write_text("thesis")
    before = other.read_text() if kind == "file" else contents(other)
    for attempt in (lambda: jk.run_sweep(TINY, other), lambda: jk.open_sweep(other)):
        with pytest.raises(ValueError, match="is something else"):
            attempt()
    assert (other.read_text() if kind == "file" else contents(other)) == before


def half_made(store: Path) -> Path:
    """What a run leaves that is killed while it makes a store, and before it has named it."""
    with open_writer(store, TINY):
        pass
    left = store.parent / f".{store.name}.abc{creation._SUFFIX}"
    left.mkdir()
    (left / creation._MARKER).touch()
    shutil.move(store, left / "store")
    (left / "store" / "refs" / "branch.main" / "ref.json").unlink()
    return left


def test_half_made_store_is_made_again(tmp_path: Path):
    half_made(tmp_path / "s")
    jk.run_sweep(TINY, tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_nothing_of_others_beside_a_store_is_touched(tmp_path: Path):
    """Names that a careless program would take for temporary ones, and ours with contents that are not ours."""
    left = half_made(tmp_path / "s")
    (left / "thesis.tex").write_text("\\begin{document}")
    other = tmp_path / f".s.xyz{creation._SUFFIX}"
    (other / "store").mkdir(parents=True)
    (other / "store" / "thesis.tex").write_text("\\begin{document}")
    for name in ("s.new", "s.tmp", f".s2.abc{creation._SUFFIX}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / creation._MARKER).write_text("mine")
    for name in ("s.lock", "s.new.lock", ".s.lock"):
        (tmp_path / name).write_text("# This file is autogenerated.\n")
    before = contents(tmp_path)
    jk.run_sweep(TINY, tmp_path / "s")
    jk.extend_sweep(tmp_path / "s", n_prompts=128)
    after = {name: data for name, data in contents(tmp_path).items() if not name.startswith("s/")}
    ours = {name for name in before if name.startswith(f"{left.name}/store/")} | {f"{left.name}/{creation._MARKER}"}
    assert after == {name: data for name, data in before.items() if name not in ours}


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_file_with_the_locks_name_is_refused_and_kept(tmp_path: Path, kind: str):
    path, target = lock_path(tmp_path / "s"), tmp_path / "target"
    target.write_text("mine")
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(StoreError, match=r"is no lock of a sweep\. It was left as it is"):
        jk.run_sweep(TINY, tmp_path / "s")
    assert path.is_dir() if kind == "folder" else path.read_text() == "mine"
    assert path.is_symlink() == (kind == "link")
    assert not (tmp_path / "s").exists()


def test_a_link_and_its_target_share_one_lock(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        open_writer(tmp_path / "link", TINY),
        pytest.raises(StoreError, match="is being written by another process"),
        open_writer(tmp_path / "real", TINY),
    ):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]
    assert (tmp_path / "link").is_symlink()
    assert jk.open_sweep(tmp_path / "real").attrs["seed"] == 0


def test_an_empty_repository_becomes_the_store(tmp_path: Path):
    """What a kill leaves in an object store between its creation and its first commit."""
    store = tmp_path / "s"
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(store)))
    before = contents(store)
    for attempt in (jk.open_sweep, jk.extend_sweep):
        with pytest.raises(ValueError, match="there is none at"):
            attempt(store)
    assert jk.plan_sweep(TINY, store).n_left == 2
    assert contents(store) == before
    jk.run_sweep(TINY, store)
    jk.run_sweep(TINY, tmp_path / "exact")
    np.testing.assert_array_equal(jk.open_sweep(store)["values"], jk.open_sweep(tmp_path / "exact")["values"])
    assert [s["event"] for s in sessions(jk.open_sweep(store).attrs)] == ["made"]


def test_a_repository_of_something_else_is_left_alone(tmp_path: Path):
    store = tmp_path / "s"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(store)))
    session = repository.writable_session("main")
    zarr.group(session.store).attrs["mine"] = 1
    session.commit("mine")
    before = contents(store)
    with pytest.raises(StoreError, match="it is no sweep of this version"):
        jk.run_sweep(TINY, store)
    assert contents(store) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_only_a_store_that_is_there_has_finished_chunks(tmp_path: Path, is_there: bool):
    location = parse_location(tmp_path if is_there else tmp_path / "none")
    with (
        pytest.raises(StoreError, match="cannot be opened: no disk") as failure,
        one_line_errors(location, "opened"),
    ):
        raise OSError("no disk")
    assert ("finished chunks are safe" in str(failure.value)) is is_there


def test_other_precision_is_refused(tmp_path: Path, monkeypatch):
    for module in ("manifest", "store"):
        monkeypatch.setattr(f"jaxkinetic.sweep.{module}.x64", lambda: "false")
    with open_writer(tmp_path / "s", TINY):
        pass
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"jax_enable_x64 = false, but it is true: go on from Python, .*\"jax_enable_x64\", False"
    ):
        jk.run_sweep(TINY, tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/a", Location("file", "", "runs/a")),
        ("/abs/a", Location("file", "", "/abs/a")),
        ("s3://bucket/some/prefix", Location("s3", "bucket", "some/prefix")),
        ("s3://bucket/prefix/", Location("s3", "bucket", "prefix")),
        ("gs://bucket/prefix", Location("gs", "bucket", "prefix")),
        ("file:///abs/my%20runs/a/", Location("file", "", "/abs/my runs/a")),
        ("file://localhost/abs", Location("file", "", "/abs")),
    ],
)
def test_locations(text: str, expected: Location):
    assert parse_location(text) == expected
    assert str(expected) == text.rstrip("/") or text.startswith("file://")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`store` must be a path"),
        ("ftp://host/file", "must be a folder or s3://bucket/prefix or gs://bucket/prefix, but is ftp://host/file"),
        ("s3://bucket", "must name a bucket and a prefix, but is s3://bucket"),
        ("s3:///prefix", "must name a bucket and a prefix"),
        ("file://other/folder", "must be a folder of this host, as file:///folder"),
        ("file:///", "must be a folder of this host"),
        ("/", "must be a folder within another, but is /"),
    ],
)
def test_locations_that_are_none(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse_location(text)


def test_object_stores_take_their_settings_from_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_REGION", "moon-1")
    shown = str(open_storage(parse_location("s3://bucket/some/prefix")))
    for part in ("bucket", "some/prefix", "moon-1", "http://127.0.0.1:9000"):
        assert part in shown
    assert "prefix" in str(open_storage(parse_location("gs://bucket/prefix")))


def test_missing_extra_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(ImportError, match=r'pip install "jaxkinetic\[sweep\]"'):
        jk.run_sweep(TINY, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
