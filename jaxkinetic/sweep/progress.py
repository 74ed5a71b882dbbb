"""A progress bar for a sweep."""

from typing import Any

from tqdm import tqdm

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.work import evaluations, expected_prompts, expected_steps


class Meter:
    """A bar that counts token-drift evaluations, so that the time left is right where points differ in cost.

    The cost of points that have not begun is extrapolated from those that have.
    """

    def __init__(
        self,
        config: SweepConfig,
        points: list[Point],
        moments: list[Moments | None],
        n_steps: list[int | None],
        shown: bool,
    ):
        self._config, self._points, self._moments, self._n_steps = config, points, list(moments), list(n_steps)
        self._each = self._costs()
        self._bar: Any = tqdm(
            total=self.total, initial=self.done, unit=" evaluations", unit_scale=True,
            disable=None if shown else True,
        )  # fmt: skip

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, i: int, n_steps: int) -> None:
        """Begin point i, which takes ``n_steps`` steps."""
        self._n_steps[i] = n_steps
        self._each = self._costs()
        self._bar.set_description(f"point {i + 1}/{len(self._points)}", refresh=False)

    def update(self, i: int, moments: Moments) -> None:
        """Record the current moments of point i."""
        before = 0 if (known := self._moments[i]) is None else known.count
        self._moments[i] = moments
        if not self._bar.disable:
            self._bar.total = self.total
            self._bar.update((moments.count - before) * self._each[i])

    @property
    def done(self) -> int:
        """Evaluations of the prompts so far."""
        return sum(m.count * each for m, each in zip(self._moments, self._each, strict=True) if m is not None)

    @property
    def total(self) -> int:
        """Evaluations of all prompts, as far as known."""
        begun = [expected_prompts(self._config, m) for m in self._moments if m is not None]
        guess = round(sum(begun) / len(begun)) if begun else expected_prompts(self._config, None)
        counts = [guess if m is None else expected_prompts(self._config, m) for m in self._moments]
        return sum(count * each for count, each in zip(counts, self._each, strict=True))

    def _costs(self) -> list[int]:
        """Evaluations for one prompt of each point."""
        known = [(p.time, n) for p, n in zip(self._points, self._n_steps, strict=True) if n]
        return [
            evaluations(self._config, p, n or expected_steps(self._config, p, known))
            for p, n in zip(self._points, self._n_steps, strict=True)
        ]
