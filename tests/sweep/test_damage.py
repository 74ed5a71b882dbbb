"""Flipped bits are refused or change nothing that is read, and a run repairs them from the store's history."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

import jaxkinetic as jk
from jaxkinetic.sweep import repair
from jaxkinetic.sweep.contents import DamageError
from jaxkinetic.sweep.location import StoreError
from jaxkinetic.sweep.manifest import sessions
from jaxkinetic.sweep.store import open_writer
from tests.sweep.sweeps import TINY

# The results of a point are too many for a manifest: they have files of their own.
CONFIG = TINY.replace(n_tokens=100, sources="all", n_steps=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "s"
    jk.run_sweep(CONFIG, store)
    return store


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "s")


def contents(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def by_age(store: Path, folder: str) -> list[Path]:
    return sorted((store / folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)


def history(store: Path, until: str | None = None) -> list[str]:
    """Messages of the commits, the first one first, up to a message."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store)))
    messages = [info.message for info in repository.ancestry(branch="main")][::-1]
    return messages if until is None else messages[: messages.index(until)]


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def assert_same(found, exact) -> None:
    for name in exact.data_vars:
        assert found[name].identical(exact[name]), name


def check_flips(n_flips: int, store: Path, whole: Path, repaired: bool) -> int:
    """Flip random bits, one at a time, of last results, manifests, snapshots and any file; count refusals."""
    draw, exact, data = np.random.default_rng(3), jk.open_sweep(whole), contents(store)
    last = [path for i, path in enumerate(by_age(store, "chunks")) if i % 6 in (4, 5)]
    kinds = [last, by_age(store, "manifests"), by_age(store, "snapshots"), [store / name for name in data]]
    n_refused = 0
    for i in range(n_flips):
        path = kinds[i % 4][draw.integers(len(kinds[i % 4]))]
        flip(path, int(draw.integers(8 * path.stat().st_size)))
        try:
            found, refusal = jk.open_sweep(store), ""
        except StoreError as error:
            found, refusal = exact, str(error)
        assert found.identical(exact)
        assert "\n" not in refusal
        if refusal:
            n_refused += 1
            if repaired and path.parent.name != "branch.main":
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    jk.run_sweep(CONFIG, store)
                assert ["was damaged" in str(warning.message) for warning in told] == [True], (path, refusal)
                assert_same(jk.open_sweep(store), exact)
                shutil.rmtree(store)
                shutil.copytree(whole, store)
        path.write_bytes(data[str(path.relative_to(store))])
    return n_refused


def test_flipped_bits_are_refused_or_change_nothing(store: Path, whole: Path):
    assert check_flips(24, store, whole, repaired=False) >= 3


@pytest.mark.slow
def test_a_thousand_flipped_bits_are_refused_or_change_nothing_and_are_repaired(store: Path, whole: Path):
    assert check_flips(1000, store, whole, repaired=True) > 200


def first_chunk(store: Path) -> None:
    """The means of the first point, which only its own commit has written."""
    path = by_age(store, "chunks")[4]
    flip(path, 4 * path.stat().st_size)


def last_chunk(store: Path) -> None:
    path = by_age(store, "chunks")[-1]
    path.write_bytes(path.read_bytes()[:-5])


def swapped_chunks(store: Path) -> None:
    """Both are intact, but each is the other point's."""
    first, last = by_age(store, "chunks")[4], by_age(store, "chunks")[-2]
    first_data, last_data = first.read_bytes(), last.read_bytes()
    first.write_bytes(last_data)
    last.write_bytes(first_data)


def last_manifests(store: Path) -> None:
    for path in by_age(store, "manifests")[-5:]:
        path.write_bytes(path.read_bytes()[:50])


def all_manifests(store: Path) -> None:
    for path in by_age(store, "manifests"):
        path.write_bytes(b"")


def last_snapshot(store: Path) -> None:
    path = by_age(store, "snapshots")[-1]
    path.write_bytes(path.read_bytes()[:100])


def reference(store: Path) -> None:
    """A commit that there is not."""
    (store / "refs" / "branch.main" / "ref.json").write_text('{"snapshot":"0000000000000000000G"}')


