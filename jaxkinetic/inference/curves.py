"""Measured retrieval curves: the published ones, and a user's own from CSV."""

import csv
import difflib
import unicodedata
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from jaxkinetic._types import check_at_least
from jaxkinetic.inference.csv_table import number, open_table, table

_DATASETS = ("liu2024",)
_POSITION_OFFSET = 0.5


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
        sources, accuracy = np.asarray(sources, dtype=float), np.asarray(accuracy, dtype=float)
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
        self.accuracy = _as_fractions(accuracy)[order]
        if n_questions is None:
            self.n_questions = None
        else:
            counts = np.broadcast_to(np.asarray(n_questions, dtype=float), sources.shape)
            if not np.all(np.isfinite(counts) & (counts >= 1)):
                raise ValueError(f"Argument `n_questions` must be at least 1, but is {n_questions}.")
            self.n_questions = counts[order]
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
        curves = read_curves(path, n_items)
        if len(curves) > 1:
            labels = "; ".join(c.label for c in curves)
            raise ValueError(
                f"File {path} must hold one curve, but holds {len(curves)}: {labels}. Use `read_curves`."
            )
        return curves[0]


class Baseline(NamedTuple):
    """Accuracy without documents (closed book) or with the relevant one alone (oracle)."""

    setting: str
    accuracy: float
    n_questions: int
    origin: str


def load_curves(
    dataset: str = "liu2024", model: str | None = None, task: str | None = "multi-document-qa"
) -> list[RetrievalCurve]:
    """Load published curves that come with the package.

    Args:
        dataset: "liu2024", the tables of Liu et al., *Lost in the Middle* (arXiv 2307.03172).
        model: name as in the tables; all models if None. See `list_models`.
        task: "multi-document-qa" or "key-value-retrieval"; all tasks if None.

    Upper and lower case are told apart only where names differ in nothing else.

    Returns:
        One curve per model, task and prompt length; at least one.

    Raises:
        ValueError: if there is no such dataset, model or task, or none of the model's curves is of the task.
    """
    curves = _load(dataset)
    if task is not None:
        task = _named("task", task, [c.task for c in curves])
    if model is not None:
        model = _named("model", model, [c.name for c in curves])
    found = [c for c in curves if model in (None, c.name) and task in (None, c.task)]
    if not found:
        tasks = " and ".join(sorted({c.task for c in curves if c.name == model}))
        raise ValueError(
            f"Argument `task` must be one of the model's, or None: {model} has no curves of {task}, but of {tasks}."
        )
    return found


def _named(what: str, wanted: str, names: Iterable[str]) -> str:
    """Find a name among those known: as it is written, else the only one that differs in case alone.

    Raises:
        ValueError: if there is none, with the nearest, or if there are several.
    """
    known = list(dict.fromkeys(names))
    hits = [name for name in known if name.casefold() == str(wanted).casefold()]
    if wanted in known or len(hits) == 1:
        return wanted if wanted in known else hits[0]
    if hits:
        raise ValueError(f"Argument `{what}` may be {' or '.join(hits)}: write {wanted!r} as one of these.")
    lower = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(str(wanted).casefold(), lower, 1, cutoff=0.0)
    raise ValueError(
        f"Argument `{what}` must be one of {', '.join(known)}, but is {wanted!r}; the nearest is {lower[near[0]]}."
    )


def list_models(dataset: str = "liu2024", task: str | None = "multi-document-qa") -> list[str]:
    """Names of the models in a shipped dataset, in the order of its tables."""
    return list(dict.fromkeys(c.name for c in load_curves(dataset, task=task)))


def load_baselines(model: str, dataset: str = "liu2024") -> list[Baseline]:
    """Closed-book and oracle accuracies of a model; empty where none are published.

    Raises:
        ValueError: as `load_curves`.
    """
    dataset, model = _named("dataset", dataset, _DATASETS), load_curves(dataset, model, task=None)[0].name
    with (
        resources.files("jaxkinetic.inference")
        .joinpath(f"data/{dataset}_baselines.csv")
        .open(encoding="utf-8") as file
    ):
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    return [
        Baseline(r["setting"], float(r["accuracy_percent"]) / 100, int(r["n_questions"]), r["source"]) for r in rows
    ]


