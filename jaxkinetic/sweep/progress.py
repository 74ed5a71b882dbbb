"""The work of a sweep, done and to be done, on a terminal."""

from typing import Any

from tqdm import tqdm

from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.sweep.config import Point, SweepConfig
from jaxkinetic.sweep.work import evaluations, expected_prompts, expected_steps


class Meter:
    """A bar that moves by what prompts cost, token-drift evaluations, so that the time left holds on mixed grids.

    What points that have not begun will cost is guessed from those that have.
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
        self._bar: Any = tqdm(
            total=self._total(), initial=sum(self._cost(i) for i in range(len(points))), unit=" evaluations",
            unit_scale=True, disable=None if shown else True,
        )  # fmt: skip

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, i: int, n_steps: int) -> None:
        """Point i is the next; it takes so many steps."""
        self._n_steps[i] = n_steps
        self._bar.set_description(f"point {i + 1}/{len(self._points)}", refresh=False)

    def update(self, i: int, moments: Moments) -> None:
        """So far has point i come."""
        if self._bar.disable:
            return
        before = self._cost(i)
        self._moments[i] = moments
        self._bar.total = self._total()
        self._bar.update(self._cost(i) - before)

    def _each(self, i: int) -> int:
        """Cost of one prompt of point i."""
        known = [(p.time, n) for p, n in zip(self._points, self._n_steps, strict=True) if n]
        n_steps = self._n_steps[i] or expected_steps(self._config, self._points[i], known)
        return evaluations(self._config, self._points[i], n_steps)

    def _cost(self, i: int) -> int:
        moments = self._moments[i]
        return 0 if moments is None else moments.count * self._each(i)

    def _total(self) -> int:
        begun = [expected_prompts(self._config, m) for m in self._moments if m is not None]
        guess = round(sum(begun) / len(begun)) if begun else expected_prompts(self._config, None)
        return sum(
            (guess if m is None else expected_prompts(self._config, m)) * self._each(i)
            for i, m in enumerate(self._moments)
        )
