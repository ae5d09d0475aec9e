"""The files of a shard, a run of rows of one source: `samples.parquet`, `rejects.parquet` and `shard.json`.

A shard is a function of the bytes it was read from and knows no pool, so that versions of a pool share it. A pool is
made of shards by hard links (`warehouse/pools.py`); where a row stands in a pool, the name of the file says.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.block import Block
from warehouse.facts import describe
from warehouse.json_text import dumps
from warehouse.records import Example, Messages, digest
from warehouse.rejects import ROW_LIMIT, Reason, Refused, Reject, excerpt
from warehouse.tables import REJECTS, SAMPLES

SAMPLES_FILE, REJECTS_FILE, SUMMARY_FILE = "samples.parquet", "rejects.parquet", "shard.json"
GROUP_ROWS = 8_192
GROUP_CHARS = 64 * 2**20  # a row group is closed early at this much text, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was read (`a.jsonl:12`, lines from 1; `a.parquet row 12`, from 0), and the id it has there."""

    location: str
    given_id: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row that may be kept: its meta as JSON, and the characters of its messages."""

    example: Example
    meta: str
    chars: int


def prepare(example: Example, unanswered: bool = False) -> Prepared | Refused:
    """The laws that every kept row obeys, whatever it came from; the first one broken is the reason.

    With `unanswered` a row needs no reply that ends with what a user asks.
    """
    return _flaw(example, unanswered) or _fit(example, dumps(dict(example.meta)))


def _flaw(example: Example, unanswered: bool) -> Refused | None:
    asked = False
    replied = unanswered and bool(example.messages) and example.messages[-1].role == "user"
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


class ShardWriter:
    """Streams rows and rejects into `out`. Close it (leave its `with` block) before reading what it wrote.

    `licence` is that of the source, for rows that name none themselves.
    """

    def __init__(self, out: Path, licence: str | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._licence = out, licence
        self._rows: list[tuple[Prepared, Origin]] = []
        self._group_chars = 0
        self._rejects: list[Reject] = []
        self._files: dict[str, pq.ParquetWriter] = {}
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
        for file in self._files.values():
            file.close()

    @property
    def rows_in(self) -> int:
        return self.kept + self.dropped.total()

    def keep(self, row: Prepared, origin: Origin) -> None:
        self._rows.append((row, origin))
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

    def write_summary(self, notes: Sequence[str]) -> None:
        """`shard.json`: the shard's funnel, its rows by source, and what was left out of rows that were kept."""
        summary = {
            "rows_in": self.rows_in,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "sources": dict(sorted(self.sources.items())),
            "notes": list(notes),
        }
        (self._out / SUMMARY_FILE).write_text(json.dumps(summary), encoding="utf-8")

    def _flush(self) -> None:
        if self._rows:
            self._append(SAMPLES_FILE, _samples(self._rows, self._licence))
            self._rows, self._group_chars = [], 0

    def _flush_rejects(self) -> None:
        if self._rejects:
            columns = {
                "source": [reject.source for reject in self._rejects],
                "location": [reject.location for reject in self._rejects],
                "reason": [str(reject.reason) for reject in self._rejects],
                "detail": [reject.detail for reject in self._rejects],
            }
            self._append(REJECTS_FILE, pa.table(columns, schema=REJECTS))
            self._rejects = []

    def _append(self, name: str, table: pa.Table) -> None:
        if name not in self._files:
            self._files[name] = pq.ParquetWriter(self._out / name, table.schema, compression="zstd")
        self._files[name].write_table(table)


def identify(example: Example) -> tuple[str, str]:
    """`sample_id` and `prompt_id` of an example, as its properties give them, at five times their speed."""
    turns = [[message.role, message.content.strip()] for message in example.messages]
    asked = [" ".join(message.content.casefold().split()) for message in example.messages if message.role == "user"]
    return digest(dumps(turns)), digest("\n".join(asked))


def _samples(rows: Sequence[tuple[Prepared, Origin]], licence: str | None) -> pa.Table:
    examples = [row.example for row, _ in rows]
    ids = [identify(example) for example in examples]
    columns = {
        "sample_id": [sample for sample, _ in ids],
        "prompt_id": [prompt for _, prompt in ids],
        "source": [example.source for example in examples],
        "location": [origin.location for _, origin in rows],
        "given_id": pa.array([origin.given_id for _, origin in rows], pa.string()),
        "messages": message_lists([example.messages for example in examples]),
        "meta": [row.meta for row, _ in rows],
    }
    facts = describe(Block(pa.table({name: columns[name] for name in ("messages", "source", "meta")})), licence)
    return pa.table(columns | facts, schema=SAMPLES)


def message_lists(conversations: Sequence[Messages], role: str = "role", content: str = "content") -> pa.ListArray:
    """Conversations as an Arrow list of {role, content}, built column by column (four times as fast as by rows)."""
    turns = [message for messages in conversations for message in messages]
    structs = pa.StructArray.from_arrays(
        [pa.array([turn.role for turn in turns], pa.string()), pa.array([turn.content for turn in turns], pa.string())],
        names=[role, content],
    )
    offsets = np.cumsum([0, *(len(messages) for messages in conversations)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), structs)
