"""The published curves that come with the package."""

import csv
import difflib
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

from jaxkinetic.inference.data.csv_table import table
from jaxkinetic.inference.data.curves import RetrievalCurve
from jaxkinetic.inference.data.read_csv import parse_curves

_DATASETS = ("liu2024",)


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
        resources.files("jaxkinetic.inference.data")
        .joinpath(f"{dataset}_baselines.csv")
        .open(encoding="utf-8") as file
    ):
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    return [
        Baseline(r["setting"], float(r["accuracy_percent"]) / 100, int(r["n_questions"]), r["source"]) for r in rows
    ]


def _load(dataset: str) -> list[RetrievalCurve]:
    dataset = _named("dataset", dataset, _DATASETS)
    with resources.files("jaxkinetic.inference.data").joinpath(f"{dataset}.csv").open(encoding="utf-8") as file:
        return parse_curves(table(file), dataset, None)
