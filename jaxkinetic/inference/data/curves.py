"""A measured retrieval curve."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from jaxkinetic._types import as_numbers, check_at_least, check_texts


class RetrievalCurve(eqx.Module):
    """Accuracy of a model against the position of the relevant item.

    Attributes:
        sources: positions sigma_0 in (0, 1], increasing, (S,). Item i (from 0) of n sits at (i + 1/2) / n.
        accuracy: fraction of questions answered correctly, in [0, 1], (S,).
        n_questions: number of questions behind each accuracy, (S,); None where it is not known.
        n_items: number of items in the prompt; None where it is not known.
        name: model.
        task: what was asked.
        origin: where the numbers come from.
    """

    sources: Float[np.ndarray, " source"]
    accuracy: Float[np.ndarray, " source"]
    n_questions: Float[np.ndarray, " source"] | None
    n_items: int | None = eqx.field(static=True)
    name: str = eqx.field(static=True)
    task: str = eqx.field(static=True)
    origin: str = eqx.field(static=True)

    def __init__(
        self,
        sources: Any,
        accuracy: Any,
        n_questions: Any = None,
        n_items: int | None = None,
        name: str = "",
        task: str = "",
        origin: str = "",
    ):
        """Sort by position and check; accuracies all in [0, 1] are fractions, otherwise percents."""
        check_texts(name=name, task=task, origin=origin)
        sources, accuracy = as_numbers("sources", sources), as_numbers("accuracy", accuracy)
        if sources.ndim != 1 or sources.shape != accuracy.shape or sources.size == 0:
            raise ValueError(
                "Arguments `sources` and `accuracy` must be non-empty and of one length, "
                f"but have shapes {sources.shape} and {accuracy.shape}."
            )
        if not np.all((sources > 0) & (sources <= 1)):
            raise ValueError(f"Argument `sources` must lie in (0, 1], but is {sources}.")
        if np.unique(sources).size < sources.size:
            raise ValueError(f"Argument `sources` must not repeat a position, but is {np.sort(sources)}.")
        order = np.argsort(sources)
        self.sources = sources[order]
        self.accuracy = as_fractions(accuracy)[order]
        if n_questions is None:
            self.n_questions = None
        else:
            counts = as_numbers("n_questions", n_questions)
            if counts.shape not in ((), sources.shape) or not np.all(np.isfinite(counts) & (counts >= 1)):
                raise ValueError(
                    "Argument `n_questions` must be at least 1, one or for each position, but is "
                    f"{counts.tolist()}."
                )
            self.n_questions = np.broadcast_to(counts, sources.shape)[order]
        if n_items is not None:
            check_at_least("n_items", n_items, 1)
        self.n_items, self.name, self.task, self.origin = n_items, name, task, origin

    @property
    def label(self) -> str:
        """Model and number of items, for legends."""
        parts = [self.name or "curve"] + ([f"{self.n_items} items"] if self.n_items else [])
        return ", ".join(parts)

    @property
    def standard_error(self) -> Float[np.ndarray, " source"]:
        """Binomial standard error sqrt(p (1 - p) / n) of each accuracy; NaN where n is not known.

        p is the accuracy drawn in by half a question on either side: 0 and 100 per cent have errors too.
        """
        if self.n_questions is None:
            return np.full_like(self.accuracy, np.nan)
        p = (self.accuracy * self.n_questions + 0.5) / (self.n_questions + 1)
        return np.sqrt(p * (1 - p) / self.n_questions)

    @classmethod
    def from_csv(cls, path: str | Path, n_items: int | None = None) -> "RetrievalCurve":
        """Read one curve; see `read_curves` for the columns and for files with several curves."""
        from jaxkinetic.inference.data.read_csv import read_curves

        curves = read_curves(path, n_items)
        if len(curves) > 1:
            labels = "; ".join(c.label for c in curves)
            raise ValueError(
                f"File {path} must hold one curve, but holds {len(curves)}: {labels}. Use `read_curves`."
            )
        return curves[0]


def by_model(curves: Iterable[RetrievalCurve]) -> list[list[RetrievalCurve]]:
    """Curves of one model and task together, in the order in which these first appear."""
    groups: dict[tuple[str, str], list[RetrievalCurve]] = {}
    for curve in curves:
        groups.setdefault((curve.name, curve.task), []).append(curve)
    return list(groups.values())


def as_curves(curves: Any) -> list[RetrievalCurve]:
    """List one curve or several, of two positions or more, that are not all constant."""
    given = [curves] if isinstance(curves, RetrievalCurve) else curves
    if not isinstance(given, Iterable):
        raise ValueError(f"Argument `curves` must be a RetrievalCurve or several, but is {curves!r}.")
    found = list(given)
    if not found:
        raise ValueError("Argument `curves` must hold at least one curve, but is empty.")
    for curve in found:
        if not isinstance(curve, RetrievalCurve):
            raise ValueError(f"Argument `curves` must hold RetrievalCurve, but holds {type(curve).__name__}.")
        if curve.sources.size < 2:
            raise ValueError(f"Argument `curves` must hold curves of 2 positions at least; {curve.label} has 1.")
    if all(np.ptp(c.accuracy) == 0 for c in found):
        raise ValueError("Argument `curves` must vary with position, but every curve is constant.")
    return found


def as_fractions(accuracy: np.ndarray, where: str = "Argument `accuracy`") -> np.ndarray:
    """Convert accuracies in per cent or in [0, 1] to fractions; ``where`` begins the message if neither fits."""
    if not np.all((accuracy >= 0) & (accuracy <= 100)):
        raise ValueError(
            f"{where}: accuracies must lie in [0, 100] per cent or [0, 1], but are {list_numbers(accuracy)}."
        )
    if accuracy.max() <= 1:
        return accuracy
    if np.any((accuracy > 0) & (accuracy < 1)):
        raise ValueError(
            f"{where}: accuracies must be all fractions or all percents, but are {list_numbers(accuracy)}."
        )
    return accuracy / 100


def list_numbers(values: Iterable[float]) -> str:
    """Numbers for a message, separated by commas."""
    return ", ".join(f"{v:g}" for v in values)