def read_curves(path: str | Path, n_items: int | None = None) -> list[RetrievalCurve]:
    """Read curves from a CSV file with a header.

    Columns: `sigma` (in (0, 1]) or `position` (item number from 0, which needs `n_items`); `accuracy` or
    `accuracy_percent` (fractions or percents, not mixed); optionally `n_questions`, `n_items`, `model`,
    `task` and `source`. Rows that differ in model, task or n_items belong to different curves.

    Args:
        path: the file.
        n_items: number of items in the prompt, where the file has no such column.

    Raises:
        ValueError: on missing columns or values that cannot be right; the message names file and row.
        FileNotFoundError: if there is no such file.
    """
    with open_table(path) as reader:
        return _parse(reader, str(path), n_items)


def _load(dataset: str) -> list[RetrievalCurve]:
    dataset = _named("dataset", dataset, _DATASETS)
    with resources.files("jaxkinetic.inference").joinpath(f"data/{dataset}.csv").open(encoding="utf-8") as file:
        return _parse(table(file), dataset, None)


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


def _parse(reader: csv.DictReader, where: str, n_items: int | None) -> list[RetrievalCurve]:
    columns = list(reader.fieldnames or [])
    position = next((c for c in ("sigma", "position") if c in columns), None)
    accuracy = next((c for c in ("accuracy", "accuracy_percent") if c in columns), None)
    if position is None or accuracy is None:
        missing = [n for n, c in (("position or sigma", position), ("accuracy", accuracy)) if c is None]
        raise ValueError(
            f"File {where} must have a column {' and '.join(missing)}, but has {', '.join(columns) or 'none'}."
        )
    if position == "position" and n_items is None and "n_items" not in columns:
        raise ValueError(f"File {where} must have a column n_items, because positions are item numbers.")

    groups: dict[tuple, list[tuple[float, float, float | None]]] = {}
    for row in reader:
        place = f"{where}, row {reader.line_num}"
        items = number(row, "n_items", place) if row.get("n_items") else n_items
        if items is not None and (items < 1 or items != int(items)):
            raise ValueError(f"{place}: n_items must be a positive integer, but is {items:g}.")
        value = number(row, position, place)
        if position == "position":
            if items is None:
                raise ValueError(f"{place}: n_items is missing.")
            if value != int(value) or not 0 <= value < items:
                raise ValueError(f"{place}: position must be an integer from 0 to {items - 1:g}, but is {value:g}.")
            value = (value + _POSITION_OFFSET) / items
        questions = number(row, "n_questions", place) if row.get("n_questions") else None
        name, task, origin = (_text(row, column, place) for column in ("model", "task", "source"))
        key = (name, task, None if items is None else int(items), origin)
        groups.setdefault(key, []).append((value, number(row, accuracy, place), questions))
    if not groups:
        raise ValueError(f"File {where} must have rows, but has none.")
    percent = accuracy == "accuracy_percent"
    if not percent:
        _as_fractions(np.array([a for rows in groups.values() for _, a, _ in rows]), where)
        percent = any(a > 1 for rows in groups.values() for _, a, _ in rows)
    return [_curve(key, rows, percent, where) for key, rows in groups.items()]


def _text(row: dict[str, Any], column: str, place: str) -> str:
    """Read a name, without control characters, which a terminal would obey."""
    text = row.get(column) or ""
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise ValueError(f"{place}: {column} must not hold control characters, but is {text!r}.")
    return text


def _curve(key: tuple, rows: list[tuple[float, float, float | None]], percent: bool, where: str) -> RetrievalCurve:
    sources, accuracy, questions = zip(*rows, strict=True)
    if any(q is None for q in questions) and any(q is not None for q in questions):
        raise ValueError(f"File {where}: n_questions must be given in every row of a curve or in none.")
    name, task, items, origin = key
    scaled = np.array(accuracy) / (100 if percent else 1)
    if not np.all((scaled >= 0) & (scaled <= 1)):
        raise ValueError(f"File {where}: accuracies must lie in [0, 100] per cent, but are {_list(accuracy)}.")
    try:
        return RetrievalCurve(
            sources, scaled, None if questions[0] is None else np.array(questions), items, name, task, origin
        )
    except ValueError as error:
        raise ValueError(f"File {where}: {error}") from None


def _as_fractions(accuracy: np.ndarray, where: str = "Argument `accuracy`") -> np.ndarray:
    if not np.all((accuracy >= 0) & (accuracy <= 100)):
        raise ValueError(f"{where}: accuracies must lie in [0, 100] per cent or [0, 1], but are {_list(accuracy)}.")
    if accuracy.max() <= 1:
        return accuracy
    if np.any((accuracy > 0) & (accuracy < 1)):
        raise ValueError(f"{where}: accuracies must be all fractions or all percents, but are {_list(accuracy)}.")
    return accuracy / 100


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)
