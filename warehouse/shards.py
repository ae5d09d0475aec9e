"""How sources are cut into pieces, and how a piece becomes a shard.

A piece is known by its content, so a source that grew is read anew only where it grew: a file of JSON lines is cut
every 16 MiB at the end of a line, a Parquet file at its row groups; all else (CSV, JSON documents, hub data sets, and
windows that `skip` and `limit` cut out of a source) is one piece that is read in order. Shards are made one by one, in
any process and any order; a killed import goes on with those that are missing.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.ahead import ahead
from warehouse.errors import InputError
from warehouse.formats import Interpreter
from warehouse.json_rows import holds_lines, line_rows
from warehouse.pool_writer import Origin, Prepared, ShardWriter, prepare
from warehouse.readers import opener, read, read_groups
from warehouse.records import digest
from warehouse.rejects import ROW_LIMIT, Refused
from warehouse.sources import File, Part, Source, content, pinned

PIECE_BYTES = 16 * 2**20
PIECE_ROWS = 16_384
HASHING = 4  # threads at most: one reads 16 MiB in the time that they hash it
COUNTED_BYTES = 2**20  # line ends are counted by as much at a time: it stays in a core's cache

Stamps: TypeAlias = Mapping[Path, tuple[int, int]]
"""Size and time of files, taken before their content was read: a piece known by whole files is read from the same."""


@dataclass(frozen=True, slots=True)
class Lines:
    """`size` bytes of JSON lines from `offset` on, the first of them line `line`; `text` where they were compressed."""

    part: File
    content: str
    offset: int
    size: int
    line: int
    text: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Groups:
    """Row groups `first` to `stop` of a Parquet file; `row` is the first row's number in the file."""

    part: File
    content: str
    stamps: Stamps
    first: int
    stop: int
    row: int


@dataclass(frozen=True, slots=True)
class Window:
    """Rows `start` to `stop` (None: to the end) of parts that are read one after the other."""

    parts: tuple[Part, ...]
    content: str
    stamps: Stamps
    start: int
    stop: int | None


Piece: TypeAlias = Lines | Groups | Window


def pieces(source: Source) -> Iterator[Piece]:
    """The pieces of `source`, in the order of their rows; each byte is read once, to know its content.

    Raises `InputError` where a file cannot be read.
    """
    try:
        yield from _cut(replace(source, parts=tuple(map(pinned, source.parts))))
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {source.text}: {error}") from error


def _cut(source: Source) -> Iterator[Piece]:
    if source.skip or source.limit is not None:
        stamps = _stamps(source.parts)
        whole = digest("\n".join(map(content, source.parts)))
        yield Window(source.parts, whole, stamps, source.skip, source.stop)
        return
    for part in source.parts:
        yield from _pieces(part)


def identity(piece: Piece) -> dict[str, Any]:
    """What a shard is a function of, beside its content and the licence of its source."""
    match piece:
        case Lines():
            return {"file": piece.part.name, "label": piece.part.label, "line": piece.line}
        case Groups():
            return {"file": piece.part.name, "label": piece.part.label, "groups": [piece.first, piece.stop]}
        case Window():
            names = [[part.title, part.label] for part in piece.parts]
            return {"parts": names, "rows": [piece.start, piece.stop]}


def write_shard(
    piece: Piece, out: Path, licence: str | None = None, *, unanswered: bool = False
) -> tuple[int, int, dict[str, int]]:
    """Read `piece` and write its shard into `out`; rows in, rows kept, and rows rejected by reason.

    `licence` is that of the source; with `unanswered` rows may end with what a user asks. Raises `InputError` where the
    piece cannot be read.
    """
    notes: dict[str, None] = {}
    with ShardWriter(out, licence) as writer:
        for label, location, row in _rows(piece, notes, unanswered):
            if isinstance(row, Refused):
                writer.reject(label, location, row)
            else:
                writer.keep(row[0], Origin(location, row[1]))
    _check_stamps(piece)
    writer.write_summary(list(notes))
    return writer.rows_in, writer.kept, dict(sorted(writer.dropped.items()))


def _stamps(parts: Sequence[Part]) -> Stamps:
    stats = {part.path: part.path.stat() for part in parts if isinstance(part, File)}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def _check_stamps(piece: Piece) -> None:
    """Raise `InputError` where a file is no longer the one that the piece is known by."""
    if isinstance(piece, Lines):
        return  # known by its own bytes, which were looked at again
    if _stamps(piece.parts if isinstance(piece, Window) else (piece.part,)) != piece.stamps:
        named = ", ".join(map(str, piece.stamps))
        raise InputError(f"{named} changed while it was read; run the same command again")


Read = tuple[str, str, tuple[Prepared, str | None] | Refused]  # label, location, and the row with its explicit id


def _pieces(part: Part) -> Iterator[Piece]:
    if isinstance(part, File) and part.kind == "parquet":
        return _groups(part)
    if isinstance(part, File) and part.kind in ("json", "jsonl") and holds_lines(opener(part), part.kind == "jsonl"):
        return _lines(part)
    stamps = _stamps((part,))
    return iter([Window((part,), content(part), stamps, 0, None)])


