"""Curves from CSV files."""

import csv
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from jaxkinetic._types import check_at_least, check_path
from jaxkinetic.inference.data.csv_table import number, open_table
from jaxkinetic.inference.data.curves import RetrievalCurve, as_fractions, list_numbers

_POSITION_OFFSET = 0.5


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
    check_path("path", path)
    if n_items is not None:
        check_at_least("n_items", n_items, 1)
    with open_table(path) as reader:
        return parse_curves(reader, str(path), n_items)


def parse_curves(reader: csv.DictReader, where: str, n_items: int | None) -> list[RetrievalCurve]:
    """Read the curves of an open table; ``where`` names it in messages. See `read_curves`."""
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
        as_fractions(np.array([a for rows in groups.values() for _, a, _ in rows]), where)
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
        raise ValueError(
            f"File {where}: accuracies must lie in [0, 100] per cent, but are {list_numbers(accuracy)}."
        )
    try:
        return RetrievalCurve(
            sources, scaled, None if questions[0] is None else np.array(questions), items, name, task, origin
        )
    except ValueError as error:
        raise ValueError(f"File {where}: {error}") from None
