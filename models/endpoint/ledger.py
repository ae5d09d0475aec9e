"""The statements of the response store: who asks what, what came back, what it was taken for.

Each function runs inside a transaction that the store's writer opens and commits.
"""

import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

from models.endpoint.prices import Tokens

LEASE_S = 60.0  # an asker that is not heard of for so long is taken for dead

_here: set[str] = set()  # askers of this process that live
Claim: TypeAlias = Literal["mine", "held", "answered"]


@dataclass(frozen=True, slots=True)
class Try:
    """One HTTP request and what came back, as it came. `started` is the wall clock, `seconds` how long it took.

    `status` and `body` are None where no whole reply came.
    """

    key: str
    request: str
    number: int
    owner: str
    started: float
    seconds: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a try was taken for. `cost` is USD as decimal text; None where no prices are known."""

    outcome: str
    detail: str = ""
    flags: Sequence[str] = ()
    served_model: str = ""
    tokens: Tokens = field(default_factory=Tokens)
    cost: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A reply in the store: as it came, and as it was read by one parser (None: not yet by this one)."""

    attempt: int
    owner: str
    status: int
    headers: dict[str, str]
    body: bytes
    outcome: str
    parsed: str | None


def new_owner() -> str:
    """A name for one asker of this process, from which others can tell whether it is alive."""
    owner = f"{_machine()} {os.getpid()} {uuid.uuid4().hex}"
    _here.add(owner)
    return owner


def retire(owner: str) -> None:
    """This asker asks no more: leases that it could not give back bind nobody."""
    _here.discard(owner)


def claim(connection: sqlite3.Connection, key: str, owner: str, again: bool = False) -> Claim:
    """Take the right to ask for `key`; "answered" where somebody did already, unless it is asked `again`."""
    if not again and connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
        return "answered"
    now = time.time()
    held = connection.execute("SELECT owner, until FROM leases WHERE key = ?", (key,)).fetchone()
    # a lease far in the future was given before the clock was set back
    if held and held[0] != owner and now < held[1] < now + 2 * LEASE_S and not _dead(held[0]):
        return "held"
    connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (key, owner, now + LEASE_S))
    return "mine"


def renew(connection: sqlite3.Connection, owner: str) -> None:
    connection.execute("UPDATE leases SET until = ? WHERE owner = ?", (time.time() + LEASE_S, owner))


def release(connection: sqlite3.Connection, owner: str, key: str | None = None) -> None:
    """Give back the lease of `key`, or all leases of `owner`."""
    if key is None:
        connection.execute("DELETE FROM leases WHERE owner = ?", (owner,))
    else:
        connection.execute("DELETE FROM leases WHERE key = ? AND owner = ?", (key, owner))


def receive(connection: sqlite3.Connection, tried: Try) -> int:
    """Keep a try as it came, unread; returns its id."""
    connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (tried.key, tried.request, tried.started))
    cursor = connection.execute(
        "INSERT INTO attempts (key, number, owner, started, seconds, status, headers, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tried.key,
            tried.number,
            tried.owner,
            tried.started,
            tried.seconds,
            tried.status,
            json.dumps(dict(tried.headers)),
            tried.body,
        ),
    )
    assert cursor.lastrowid is not None  # an insert has one
    return cursor.lastrowid


def settle(connection: sqlite3.Connection, attempt: int, judged: Judged) -> None:
    """Note what a try was taken for."""
    tokens = judged.tokens
    connection.execute(
        "UPDATE attempts SET outcome = ?, detail = ?, flags = ?, served_model = ?, prompt_tokens = ?,"
        " completion_tokens = ?, cached_tokens = ?, reasoning_tokens = ?, cost = ? WHERE id = ?",
        (
            judged.outcome,
            judged.detail,
            ",".join(judged.flags),
            judged.served_model,
            tokens.prompt,
            tokens.completion,
            tokens.cached,
            tokens.reasoning,
            judged.cost,
            attempt,
        ),
    )


def answer(connection: sqlite3.Connection, key: str, attempt: int) -> None:
    """Let `attempt` be the answer to `key`; what was made of an earlier one is forgotten, the earlier one is not."""
    connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, attempt))
    connection.execute("DELETE FROM parsed WHERE key = ?", (key,))


def keep_parsed(connection: sqlite3.Connection, key: str, parser: str, version: int, value: str) -> None:
    """Keep what version `version` of a parser made of the answer to `key`."""
    connection.execute("INSERT OR REPLACE INTO parsed VALUES (?, ?, ?, ?)", (key, parser, version, value))


def find(connection: sqlite3.Connection, key: str, parser: str, version: int) -> Kept | None:
    """The answer to `key`; else the last try that came back but was not read, because its process died then."""
    row = connection.execute(
        "SELECT id, owner, status, headers, body, outcome, value FROM answers"
        " JOIN attempts ON attempts.id = answers.attempt"
        " LEFT JOIN parsed ON parsed.key = answers.key AND parser = ? AND version = ? WHERE answers.key = ?",
        (parser, version, key),
    ).fetchone()
    row = (
        row
        or connection.execute(
            "SELECT id, owner, status, headers, body, outcome, NULL FROM attempts"
            " WHERE key = ? AND outcome = '' AND body IS NOT NULL ORDER BY id DESC LIMIT 1",
            (key,),
        ).fetchone()
    )
    if row is None:
        return None
    attempt, owner, status, headers, body, outcome, value = row
    return Kept(attempt, owner, status, json.loads(headers), body, outcome, value)


def keep_capabilities(connection: sqlite3.Connection, at: str, model: str, server: str, value: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO capabilities VALUES (?, ?, ?, ?, ?)", (at, model, server, time.time(), value)
    )


def find_capabilities(connection: sqlite3.Connection, at: str, model: str) -> str | None:
    """What was found out last about a model at a place, as JSON."""
    row = connection.execute(
        "SELECT value FROM capabilities WHERE at = ? AND model = ? ORDER BY created DESC LIMIT 1", (at, model)
    ).fetchone()
    return None if row is None else str(row[0])


def _dead(owner: str) -> bool:
    """Whether `owner` belongs to this machine and is no more; of other machines nobody can tell."""
    machine, pid, _ = owner.rsplit(" ", 2)
    if machine != _machine():
        return False
    if int(pid) == os.getpid():
        return owner not in _here
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@cache
def _machine() -> str:
    """This machine, and the part of it in which process numbers are unique."""
    namespace = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0
    return f"{socket.gethostname()}:{namespace}"
