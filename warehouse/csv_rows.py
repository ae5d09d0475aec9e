"""Rows of CSV and TSV files. A quoted field may hold line breaks; a broken record costs that record alone."""

import csv
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from warehouse.errors import InputError
from warehouse.formats import recognise
from warehouse.rejects import ROW_LIMIT, Reason, Refused, excerpt

DELIMITERS = (",", ";", "\t")


class _RecordTooLarge(Exception):
    """Raised out of the csv module's reader when a record passes the limit."""


class _Lines:
    """Feeds lines to the csv module and watches the record that they make up."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self.number = 0  # lines read
        self._size = self._quotes = 0
        self._ended, self.invalid = True, False

    def begin(self) -> None:
        """A new record starts with the next line."""
        self._size = self._quotes = 0
        self.invalid = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._read(self._limit + 1)
        if not line:
            raise StopIteration
        if self._size > self._limit:
            raise _RecordTooLarge
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self.invalid = True
            return line.decode("utf-8", "replace")

    def skip_record(self) -> None:
        """Read past the end of a record that is too large: the first line end outside quotes."""
        while not self._ended or self._quotes % 2:
            if not self._read(2**20):
                return

    def _read(self, size: int) -> bytes:
        line = self._stream.readline(size)
        self.number += self._ended
        self._ended = line.endswith(b"\n")
        self._size += len(line)
        self._quotes += line.count(b'"')
        return line


def csv_rows(
    opened: Callable[[], BinaryIO], name: str, delimiters: tuple[str, ...] = DELIMITERS, limit: int = ROW_LIMIT
) -> Iterator[tuple[str, dict[str, Any] | Refused]]:
    """Rows of a CSV file with a header, each with its place (`:12`, the line where the record starts).

    The delimiter is the first of `delimiters` that makes the header a known format, else the first.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limit + 1))  # the default of 131,072 cuts real rows
    with opened() as stream:
        lines = _Lines(stream, limit)
        delimiter, header = _header(lines, name, delimiters)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            lines.begin()
            place = f":{lines.number + 1}"
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, Refused(Reason.MALFORMED, str(error))
            except _RecordTooLarge:
                lines.skip_record()
                yield place, Refused(Reason.TOO_LARGE, f"the record has more than {limit} bytes")
            else:
                if fields:
                    yield place, _row(header, fields, lines.invalid)


def _row(header: list[str], fields: list[str], invalid: bool) -> dict[str, Any] | Refused:
    if invalid:
        return Refused(Reason.INVALID_UTF8, excerpt(", ".join(fields)))
    if len(fields) != len(header):
        return Refused(Reason.MALFORMED, excerpt(f"{len(fields)} fields, the header has {len(header)}: {fields}"))
    return dict(zip(header, fields, strict=True))


def _header(lines: _Lines, name: str, delimiters: tuple[str, ...]) -> tuple[str, list[str]]:
    try:
        text = next(lines, "").rstrip("\r\n")
    except _RecordTooLarge:
        raise InputError(f"{name}: the header is longer than {ROW_LIMIT} bytes; is this a CSV file?") from None
    if not text:
        return delimiters[0], []
    headers = {delimiter: next(csv.reader([text], delimiter=delimiter)) for delimiter in delimiters}
    chosen = next((d for d in delimiters if recognise(tuple(headers[d])).layouts), delimiters[0])
    header = headers[chosen]
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise InputError(f"{name}: the header names a column twice: {', '.join(map(repr, repeated))}")
    return chosen, header