def _lines(part: File) -> Iterator[Lines]:
    with opener(part)() as stream:
        offset, line = (0 if part.compression else stream.tell()), 1
        cut = _cut_lines(stream, keep=part.compression is not None)
        for piece in ahead(_Look.to_end, cut, min(os.cpu_count() or 1, HASHING)):
            yield Lines(part, piece.known.hexdigest()[:32], offset, piece.size, line, piece.text)
            offset, line = offset + piece.size, line + piece.lines


@dataclass(slots=True)
class _Look:
    """What is known of a piece of JSON lines from the parts of it that were looked at; `kept` are those, if asked."""

    keep: bool
    known: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    lines: int = 0
    kept: list[bytes] = field(default_factory=list)

    def to_end(self, parts: Iterable[bytes]) -> "_Look":
        for part in parts:
            self.known.update(part)
            self.size, self.lines = self.size + len(part), self.lines + _line_ends(part)
            if self.keep and sum(map(len, self.kept[1:])) <= ROW_LIMIT:  # a longer line is refused anyway
                self.kept.append(part)
        return self

    @property
    def text(self) -> bytes | None:
        return b"".join(self.kept) if self.keep else None


def _cut_lines(stream: BinaryIO, *, keep: bool) -> Iterator[tuple[_Look, list[bytes]]]:
    """The pieces of `stream`, each with its parts that are still to be looked at: 16 MiB, then the rest of a line.

    Of a line longer than a piece no more than two parts are held: the others are looked at here.
    """
    while text := stream.read(PIECE_BYTES):
        look, parts = _Look(keep), [text]
        while not text.endswith(b"\n") and (text := stream.readline(PIECE_BYTES)):
            if len(parts) == 2:
                look.to_end(parts)
                parts = []
            parts.append(text)
        yield look, parts


def _line_ends(text: bytes) -> int:
    held = np.frombuffer(text, np.uint8)
    blocks = (held[at : at + COUNTED_BYTES] for at in range(0, len(held), COUNTED_BYTES))
    return sum(int(np.count_nonzero(block == ord("\n"))) for block in blocks)


def _groups(part: File) -> Iterator[Groups]:
    stamps, known = _stamps((part,)), content(part)
    metadata = pq.read_metadata(part.path)
    first = row = rows = size = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        rows, size = rows + group.num_rows, size + group.total_byte_size
        if rows >= PIECE_ROWS or size >= PIECE_BYTES or index + 1 == metadata.num_row_groups:
            yield Groups(part, known, stamps, first, index + 1, row)
            first, row, rows, size = index + 1, row + rows, 0, 0


def _rows(piece: Piece, notes: dict[str, None], unanswered: bool) -> Iterator[Read]:
    match piece:
        case Lines():
            with _text(piece) as stream:
                yield from _interpreted(piece.part, line_rows(stream, piece.line), notes, unanswered)
            _check_unchanged(piece)
        case Groups():
            groups = range(piece.first, piece.stop)
            read_rows = read_groups(piece.part, groups, piece.row, _noting(piece.part, notes))
            yield from _interpreted(piece.part, read_rows, notes, unanswered)
        case Window():
            parts = (_interpreted(part, read(part, _noting(part, notes)), notes, unanswered) for part in piece.parts)
            yield from islice(chain.from_iterable(parts), piece.start, piece.stop)


def _noting(part: Part, notes: dict[str, None]) -> Any:
    return lambda note: notes.setdefault(f"{part.title}: {note}")


def _text(piece: Lines) -> BinaryIO:
    if piece.text is not None:
        return io.BytesIO(piece.text)
    return io.BufferedReader(_Part(piece.part.path, piece.offset, piece.size), 2**20)


def _check_unchanged(piece: Lines) -> None:
    """Raise `InputError` where the bytes are no longer those that the piece is known by."""
    if piece.text is not None:
        return
    known = hashlib.sha256()
    with io.BufferedReader(_Part(piece.part.path, piece.offset, piece.size), 2**20) as stream:
        while part := stream.read(2**20):
            known.update(part)
    if known.hexdigest()[:32] != piece.content:
        raise InputError(f"{piece.part.path} changed while it was read; run the same command again")


class _Part(io.RawIOBase):
    """`size` bytes of a file from `offset` on."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file, self._left = path.open("rb", buffering=0), size
        self._file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _interpreted(
    part: Part, rows: Iterator[tuple[str, Any]], notes: dict[str, None], unanswered: bool
) -> Iterator[Read]:
    interpret = Interpreter(part.label, unanswered)
    for place, row in rows:
        prepared = _prepared(interpret, row, unanswered)
        if interpret.notes:  # seldom, and a window ends before the part does
            notes |= {f"{part.title}: {note}": None for note in interpret.notes}
        yield part.label, part.title + place, prepared


def _prepared(
    interpret: Interpreter, row: dict[str, Any] | Refused, unanswered: bool
) -> tuple[Prepared, str | None] | Refused:
    if isinstance(row, Refused):
        return row
    example = interpret(row)
    prepared = example if isinstance(example, Refused) else prepare(example, unanswered)
    return prepared if isinstance(prepared, Refused) else (prepared, interpret.identity(row))
