"""Tables in CSV files as spreadsheets and people write them: byte order marks, spaces in headers."""

import csv
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_table(path: str | Path) -> Iterator[csv.DictReader]:
    """Rows of a file under the names in its header; what goes wrong while they are read is said of the file.

    Raises:
        ValueError: if the file is not a table in UTF-8.
        FileNotFoundError: if there is no such file.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            yield table(file)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"File {path} must be a CSV table in UTF-8, but: {error}.") from None


def table(file: Iterable[str]) -> csv.DictReader:
    """Rows of an open file under the names in its header."""
    reader = csv.DictReader(file)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    return reader


def number(row: dict[str, Any], column: str, place: str) -> float:
    """The finite number in a column of a row.

    Raises:
        ValueError: if there is none; the message begins with ``place``.
    """
    text = row.get(column)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place}: {column} must be a number, but is {text!r}.")
    return value
