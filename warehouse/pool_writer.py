"""The files of a pool artifact, written row by row: `samples-*.parquet`, `rejects-00000.parquet`, `pool.parquet`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.json_text import dumps
from warehouse.records import Example, Messages, digest
from warehouse.rejects import ROW_LIMIT, Reason, Refused, Reject, excerpt

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SAMPLES_SCHEMA = pa.schema(
    [
        ("pool", pa.string()),
        ("row", pa.int64()),
        ("sample_id", pa.string()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("messages", MESSAGES),
        ("turns", pa.int32()),
        ("chars", pa.int32()),
        ("meta", pa.string()),
    ]
)
REJECTS_SCHEMA = pa.schema([(name, pa.string()) for name in ("pool", "source", "location", "reason", "detail")])
POOL_SCHEMA = pa.schema(
    [
        ("pool", pa.string()),
        ("name", pa.string()),
        ("n", pa.int64()),
        ("sources", pa.list_(pa.struct([("source", pa.string()), ("rows", pa.int64())]))),
        ("rows_in", pa.int64()),
        ("rejected", pa.int64()),
    ]
)
FILE_ROWS, GROUP_ROWS = 49_152, 8_192
GROUP_CHARS = 64 * 2**20  # a row group is closed early at this much text, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row that may be kept: its meta as JSON, and the characters of its messages."""

    example: Example
    meta: str
    chars: int


def prepare(example: Example) -> Prepared | Refused:
    """The laws that every kept row obeys, whatever it came from; the first one broken is the reason."""
    return _flaw(example) or _fit(example, dumps(dict(example.meta)))


def _flaw(example: Example) -> Refused | None:
    asked = replied = False
    for message in example.messages:
        if message.role == "user":
            asked = asked or not _blank(message.content)
        elif message.role == "assistant":
            if _blank(message.content):
                return Refused(Reason.EMPTY_REPLY, excerpt(_first_words(example)))
            replied = True
    if not replied:
        return Refused(Reason.NO_ASSISTANT_TURN, excerpt(_first_words(example)))
    return None if asked else Refused(Reason.NO_USER_TURN, excerpt(_first_words(example)))


def _blank(text: str) -> bool:
    return not text or text.isspace()


def _first_words(example: Example) -> str:
    return " | ".join(f"{message.role}: {message.content[:80]}" for message in example.messages[:3])


def _fit(example: Example, meta: str) -> Prepared | Refused:
    texts = [message.content for message in example.messages]
    chars = sum(map(len, texts))
    if chars + len(meta) > ROW_LIMIT:
        return Refused(Reason.TOO_LARGE, f"{chars + len(meta)} characters; the limit is {ROW_LIMIT}")
    for text in (*texts, meta, example.source):
        if not text.isascii() and (flaw := _surrogate(text)):
            return flaw
    return Prepared(example, meta, chars)


def _surrogate(text: str) -> Refused | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return Refused(Reason.LONE_SURROGATE, excerpt(f"character {error.start}: {text[max(error.start - 40, 0) :]}"))
    return None


class PoolWriter:
    """Streams rows and rejects into `out`. Close it (leave its `with` block) before reading what it wrote."""

    def __init__(self, out: Path, pool_key: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._key = out, pool_key
        self._rows: list[Prepared] = []
        self._group_chars = 0
        self._rejects: list[Reject] = []
        self._file: pq.ParquetWriter | None = None
        self._files = self._rows_in_file = 0
        self._rejects_file = _parquet(out / "rejects-00000.parquet", REJECTS_SCHEMA)
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            self._flush_rejects()
        self._rejects_file.close()
        if self._file is not None:
            self._file.close()

    @property
    def rows_in(self) -> int:
        return self.kept + self.dropped.total()

    def keep(self, row: Prepared) -> None:
        self._rows.append(row)
        self._group_chars += row.chars + len(row.meta)
        self.kept += 1
        self.sources[row.example.source] += 1
        if len(self._rows) == GROUP_ROWS or self._group_chars >= GROUP_CHARS:
            self._flush()

    def reject(self, source: str, location: str, refused: Refused) -> None:
        self._rejects.append(Reject(source, location, refused.reason, refused.detail))
        self.dropped[refused.reason] += 1
        if len(self._rejects) == GROUP_ROWS:
            self._flush_rejects()

    def write_summary(self, name: str) -> None:
        """`pool.parquet`: one row about the whole."""
        sources = [{"source": source, "rows": rows} for source, rows in sorted(self.sources.items())]
        row = {
            "pool": self._key,
            "name": name,
            "n": self.kept,
            "sources": sources,
            "rows_in": self.rows_in,
            "rejected": self.dropped.total(),
        }
        with _parquet(self._out / "pool.parquet", POOL_SCHEMA) as file:
            file.write_table(pa.Table.from_pylist([row], schema=POOL_SCHEMA))

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None or self._rows_in_file >= FILE_ROWS:
            self._next_file()
        assert self._file is not None
        self._file.write_table(_samples(self._rows, self._key, self.kept - len(self._rows)))
        self._rows_in_file += len(self._rows)
        self._rows, self._group_chars = [], 0

    def _next_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = _parquet(self._out / f"samples-{self._files:05}.parquet", SAMPLES_SCHEMA)
        self._files, self._rows_in_file = self._files + 1, 0

    def _flush_rejects(self) -> None:
        columns = {
            "pool": [self._key] * len(self._rejects),
            "source": [reject.source for reject in self._rejects],
            "location": [reject.location for reject in self._rejects],
            "reason": [str(reject.reason) for reject in self._rejects],
            "detail": [reject.detail for reject in self._rejects],
        }
        self._rejects_file.write_table(pa.table(columns, schema=REJECTS_SCHEMA))
        self._rejects = []


def _parquet(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd")


def identify(example: Example) -> tuple[str, str]:
    """`sample_id` and `prompt_id` of an example, as its properties give them, at five times their speed."""
    turns = [[message.role, message.content.strip()] for message in example.messages]
    asked = [" ".join(message.content.casefold().split()) for message in example.messages if message.role == "user"]
    return digest(dumps(turns)), digest("\n".join(asked))


def _samples(rows: Sequence[Prepared], key: str, first: int) -> pa.Table:
    examples = [row.example for row in rows]
    n, ids = len(rows), [identify(example) for example in examples]
    columns = {
        "pool": pa.repeat(key, n),
        "row": pa.array(range(first, first + n), pa.int64()),
        "sample_id": [sample for sample, _ in ids],
        "prompt_id": [prompt for _, prompt in ids],
        "source": [example.source for example in examples],
        "messages": message_lists([example.messages for example in examples]),
        "turns": pa.array([len(example.messages) for example in examples], pa.int32()),
        "chars": pa.array([row.chars for row in rows], pa.int32()),
        "meta": [row.meta for row in rows],
    }
    return pa.table(columns, schema=SAMPLES_SCHEMA)


def message_lists(conversations: Sequence[Messages], role: str = "role", content: str = "content") -> pa.ListArray:
    """Conversations as an Arrow list of {role, content}, built column by column (four times as fast as by rows)."""
    turns = [message for messages in conversations for message in messages]
    structs = pa.StructArray.from_arrays(
        [pa.array([turn.role for turn in turns], pa.string()), pa.array([turn.content for turn in turns], pa.string())],
        names=[role, content],
    )
    offsets = np.cumsum([0, *(len(messages) for messages in conversations)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), structs)