FIRST, LAST = (rf"beta = 1\.0, .*time = {time}, n_tokens = 100" for time in (r"0\.5", r"1\.0"))
ANEW = "Computed anew since their last intact commit: the results at"
NEWEST = "It goes on from its newest commit that can be read"
DAMAGES = [  # what is done, how it is refused, what the repair says, and how many chunks are computed anew
    (first_chunk, f"results at {FIRST}", f"{ANEW} {FIRST}", 1),
    (last_chunk, f"results at {LAST}", f"{ANEW} {LAST}", 1),
    (swapped_chunks, f"results at {FIRST}.* and 1 more points", f"{ANEW} {FIRST}.* and 1 more points", 2),
    (last_manifests, f"results at {FIRST}", f"Restored from earlier commits: .*{FIRST}.* {ANEW} {LAST}", 1),
    (all_manifests, f"results at {FIRST}", f"{ANEW} {FIRST}.* and 1 more points", 6),
    (last_snapshot, "its last commit is damaged", NEWEST, 1),
    (reference, "its last commit is damaged", NEWEST, 0),
]


@pytest.mark.parametrize(
    ("damage", "refused", "repaired", "n_chunks"), DAMAGES, ids=[case[0].__name__ for case in DAMAGES]
)
def test_a_damaged_store_is_refused_by_name_and_repaired_by_a_run(
    store: Path, whole: Path, damage: Callable[[Path], None], refused: str, repaired: str, n_chunks: int
):
    damage(store)
    broken = contents(store)
    for attempt in (
        lambda: jk.open_sweep(store),
        lambda: jk.plan_sweep(CONFIG, store),
        lambda: jk.plan_extension(store, n_prompts=128),
        lambda: jk.extend_sweep(store, n_prompts=128),
    ):
        with pytest.raises(DamageError, match=refused) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert "To repair it run `jaxkinetic sweep run`" in str(caught.value)
    with pytest.raises(ValueError, match="seed is 0 there, but 1 here"):
        jk.run_sweep(CONFIG.replace(seed=1), store)
    assert contents(store) == broken
    with pytest.warns(UserWarning, match=f"s was damaged. .*{repaired}"):
        jk.run_sweep(CONFIG, store)
    found = jk.open_sweep(store)
    assert_same(found, jk.open_sweep(whole))
    assert "repaired" in [run["event"] for run in sessions(found.attrs)]
    assert len(history(store)) == len(history(store, "repaired")) + 1 + n_chunks
    mended = contents(store)
    assert [name for name in broken if mended[name] != broken[name]] == ["refs/branch.main/ref.json"]
    jk.run_sweep(CONFIG, store)
    assert contents(store) == mended


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group: group.attrs.update({"seed": 1}), "its manifest is damaged"),
        (
            lambda group: group["count"].__setitem__(..., 96),
            r"results at beta = 1\.0, .*time = 0\.5.* and 1 more poi",
        ),
    ],
    ids=["attributes", "results without a digest"],
)
def test_what_no_sweep_has_committed_is_damage(tmp_path: Path, change: Callable[[Any], None], message: str):
    store = tmp_path / "s"
    with open_writer(store, TINY):
        pass
    exact = jk.open_sweep(store)
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store))).writable_session("main")
    change(zarr.open_group(session.store, mode="r+"))
    session.commit("damage")
    with pytest.raises(DamageError, match=message):
        jk.open_sweep(store)
    with pytest.warns(UserWarning, match="was damaged"), open_writer(store, TINY):
        pass
    assert_same(jk.open_sweep(store), exact)
    assert jk.open_sweep(store).attrs["seed"] == 0


def test_extending_without_goals_repairs_too(store: Path, whole: Path):
    last_chunk(store)
    with pytest.warns(UserWarning, match="was damaged"):
        jk.extend_sweep(store)
    assert_same(jk.open_sweep(store), jk.open_sweep(whole))


def test_a_repair_that_is_killed_is_repeated(store: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
    """At the instant that matters: the branch is back at a commit that can be read, and nothing is added yet."""
    last_snapshot(store)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repair, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            jk.run_sweep(CONFIG, store)
    assert jk.open_sweep(store)["count"].values.ravel().tolist() == [96, 64]
    jk.run_sweep(CONFIG, store)
    assert_same(jk.open_sweep(store), jk.open_sweep(whole))


def test_a_store_without_an_intact_commit_is_left_as_it_is(store: Path):
    for path in (store / "snapshots").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    broken = contents(store)
    with pytest.raises(StoreError, match=r"damaged beyond repair\. Nothing was changed; move it away"):
        jk.run_sweep(CONFIG, store)
    assert contents(store) == broken
