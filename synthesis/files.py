"""Rows of files that a synthesizer is pointed at: tables and documents, with any columns."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from warehouse.csv_rows import DELIMITERS, csv_rows
from warehouse.errors import InputError
from warehouse.json_rows import Placed
from warehouse.readers import opener, read
from warehouse.records import digest
from warehouse.sources import File, Part, content, locate

HEADER_BYTES = 2**20


def rows_of(path: str, most: int | None = None) -> Iterator[Placed]:
    """The first `most` rows of a file, folder or saved data set, each as its columns, with its place in front.

    A row that cannot be read is a `Refused`. Raises `InputError` where there is no such file, or it cannot be read.
    """
    found = ((f"{part.title}{place}", row) for part in located(path) for place, row in _rows(part))
    return islice(found, most)


def content_of(path: str) -> str:
    """Changes with every byte of what `path` names, and not with its place."""
    return digest("\n".join(content(part) for part in located(path)))


def located(path: str) -> tuple[Part, ...]:
    return locate(str(Path(path).expanduser())).parts


def _rows(part: Part) -> Iterator[Placed]:
    if isinstance(part, File) and part.kind == "csv":  # any columns are welcome, so the header tells the delimiter
        return csv_rows(opener(part), part.name, (_delimiter(part),))
    return read(part, lambda _: None)


def _delimiter(part: File) -> str:
    """The one that makes the most columns of the header."""
    try:
        with opener(part)() as stream:
            header = stream.readline(HEADER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"cannot read {part.path}: {error.strerror or error}") from error
    return max(DELIMITERS, key=lambda sign: len(next(csv.reader([header.rstrip("\r\n")], delimiter=sign), [])))
