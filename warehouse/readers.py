"""Rows of a source, one at a time, each with its place; memory is bounded by a batch."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.csv_rows import DELIMITERS, csv_rows
from warehouse.errors import InputError
from warehouse.formats import TEXT_COLUMNS, Note
from warehouse.json_rows import Placed, json_rows
from warehouse.rejects import Reason, Refused, excerpt
from warehouse.sources import File, HubDataset, Part, SavedDataset, choose_split

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BATCH_ROWS = 2048
BATCH_BYTES = 32 * 2**20
# made anew when a pool is read back
POOL_BOOKKEEPING = {"sample_id", "prompt_id", "location", "given_id", "turns", "chars", "language", "has_code",
                    "has_math", "family"}  # fmt: skip


def read(part: Part, note: Note) -> Iterator[Placed]:
    """The rows of `part` in order: (place, columns), or why a row is not to be had. `note` hears of dropped columns.

    Raises `InputError` where the whole part cannot be read; damage in the middle of a file is found when it is reached.
    """
    try:
        yield from _rows(part, note)
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {_where(part)}: {error}") from error


def _where(part: Part) -> str:
    if isinstance(part, File):
        return str(part.path)
    return str(part.folder) if isinstance(part, SavedDataset) else part.name


def _rows(part: Part, note: Note) -> Iterator[Placed]:
    match part:
        case File(kind="parquet"):
            return _parquet_rows(part, note)
        case File(kind="csv" | "tsv"):
            delimiters = ("\t",) if part.kind == "tsv" else DELIMITERS
            return csv_rows(opener(part), part.name, delimiters)
        case File():
            return json_rows(opener(part), part.name, named_lines=part.kind == "jsonl")
        case SavedDataset():
            return _saved_rows(part, note)
        case HubDataset():
            return _hub_rows(part, note)


def _bytes(part: File) -> io.BufferedReader:
    if part.compression is None:
        return io.BufferedReader(part.path.open("rb", buffering=0), 2**20)
    return io.BufferedReader(pa.input_stream(str(part.path), compression=part.compression), 2**20)


def opener(part: File) -> Callable[[], BinaryIO]:
    """What opens the file for bytes, decompressed, past a byte order mark.

    Reading damaged compression raises `OSError`.
    """

    def opened() -> BinaryIO:
        stream = _bytes(part)
        start = stream.peek(3)[:3]
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{part.path}: this file is UTF-16; save it as UTF-8")
        if start == b"\xef\xbb\xbf":
            stream.read(3)
        return stream

    return opened


def read_groups(part: File, groups: Sequence[int], row: int, note: Note) -> Iterator[Placed]:
    """The rows of some row groups of a Parquet file, the first being row `row` of the file; errors as in `read`."""
    try:
        yield from _parquet_rows(part, note, groups, row)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {part.path}: {error}") from error


def _parquet_rows(part: File, note: Note, groups: Sequence[int] | None = None, position: int = 0) -> Iterator[Placed]:
    with pq.ParquetFile(part.path) as file:
        columns = _readable(file.schema_arrow, note)
        size = _batch_rows(file.metadata)
        for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=columns):
            for row in _batch(batch):
                yield f" row {position}", row
                position += 1


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Rows that fit in a batch, by the fattest row group (uncompressed sizes; dictionaries make them an estimate)."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(widest, 1))))


def _readable(schema: pa.Schema, note: Note) -> list[str]:
    """Columns that hold text and numbers; binary ones only where text is expected (old writers leave the type out)."""
    names = set(schema.names)
    skipped = POOL_BOOKKEEPING if POOL_BOOKKEEPING | {"messages"} <= names else set()
    kept = []
    for field in schema:
        if holds_bytes(field.type) and field.name.casefold() not in TEXT_COLUMNS:
            note(f"column {field.name!r} dropped: it holds {field.type}, not text")
        elif field.name not in skipped:
            kept.append(field.name)
    return kept


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type hold bytes at any depth: images, audio."""
    if pa.types.is_nested(kind):
        return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return any(
        test(kind)
        for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, _is_binary_view)
    )


def _is_binary_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary_view(kind))


def _batch(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Refused]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            yield _single(batch.slice(i, 1))


def _single(batch: pa.RecordBatch) -> dict[str, Any] | Refused:
    try:
        row: dict[str, Any] = batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Refused(Reason.INVALID_UTF8, excerpt(str(error)))
    return row


def _saved_rows(part: SavedDataset, note: Note) -> Iterator[Placed]:
    from datasets import load_from_disk  # 1 s to import, and only saved folders need it

    data = _without_media(load_from_disk(str(part.folder)).with_format(None), note)  # a stored format hides columns
    position = 0
    for batch in data.iter(batch_size=BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            yield f" row {position}", dict(zip(batch, values, strict=True))
            position += 1


def _hub_rows(part: HubDataset, note: Note) -> Iterator[Placed]:
    for position, row in enumerate(_without_media(_hub_stream(part), note)):
        yield f" row {position}", dict(row)


def _hub_stream(part: HubDataset) -> "IterableDataset":
    from datasets import load_dataset  # 1 s to import, and only hub names need it
    from datasets.exceptions import DatasetsError

    try:
        splits = load_dataset(part.name, part.config, revision=part.commit or part.revision, streaming=True)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise InputError(
            f"{part.name}: there is no such local file or folder, and no data set of this name could be loaded from "
            f"the hub or its cache ({error}). Give the path of a file, of a folder of files or of a saved data set, or "
            "a hub name like org/name@revision:split where the hub can be reached."
        ) from error
    return splits[choose_split(part.name, sorted(map(str, splits)), part.split)]


def _without_media(data: Any, note: Note) -> "Dataset | IterableDataset":
    """Drop columns whose values are not text before any of them is decoded."""
    features = data.features or {}
    media = [name for name, feature in features.items() if holds_bytes(_storage(feature))]
    for name in media:
        note(f"column {name!r} dropped: it holds {type(features[name]).__name__}, not text")
    return data.remove_columns(media) if media else data


def _storage(feature: Any) -> pa.DataType:
    from datasets import Features

    return Features({"column": feature}).arrow_schema.field("column").type
