"""The bill of a synthesis: the replies it heard and every try to get them, read from the response store as tables."""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.endpoint.answers import from_json
from models.endpoint.reply import read_reply
from models.endpoint.store import ResponseStore
from warehouse.records import canonical
from warehouse.tables import ATTEMPTS, REPLIES

KEYS_AT_ONCE = 500
NAMED_APART = ("messages", "model")  # of what is sent; the rest is how the reply is drawn

_ATTEMPTS = """SELECT a.key, a.number, r.request, a.started, a.seconds, a.status, a.outcome, a.detail, a.prompt_tokens,
    a.completion_tokens, a.cost, a.served_model, a.body, w.attempt IS NOT NULL
    FROM attempts a JOIN requests r ON r.key = a.key LEFT JOIN answers w ON w.attempt = a.id
    WHERE a.key IN ({}) ORDER BY a.key, a.id"""


@dataclass(slots=True)
class Bill:
    """Sums over tries: `requests` tries, tokens, `cost_usd` (None where no try has a price)."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: Decimal | None = None

    def add(self, row: dict[str, Any], cost: str | None) -> None:
        self.requests += 1
        self.prompt_tokens += row["prompt_tokens"]
        self.completion_tokens += row["completion_tokens"]
        if cost is not None:
            self.cost_usd = (self.cost_usd or Decimal(0)) + Decimal(cost)

    def facts(self) -> dict[str, Any]:
        dollars = None if self.cost_usd is None else float(self.cost_usd)
        return {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": dollars,
        }


def write_bill(folder: Path, generation: str, store: ResponseStore, keys: set[str], names: Mapping[str, str]) -> Bill:
    """Write `replies.parquet` and `attempts.parquet` of the requests `keys` into `folder`.

    `names` are those of local models by their fingerprints.
    """
    bill, wanted = Bill(), sorted(keys)
    with (
        pq.ParquetWriter(folder / "replies.parquet", REPLIES, compression="zstd") as replies,
        pq.ParquetWriter(folder / "attempts.parquet", ATTEMPTS, compression="zstd") as attempts,
    ):
        for at in range(0, len(wanted), KEYS_AT_ONCE):
            tries = store.read(_tries(wanted[at : at + KEYS_AT_ONCE]))
            told = [_attempt(generation, row, names) for row in tries]
            for row, one in zip(tries, told, strict=True):
                bill.add(one, row[10])
            attempts.write_table(pa.Table.from_pylist(told, schema=ATTEMPTS))
            heard = [_reply(generation, row, names) for row in tries if row[13]]
            replies.write_table(pa.Table.from_pylist(heard, schema=REPLIES))
    return bill


def bill_of(store: ResponseStore, keys: set[str]) -> Bill:
    """What the tries of the requests `keys` add up to."""
    bill, wanted = Bill(), sorted(keys)
    for at in range(0, len(wanted), KEYS_AT_ONCE):
        for row in store.read(_tries(wanted[at : at + KEYS_AT_ONCE])):
            bill.add({"prompt_tokens": row[8], "completion_tokens": row[9]}, row[10])
    return bill


def _tries(keys: Sequence[str]) -> Callable[[sqlite3.Connection], list[tuple[Any, ...]]]:
    statement = _ATTEMPTS.format(", ".join("?" * len(keys)))
    return lambda connection: connection.execute(statement, keys).fetchall()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A kept request as a person reads it: the model's name, its messages and what else was sent."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any]

    @classmethod
    def of(cls, request: str, names: Mapping[str, str]) -> "_Asked":
        told = json.loads(request)
        local = "local" in told
        sent = told["prompt"] if local else told["body"]
        model = names.get(told["local"], told["local"]) if local else told["model"]
        return cls(model, sent["messages"], {name: sent[name] for name in sent if name not in NAMED_APART})


def _attempt(generation: str, row: tuple[Any, ...], names: Mapping[str, str]) -> dict[str, Any]:
    key, number, request, started, seconds, status, outcome, detail, prompt, completion, cost = row[:11]
    return {
        "generation": generation,
        "reply": key,
        "number": number,
        "model": _Asked.of(request, names).model,
        "started": datetime.fromtimestamp(started, UTC),
        "seconds": seconds,
        "status": status,
        "outcome": outcome,
        "error": detail,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cost_usd": None if cost is None else float(cost),
    }


def _reply(generation: str, row: tuple[Any, ...], names: Mapping[str, str]) -> dict[str, Any]:
    asked = _Asked.of(row[2], names)
    text, finish, failure = _read(row[2], row[12] or b"")
    return {
        "generation": generation,
        "reply": row[0],
        "model": asked.model,
        "served_model": row[11] or asked.model,
        "prompt": json.dumps(asked.messages, ensure_ascii=False),
        "params": canonical(dict(asked.params)),
        "text": text,
        "finish_reason": finish,
        "failure": failure,
        "prompt_tokens": row[8],
        "completion_tokens": row[9],
        "seconds": row[4],
        "cost_usd": None if row[10] is None else float(row[10]),
        "made": datetime.fromtimestamp(row[3], UTC),
    }


def _read(request: str, body: bytes) -> tuple[str, str, str]:
    """Text, finish reason and failure of a kept reply: of a local model's as we wrote it, of a server's as it came."""
    if "local" in json.loads(request):
        completion = from_json(body.decode(), "")
        return completion.text, completion.finish_reason, completion.failure
    reply = read_reply(body)
    return reply.text, reply.finish_reason, reply.fault or reply.refusal
