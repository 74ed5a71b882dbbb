"""The manifest: all that is needed to reproduce a sweep, and a record of every run that wrote to it."""

import datetime
import importlib.metadata
import json
import platform
import warnings
from typing import Any

import jax

from jaxkinetic.sweep.config import SweepConfig

# The first ones determine the numbers.
_COMPUTING = ("jaxkinetic", "jax", "jaxlib", "equinox", "diffrax", "numpy")
_KEEPING = ("icechunk", "zarr", "xarray")


def new_manifest(config: SweepConfig) -> dict[str, Any]:
    """Attributes of a new store; nested ones are JSON, since not every file format nests."""
    chosen = {law: {e: config.chosen_estimator(law, e).name for e in config.estimator} for law in config.law}
    now = session("made")
    return {
        "title": "Retrieval profiles S_N(sigma_0) from particles",
        "created": now["time"],
        "configuration": configuration(config),
        "model": json.dumps(config.describe_model()),
        "laws": json.dumps({name: config.law_table(name) for name in config.law}),
        "estimators": json.dumps(chosen),
        "versions": json.dumps(now["versions"]),
        "platform": now["platform"],
        "seed": config.seed,
        "x64": x64(),
        "device": now["device"],
        "processes": now["processes"],
        "sessions": json.dumps([now]),
    }


def session(event: str) -> dict[str, Any]:
    """The record of this process; ``event`` is "made", "resumed", "extended" or "repaired"."""
    device = jax.devices()[0]
    versions = {name: importlib.metadata.version(name) for name in (*_COMPUTING, *_KEEPING)}
    return {
        "event": event,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions | {"python": platform.python_version()},
        "platform": platform.platform(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "device_kind": device.device_kind,
        "processes": jax.process_count(),
    }


def configuration(config: SweepConfig) -> str:
    """A configuration as stored in the attributes."""
    return json.dumps(config.record())


def with_session(attrs: dict[str, Any], event: str) -> dict[str, Any]:
    """The attributes with this process appended to the record of runs."""
    return attrs | {"sessions": json.dumps([*sessions(attrs), session(event)])}


def sessions(attrs: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of all runs that wrote to a store, in order."""
    return json.loads(attrs.get("sessions", "[]"))


def warn_of_changes(attrs: dict[str, Any], where: object) -> None:
    """Warn if versions or device differ from those of the run that wrote last."""
    written = sessions(attrs)
    if not written:
        return
    last, now = written[-1], session("resumed")
    changes = [
        f"{name} {last['versions'][name]} before, {now['versions'][name]} now"
        for name in _COMPUTING
        if last["versions"].get(name) != now["versions"][name] and name in last["versions"]
    ]
    if last["device_kind"] != now["device_kind"]:
        changes.append(f"device {last['device_kind']} before, {now['device_kind']} now")
    if changes:
        warnings.warn(
            f"The store {where} is continued with {'; '.join(changes)}: new prompts may differ in their last bits "
            "from those of an undisturbed run.",
            stacklevel=2,
        )


def x64() -> str:
    """Whether JAX computes in double precision, as stored in the attributes."""
    return str(jax.config.jax_enable_x64).lower()  # pyright: ignore[reportAttributeAccessIssue]
