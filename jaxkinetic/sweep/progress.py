"""A progress bar for a sweep."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import SweepConfig
from jaxkinetic.sweep.cost import expected_prompts, relative_cost

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


class Meter:
    """A bar that counts the cost of prompts, so that the time left is right where points differ in cost.

    Points that have not begun are taken to need as many prompts as the others on average.
    """

    def __init__(self, config: SweepConfig, moments: Sequence[Moments | None], shown: bool):
        self._config = config
        self._cost = np.array([relative_cost(config, point) for point in config.points()])
        self._count, self._expected = np.zeros(len(moments)), np.full(len(moments), np.nan)
        for i, found in enumerate(moments):
            if found is not None:
                self._record(i, found)
        self._bar: Any = tqdm(
            total=self.total, initial=self.done, bar_format=_FORMAT, disable=None if shown else True
        )

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, i: int, moments: Moments) -> None:
        """Record the current moments of point i."""
        before = self.done
        self._record(i, moments)
        if not self._bar.disable:
            self._bar.set_description(f"point {i + 1}/{self._count.size}", refresh=False)
            self._bar.total = self.total
            self._bar.update(self.done - before)

    @property
    def done(self) -> float:
        """Cost of the prompts so far."""
        return float(self._count @ self._cost)

    @property
    def total(self) -> float:
        """Cost of all prompts, as far as known."""
        begun = self._count > 0
        others = self._expected[begun].mean() if begun.any() else expected_prompts(self._config, None)
        return float(np.where(begun, self._expected, others) @ self._cost)

    def _record(self, i: int, moments: Moments) -> None:
        self._count[i], self._expected[i] = moments.count, expected_prompts(self._config, moments)
