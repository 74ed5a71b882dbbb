"""The published curves that come with the package."""

import csv
from importlib import resources
from typing import NamedTuple

from jaxkinetic._types import check_choice
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

    Returns:
        One curve per model, task and prompt length.

    Raises:
        ValueError: if there is no such dataset, model or task; the message lists those there are.
    """
    curves = _load(dataset)
    for what, wanted in (("model", model), ("task", task)):
        attribute = "name" if what == "model" else what
        if wanted is not None:
            check_choice(what, wanted, sorted({getattr(c, attribute) for c in curves}))
    return [c for c in curves if model in (None, c.name) and task in (None, c.task)]


def list_models(dataset: str = "liu2024", task: str | None = "multi-document-qa") -> list[str]:
    """Names of the models in a shipped dataset, in the order of its tables."""
    return list(dict.fromkeys(c.name for c in load_curves(dataset, task=task)))


def load_baselines(model: str, dataset: str = "liu2024") -> list[Baseline]:
    """Closed-book and oracle accuracies of a model; empty where none are published.

    Raises:
        ValueError: if there is no such dataset or model.
    """
    load_curves(dataset, model, task=None)
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
    check_choice("dataset", dataset, _DATASETS)
    with resources.files("jaxkinetic.inference.data").joinpath(f"{dataset}.csv").open(encoding="utf-8") as file:
        return parse_curves(table(file), dataset, None)
