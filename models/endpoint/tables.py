"""The response store's file: its tables, and how it is opened."""

import errno
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from warehouse.errors import InputError

APPLICATION = 0x57494E52  # "WINR": tells our files from other SQLite files
VERSION = 1
BUSY_S = 60.0  # how long a writer waits for another process's transaction
OPEN_S = 10.0  # how long opening waits while another process makes the tables

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (key TEXT PRIMARY KEY, request TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    owner TEXT NOT NULL,
    started REAL NOT NULL,
    seconds REAL NOT NULL,
    status INTEGER,
    headers TEXT NOT NULL DEFAULT '{}',
    body BLOB,
    outcome TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    flags TEXT NOT NULL DEFAULT '',
    served_model TEXT NOT NULL DEFAULT '',
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    cost TEXT
);
CREATE INDEX unread ON attempts (key) WHERE outcome = '';
CREATE TABLE answers (key TEXT PRIMARY KEY, attempt INTEGER NOT NULL REFERENCES attempts (id)) WITHOUT ROWID;
CREATE TABLE leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE parsed (
    key TEXT NOT NULL, parser TEXT NOT NULL, version INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (key, parser, version)
);
CREATE TABLE capabilities (
    at TEXT NOT NULL, model TEXT NOT NULL, server TEXT NOT NULL, created REAL NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (at, model, server)
);
CREATE VIEW responses AS
    SELECT answers.key AS key, request, body, status, headers, outcome, flags, served_model, prompt_tokens,
           completion_tokens, cached_tokens, reasoning_tokens, cost, started AS created, seconds AS latency, owner
    FROM answers JOIN attempts ON attempts.id = answers.attempt JOIN requests ON requests.key = answers.key;
"""


def open_store(path: Path) -> sqlite3.Connection:
    """A connection that writes to the store at `path`, which is made where there is none.

    Raises `InputError` for a file that is no response store, is damaged, is of another version or may not be written.
    """
    if path.is_dir():
        raise InputError(f"response store {path} is a folder; give the path of a file, such as {path}/responses.sqlite")
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + OPEN_S
    while True:
        connection = connected(path, "rwc")
        try:
            _prepare(connection, path)
            return connection
        except sqlite3.Error as error:
            connection.close()
            # switching a new file to WAL does not wait for others that do the same
            if error.sqlite_errorname.startswith("SQLITE_BUSY") and time.monotonic() < until:
                time.sleep(0.01)
                continue
            raise explained(error, path) from error
        except InputError:
            connection.close()
            raise


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that reads the store at `path`, also where neither file nor folder may be written."""
    if not path.is_file():
        raise InputError(f"there is no response store at {path}")
    connection = connected(path, "ro")
    try:
        try:
            _check(connection, path)
        except sqlite3.OperationalError:
            connection.close()
            if path.with_name(path.name + "-wal").exists():
                raise
            # without a writer's files beside it nothing can be missing from the file itself
            connection = connected(path, "ro&immutable=1")
            _check(connection, path)
    except (sqlite3.Error, InputError) as error:
        connection.close()
        raise (explained(error, path) if isinstance(error, sqlite3.Error) else error) from error
    return connection


def connected(path: Path, mode: str) -> sqlite3.Connection:
    place = f"file:{quote(str(path.absolute()))}?mode={mode}"
    try:
        return sqlite3.connect(place, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise explained(error, path) from error


def explained(error: sqlite3.Error, path: Path) -> Exception:
    """What a person can do about an error of the database."""
    name = getattr(error, "sqlite_errorname", "") or ""
    kept = "all that was stored before is kept"
    if isinstance(error, sqlite3.ProgrammingError):
        return InputError(f"the response store {path} is closed ({error})")
    if name.startswith("SQLITE_FULL"):
        return OSError(errno.ENOSPC, f"no space is left for the response store {path}; {kept}: free some and run again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return InputError(
            f"the response store {path} cannot be written ({error}); give another path, or mend its rights"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return InputError(f"{path} is no response store, or is damaged ({error}); give another path")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return OSError(errno.EAGAIN, f"another process has kept the response store {path} locked for {BUSY_S:.0f} s")
    return OSError(errno.EIO, f"the response store {path} cannot be used ({error}; is its disk full?); {kept}")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty file; check those of any other, before anything in it is changed."""
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _check(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an answer that was handed out survives a power cut
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(VERSION),))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise InputError(f"{path} is a database of something else, not a response store; give another path")
    row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    if row is None or row[0] != str(VERSION):
        raise InputError(
            f"the response store {path} has schema version {row[0] if row else 'none'}, this Winnow reads {VERSION}; "
            "give another path, or use the Winnow that made it"
        )
