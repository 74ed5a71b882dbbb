"""The results of one point: their rows in a store's arrays, and the digest that tells whether these are intact."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.layout import RESULTS

Rows = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PointState:
    """What is known of a point.

    Attributes:
        moments: moments of the values over the prompts so far.
        n_steps: constant steps to depth t.
        step_error: root-mean-square error of these steps in one prompt's values, at worst over the sources.
    """

    moments: Moments
    n_steps: int
    step_error: float


def to_rows(state: PointState | None, config: SweepConfig) -> Rows:
    """A point's part of each array; sources that the point lacks, and a point without prompts, are NaN."""
    n = config.n_sources
    mean, m2 = np.full(n, np.nan), np.full((n, n) if config.joint else n, np.nan)
    if state is None:
        return dict(zip(RESULTS, (np.int64(0), np.int64(0), np.float64(np.nan), mean, m2), strict=True))
    used = slice(state.moments.mean.size)
    mean[used] = state.moments.mean
    m2[(used,) * m2.ndim] = state.moments.m2
    numbers = np.int64(state.moments.count), np.int64(state.n_steps), np.float64(state.step_error)
    return dict(zip(RESULTS, (*numbers, mean, m2), strict=True))


def to_state(rows: Rows, point: Point, config: SweepConfig) -> PointState | None:
    """The state that rows of the arrays hold; None before the first prompt."""
    if not rows["count"]:
        return None
    used = slice(config.positions(point.n_tokens).size)
    squares = rows["m2"][(used,) * rows["m2"].ndim]
    moments = Moments(int(rows["count"]), rows["mean"][used], squares)
    return PointState(moments, int(rows["n_steps"]), float(rows["step_error"]))


def digest_of_rows(rows: Rows) -> str:
    """BLAKE2 of all bits of a point's results."""
    found = hashlib.blake2b(digest_size=16)
    for name in RESULTS:
        value = np.asarray(rows[name])
        found.update(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


def digest_of_attributes(attrs: Mapping[str, Any]) -> str:
    """BLAKE2 of a store's attributes, the digests of its points included."""
    text = json.dumps({name: value for name, value in attrs.items() if name != "digest"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
