"""Responses as JSON lines: to share them, and to run where there is no network."""

import base64
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.endpoint.store import LOADED, ResponseStore
from models.endpoint.wire import key_of
from warehouse.errors import InputError

COLUMNS = (
    "request",
    "body",
    "status",
    "headers",
    "outcome",
    "flags",
    "served_model",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost",
    "created",
    "latency",
)
CAPABILITIES = ("at", "model", "server", "created", "value")
LOAD_GROUP = 500  # lines in one transaction


def export(store: ResponseStore, path: Path) -> int:
    """Write all answers and capabilities of `store` to `path`, in order of their keys; returns how many answers.

    The file is replaced only when it is whole. Attempts that failed are not in it.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        count = store.read(lambda connection: sum(_written(file.write, line) for line in _lines(connection)))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return count


def load(store: ResponseStore, path: Path) -> int:
    """Add the answers of a file that `export` wrote; returns how many were new. What the store has stays as it is.

    Raises `InputError` for a line that is none of them; the lines before it are kept.
    """
    added, group = 0, list[dict[str, Any]]()
    for number, text in enumerate(_texts(path), 1):
        group.append(_checked(text, path, number))
        if len(group) == LOAD_GROUP:
            added += _added(store, group)
            group = []
    return added + _added(store, group)


def _lines(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM responses ORDER BY key"):
        line = dict(zip(COLUMNS, row, strict=True))
        line["body"] = base64.b64encode(line["body"] or b"").decode()
        yield line
    for row in connection.execute(f"SELECT {', '.join(CAPABILITIES)} FROM capabilities ORDER BY at, model, server"):
        yield dict(zip(CAPABILITIES, row, strict=True))


def _written(write: Any, line: dict[str, Any]) -> bool:
    """Whether `line`, which is written, is an answer."""
    write(json.dumps(line) + "\n")
    return "request" in line


def _texts(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"responses file {path} cannot be read: {error}") from error


def _checked(text: str, path: Path, number: int) -> dict[str, Any]:
    try:
        line = json.loads(text)
        if isinstance(line, dict) and set(line) in ({*COLUMNS}, {*CAPABILITIES}):
            if "body" in line:
                line["body"] = base64.b64decode(line["body"], validate=True)
            return line
    except (TypeError, ValueError):
        pass  # said below
    raise InputError(f"{path}: line {number} is no response; give a file that was exported from a response store")


def _added(store: ResponseStore, group: list[dict[str, Any]]) -> int:
    return store.write(lambda connection: sum(_insert(connection, line) for line in group)).result()


def _insert(connection: sqlite3.Connection, line: dict[str, Any]) -> bool:
    if "request" not in line:
        named = ", ".join(f":{name}" for name in CAPABILITIES)
        connection.execute(f"INSERT OR IGNORE INTO capabilities VALUES ({named})", line)
        return False
    given = line | {"key": key_of(line["request"]), "owner": LOADED}
    if connection.execute("SELECT 1 FROM answers WHERE key = :key", given).fetchone():
        return False
    connection.execute("INSERT OR IGNORE INTO requests VALUES (:key, :request, :created)", given)
    columns = ("key", "owner", *COLUMNS[1:-2])
    attempt = connection.execute(
        f"INSERT INTO attempts (number, started, seconds, {', '.join(columns)})"
        f" VALUES (0, :created, :latency, {', '.join(f':{name}' for name in columns)})",
        given,
    ).lastrowid
    connection.execute("INSERT INTO answers VALUES (?, ?)", (given["key"], attempt))
    return True
