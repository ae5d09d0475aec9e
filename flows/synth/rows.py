"""What a synthesis leaves: accepted rows as a pool can read them, and the tables `generations` and `rejects`."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from models.converse import Place
from models.dialogue import Accepted, Rejected
from models.protocol import UNANSWERED, Completion
from warehouse.licences import TOGETHER
from warehouse.records import canonical
from warehouse.tables import GENERATIONS, SYNTHESIS_REJECTS

Made: TypeAlias = Sequence[Accepted | Rejected]
Heard: TypeAlias = Sequence[str]

ROWS_FILE = "rows.jsonl"
GENERATIONS_FILE = "generations.parquet"
REJECTS_FILE = "rejects-synthesis.parquet"
BATCH = 2000
UNKNOWN = "unknown"
MOST_REPLIES = (
    64  # a dialogue that heard more before it handed rows out is one of many seeds: nobody knows whose they are
)


@dataclass(slots=True)
class Emitted:
    """Takes rows as dialogues hand them out and keeps them in a file until they can be put in order.

    `counts` has an entry per reason, "" for accepted rows; `parents` are all seeds, `heard` all keys of replies.
    """

    file: IO[bytes]
    counts: Counter[str] = field(default_factory=Counter)
    parents: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    places: list[tuple[Place, int]] = field(default_factory=list)
    unanswered: int = 0

    def listen(self, reply: Completion) -> None:
        """Count prompts that nobody answered, whatever their job makes of that."""
        self.unanswered += reply.failure in UNANSWERED

    def __call__(self, place: Place, rows: Made, heard: Heard) -> None:
        self.places.append((place, self.file.tell()))
        self.heard.update(heard)
        lines = [_plain(row) for row in rows]
        for line in lines:
            self.counts[line["reason"]] += 1
            self.parents.update(line["meta"].get("parents", ()))
        self.file.write(orjson.dumps({"rows": lines, "replies": list(heard)}) + b"\n")

    def in_order(self) -> Iterator[dict[str, Any]]:
        """The rows by their places, each with the keys of the replies behind it."""
        for _, start in sorted(self.places):
            self.file.seek(start)
            part = orjson.loads(self.file.readline())
            for row in part["rows"]:
                yield row | {"replies": _replies_of(row["meta"], part["replies"])}


def _replies_of(meta: Mapping[str, Any], heard: Sequence[str]) -> Sequence[str]:
    """The keys of the replies behind a row: those its synthesizer names, else those its dialogue heard."""
    named = meta.get("replies", meta.get("reply"))
    if isinstance(named, list):
        return named
    if isinstance(named, str):
        return [named] if named else []
    return heard if len(heard) <= MOST_REPLIES else []


def _plain(row: Accepted | Rejected) -> dict[str, Any]:
    example = row.example
    known: dict[str, Any] = {"sample_id": None, "messages": None, "source": None, "meta": {}}
    if example is not None:
        messages = [{"role": m.role, "content": m.content} for m in example.messages]
        known = {
            "sample_id": example.sample_id,
            "messages": messages,
            "source": example.source,
            "meta": dict(example.meta),
        }
    reason, detail = (row.reason, row.detail) if isinstance(row, Rejected) else ("", "")
    return known | {"reason": reason, "detail": detail}


@dataclass(frozen=True, slots=True)
class Maker:
    """What is the same for all rows of a synthesis: its key and the facts that go into every row."""

    key: str
    synthesizer: str
    params: Mapping[str, Any]
    seed: int
    models: Mapping[str, str]
    licences: Mapping[str, frozenset[str]]

    def licence(self, parents: Sequence[str]) -> str | None:
        """All licences of the seeds a row was made from, joined by AND, one that is not known among them as "unknown".

        None where none is known at all.
        """
        found = frozenset[str]().union(*(self.licences.get(parent, frozenset()) for parent in parents))
        return TOGETHER.upper().join(sorted(found)) if found - {UNKNOWN} else None


def write(folder: Path, maker: Maker, emitted: Emitted) -> None:
    """Write all rows into `folder`."""
    accepted = _Table(folder / GENERATIONS_FILE, GENERATIONS)
    rejected = _Table(folder / REJECTS_FILE, SYNTHESIS_REJECTS)
    with (folder / ROWS_FILE).open("wb") as file, accepted, rejected:
        for row in emitted.in_order():
            meta = _meta(row["meta"], maker)
            if row["reason"]:
                rejected.add(_reject(row, meta, maker, rejected.rows))
            else:
                file.write(orjson.dumps({"messages": row["messages"], "source": row["source"], "meta": meta}) + b"\n")
                accepted.add(_generation(row, meta, maker, accepted.rows))


def _meta(given: Mapping[str, Any], maker: Maker) -> dict[str, Any]:
    """What is known of a row: what its synthesizer said, and what made it where a model or a seed did."""
    meta = dict(given)
    if licence := maker.licence(meta.get("parents", ())):
        meta.setdefault("licence", licence)
    if maker.models:
        meta["made_by"] = {"synthesizer": maker.synthesizer, "models": dict(maker.models), "seed": maker.seed}
    return meta


def _generation(row: Mapping[str, Any], meta: Mapping[str, Any], maker: Maker, number: int) -> dict[str, Any]:
    return {
        "generation": maker.key,
        "row": number,
        "sample_id": row["sample_id"],
        "synthesizer": maker.synthesizer,
        "params": canonical(dict(maker.params)),
        "models": canonical(dict(maker.models)),
        "seed": maker.seed,
        "source": row["source"],
        "licence": meta.get("licence"),
        "parents": list(meta.get("parents", ())),
        "replies": row["replies"],
        "meta": canonical(meta),
    }


def _reject(row: Mapping[str, Any], meta: Mapping[str, Any], maker: Maker, number: int) -> dict[str, Any]:
    return {
        "source": maker.synthesizer,
        "location": f"row {number}",
        "reason": row["reason"],
        "detail": row["detail"],
        "messages": None if row["messages"] is None else json.dumps(row["messages"], ensure_ascii=False),
        "parents": list(meta.get("parents", ())),
        "replies": row["replies"],
        "meta": canonical(meta),
    }


class _Table:
    """A Parquet file written in batches; `rows` counts what was added."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.rows, self._waiting = schema, 0, list[dict[str, Any]]()
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        self._waiting.append(row)
        if len(self._waiting) == BATCH:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self.schema))
        self._waiting.clear()
