"""Sweeps in an object store: a server that speaks S3, in this process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import icechunk
import numpy as np
import pytest
import zarr
from moto.server import ThreadedMotoServer

import jaxkinetic as jk
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.location import StoreError, open_storage, parse_location
from jaxkinetic.sweep.manifest import sessions
from jaxkinetic.sweep.results import PointState
from jaxkinetic.sweep.run import _Writer
from jaxkinetic.sweep.store import open_writer
from tests.sweep.sweeps import TINY

POINT = next(TINY.points())
STATE = PointState(Moments(32, np.array([1.0, 2.0]), np.array([3.0, 4.0])), 4, 1e-5)
STORE = "s3://bucket/deep/s"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server that holds one empty bucket."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    yield client
    for found in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=found["Key"])
    client.delete_bucket(Bucket="bucket")
    client.close()
    moto.stop()


class Killed(BaseException):
    """A kill, as far as a store can see one."""


def killed_at(n_writes: int):
    """Stop a run where it would write so many times."""
    writes, write = [], _Writer.write

    def stop(self: _Writer, *given) -> None:
        if len(writes) == n_writes:
            raise Killed
        write(self, *given)
        writes.append(given)

    return stop


def test_run_killed_resumed_and_extended_it_is_the_folders(bucket, tmp_path: Path, monkeypatch):
    del bucket
    with monkeypatch.context() as patch:
        patch.setattr(_Writer, "write", killed_at(2))
        with contextlib.suppress(Killed):
            jk.run_sweep(TINY, STORE)
    assert jk.open_sweep(STORE)["count"].values.ravel().tolist() == [64, 0]
    assert jk.plan_sweep(TINY, STORE).n_prompts == 32 + 96
    jk.run_sweep(TINY, STORE)
    jk.extend_sweep(STORE, n_prompts=160)
    jk.run_sweep(TINY.replace(n_prompts=160), tmp_path / "s")
    found, exact = jk.open_sweep(STORE), jk.open_sweep(tmp_path / "s")
    for name in exact.data_vars:
        np.testing.assert_array_equal(found[name].values, exact[name].values)
    assert [run["event"] for run in sessions(found.attrs)] == ["made", "resumed", "extended"]
    with pytest.raises(ValueError, match="n_prompts is 160 there, but 96 here"):
        jk.run_sweep(TINY, STORE)


def test_a_second_writer_is_refused_at_its_commit(bucket):
    """There are no locks: the server takes a commit only onto what its writer has seen."""
    del bucket
    with open_writer(STORE, TINY) as first, open_writer(STORE, TINY) as second:
        first.write(POINT, STATE)
        with pytest.raises(StoreError, match="has been written by another process since this one opened it"):
            second.write(POINT, STATE)
        # Both begin on the same commit; the server decides.
        race = [
            icechunk.Repository.open(open_storage(parse_location(STORE))).writable_session("main") for _ in "ab"
        ]
        for session, mark in zip(race, "ab", strict=True):
            zarr.open_group(session.store, mode="r+").attrs["mark"] = mark
        race[0].commit("first")
        with pytest.raises(icechunk.ConflictError):
            race[1].commit("second")
    last = icechunk.Repository.open(open_storage(parse_location(STORE))).readonly_session("main")
    assert zarr.open_group(last.store, mode="r").attrs["mark"] == "a"
    assert int(zarr.open_group(last.store, mode="r")["count"][...].sum()) == 32  # pyright: ignore


def test_a_kill_between_creation_and_the_first_commit_is_made_good(bucket):
    del bucket
    icechunk.Repository.create(open_storage(parse_location(STORE)))
    with pytest.raises(ValueError, match="there is none at s3://bucket/deep/s"):
        jk.open_sweep(STORE)
    jk.run_sweep(TINY.replace(time=1.0, n_prompts=32), STORE)
    assert int(jk.open_sweep(STORE)["count"].sum()) == 32


def test_objects_that_do_not_arrive_are_no_damage_to_repair(bucket):
    """What a server that fails would look like; objects have checksums of their own."""
    jk.run_sweep(TINY, STORE)
    exact = jk.open_sweep(STORE)
    listed = bucket.list_objects_v2(Bucket="bucket", Prefix="deep/s/manifests")["Contents"]
    objects = {item["Key"]: bucket.get_object(Bucket="bucket", Key=item["Key"])["Body"].read() for item in listed}
    for key in objects:
        bucket.delete_object(Bucket="bucket", Key=key)
    for attempt in (lambda: jk.run_sweep(TINY, STORE), lambda: jk.open_sweep(STORE)):
        with pytest.raises(StoreError, match=r"The store s3://bucket/deep/s cannot be (opened|read): ") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert bucket.list_objects_v2(Bucket="bucket", Prefix="deep/s/manifests")["KeyCount"] == 0
    for key, body in objects.items():
        bucket.put_object(Bucket="bucket", Key=key, Body=body)
    assert jk.open_sweep(STORE).identical(exact)


@pytest.mark.parametrize("kind", ["half a repository", "something else"])
def test_what_is_no_repository_is_refused_and_kept(bucket, kind: str):
    """A kill within icechunk's own creation leaves a first snapshot and no branch."""
    key = "snapshots/1CECHNKREP0F1RSTCMT0" if kind == "half a repository" else "thesis.tex"
    bucket.put_object(Bucket="bucket", Key=f"deep/s/{key}", Body=b"mine")
    with pytest.raises(StoreError, match="something else lies there, or the remains of a sweep"):
        jk.run_sweep(TINY, STORE)
    assert bucket.get_object(Bucket="bucket", Key=f"deep/s/{key}")["Body"].read() == b"mine"


@pytest.mark.slow
def test_a_server_that_is_gone_is_one_line(monkeypatch: pytest.MonkeyPatch, bucket):
    del bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"The store s3://bucket/deep/s cannot be (read|reached)") as caught:
        jk.open_sweep(STORE)
    assert "\n" not in str(caught.value)
