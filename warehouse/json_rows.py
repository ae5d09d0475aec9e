"""Rows of JSON files: one object per line, an array, an object that holds one list, or columns side by side."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from warehouse.errors import InputError
from warehouse.formats import known_formats, recognise
from warehouse.json_stream import CHUNK, JsonCursor, read_json
from warehouse.rejects import ROW_LIMIT, Reason, Refused, excerpt

Open = Callable[[], BinaryIO]
Placed = tuple[str, dict[str, Any] | Refused]


def json_rows(opened: Open, name: str, named_lines: bool, limit: int = ROW_LIMIT) -> Iterator[Placed]:
    """Rows of a JSON or JSON Lines file, told apart by content; each with its place (`:12` or ` row 12`).

    `named_lines` says that the suffix promises JSON Lines: then only a leading `[` makes it a document. Raises
    `InputError` for a document that is cut short or holds no rows.
    """
    if not holds_lines(opened, named_lines):
        yield from _document_rows(opened, name, limit)
        return
    with opened() as stream:
        yield from line_rows(stream, 1, limit)


def holds_lines(opened: Open, named_lines: bool) -> bool:
    """Whether a file holds one object per line. An array, or an object spread over lines, is a document."""
    with opened() as stream:
        return _is_lines(stream, named_lines)


def line_rows(stream: BinaryIO, number: int, limit: int = ROW_LIMIT) -> Iterator[Placed]:
    """Rows of JSON Lines, the first of which is line `number` of its file."""
    while line := stream.readline(limit + 1):
        if len(line) > limit and not line.endswith(b"\n"):
            _skip_line(stream)
            yield f":{number}", Refused(Reason.TOO_LARGE, f"the line has more than {limit} bytes")
        elif not line.isspace():
            yield f":{number}", _row_of_line(line)
        number += 1


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(CHUNK)) and not piece.endswith(b"\n"):
        pass


def _row_of_line(line: bytes) -> dict[str, Any] | Refused:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refused(Reason.INVALID_UTF8, excerpt(f"byte {error.start}: {line[:400].decode('utf-8', 'replace')}"))
    return _row(read_json(text.strip()))


def _row(value: Any) -> dict[str, Any] | Refused:
    if isinstance(value, dict | Refused):
        return value
    return Refused(Reason.MALFORMED, excerpt(f"expected an object, found {json.dumps(value, ensure_ascii=False)}"))


def _is_lines(stream: BinaryIO, named_lines: bool) -> bool:
    first = _next_line(stream)
    if first.startswith(b"[") or named_lines:
        return not first.startswith(b"[")
    row, second = _row_of_line(first), _next_line(stream)
    if isinstance(row, dict):
        return bool(second) or _is_one_row(row)
    unfinished = first.endswith((b"[", b"{", b",", b":"))
    return not unfinished and isinstance(_row_of_line(second), dict)


def _is_one_row(row: dict[str, Any]) -> bool:
    return bool(recognise(tuple(row)).layouts) and _orientation(row) is None


def _next_line(stream: BinaryIO) -> bytes:
    """The next line that is not blank, cut where a row must end."""
    while line := stream.readline(ROW_LIMIT + 1):
        if not line.endswith(b"\n"):
            _skip_line(stream)
        if stripped := line.strip():
            return stripped
    return b""


@dataclass(frozen=True, slots=True)
class _Member:
    """A top-level member of a JSON object: where its value starts, what opens it, how many items, and the first one."""

    name: str
    offset: int
    opens: str
    count: int
    first: Any


def _orientation(row: dict[str, Any]) -> str | None:
    """How the one-line object `row` holds several rows: `columns`, `table`, or not at all (None)."""
    members = [
        _Member(name, 0, "[" if isinstance(value, list) else "{", len(value), next(iter(_items(value)), None))
        for name, value in row.items()
        if isinstance(value, list | dict)
    ]
    if _tables(members):
        return "table"
    return "columns" if _columns(members) else None


def _items(value: list[Any] | dict[str, Any]) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _document_rows(opened: Open, name: str, limit: int) -> Iterator[Placed]:
    with opened() as stream:
        cursor = JsonCursor(stream, name, limit)
        if cursor.peek() == "[":
            yield from _numbered(cursor)
            return
        members = _survey(cursor)
    if columns := _columns(members):
        yield from _column_rows(opened, name, limit, columns)
    elif recognise(tuple(member.name for member in members)).layouts and not _tables(members):
        with opened() as stream:
            yield " row 0", _row(JsonCursor(stream, name, limit).value())
    else:
        yield from _table_rows(opened, name, limit, members)


def _numbered(cursor: JsonCursor) -> Iterator[Placed]:
    for number, (_, value) in enumerate(cursor.elements()):
        yield f" row {number}", _row(value)
    cursor.finish()


def _survey(cursor: JsonCursor) -> list[_Member]:
    """Where each member of the object at the cursor starts, without keeping any."""
    if cursor.peek() != "{":
        cursor.value()
        return []
    members = []
    for name in cursor.members():
        opens, offset = cursor.peek(), cursor.offset
        count, first = 0, None
        if opens in ("[", "{"):
            for _, value in cursor.elements():
                first = value if count == 0 else first
                count += 1
        else:
            cursor.value()
        members.append(_Member(name, offset, opens, count, first))
    cursor.finish()
    return members


def _tables(members: Sequence[_Member]) -> list[_Member]:
    """The lists whose items look like rows."""
    return [m for m in members if m.opens == "[" and isinstance(m.first, dict) and recognise(tuple(m.first)).layouts]


def _columns(members: Sequence[_Member]) -> list[_Member]:
    """The members that are columns, where they make up a known format: lists, or objects keyed by row (pandas)."""
    columns = [m for m in members if m.opens in ("[", "{") and not _is_turn(m.first)]
    return columns if recognise(tuple(m.name for m in columns)).layouts else []


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and bool({"role", "from"} & value.keys())


def _table_rows(opened: Open, name: str, limit: int, members: Sequence[_Member]) -> Iterator[Placed]:
    tables = _tables(members) or [m for m in members if m.opens == "["]
    if len(tables) != 1:
        found = ", ".join(m.name for m in members) or "no object or array"
        raise InputError(
            f"{name}: expected an array, or an object with one list of rows, or one of columns; found {found}. "
            f"Keep the rows alone in a file of their own.\n{known_formats()}"
        )
    with opened() as stream:
        _skip(stream, tables[0].offset)
        for number, (_, value) in enumerate(JsonCursor(stream, name, limit).elements()):
            yield f" row {number}", _row(value)


def _column_rows(opened: Open, name: str, limit: int, columns: Sequence[_Member]) -> Iterator[Placed]:
    """Walk all columns in step, each through a stream of its own."""
    if len({column.count for column in columns}) > 1:
        lengths = ", ".join(f"{column.name} {column.count}" for column in columns)
        raise InputError(f"{name}: the columns differ in length: {lengths}")
    with ExitStack() as stack:
        walks = []
        for column in columns:
            stream = stack.enter_context(opened())
            _skip(stream, column.offset)
            walks.append(JsonCursor(stream, name, limit).elements())
        names = [column.name for column in columns]
        for number, items in enumerate(zip(*walks, strict=True)):
            values = [value for _, value in items]
            refused = next((value for value in values if isinstance(value, Refused)), None)
            yield f" row {number}", refused or dict(zip(names, values, strict=True))


def _skip(stream: BinaryIO, size: int) -> None:
    if stream.seekable():
        stream.seek(size, io.SEEK_CUR)
        return
    while size > 0 and (data := stream.read(min(size, CHUNK))):
        size -= len(data)
