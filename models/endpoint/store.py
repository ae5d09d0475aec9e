"""The response store: every reply as it came, in one SQLite file that several processes may share."""

import asyncio
import sqlite3
from concurrent.futures import Future
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TypeVar

from models.endpoint import ledger
from models.endpoint.tables import explained, open_for_reading, open_store
from models.endpoint.writer import Done, Work, Writer
from warehouse.errors import InputError

T = TypeVar("T")
LOADED = "loaded"  # owner of tries that came from another store


@dataclass(frozen=True, slots=True)
class Totals:
    """What the tries of a store add up to. `unread` tries came back, but their process died before it read them."""

    requests: int
    attempts: int
    answers: int
    unread: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal


class ResponseStore:
    """Replies of language models under the keys of their requests. Safe to use from several threads and processes.

    A reply is committed (flushed to the disk) before anybody reads it. Work of several requests shares a commit. With
    `read_only` the file is never written, and its folder need not be writable. Raises `InputError` for a file that
    cannot be used, before any work. Not for network file systems: SQLite's log needs shared memory.
    """

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        writing = None if read_only else open_store(self.path)
        self._reading = open_for_reading(self.path)
        self._read_lock, self._write_lock = Lock(), Lock()
        self._writer = None if writing is None else Writer(writing, self.path)

    def __enter__(self) -> "ResponseStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, work: Work[T]) -> "Future[T]":
        """Do `work` in a transaction; the result is there once it is committed. Errors are those of `explained`."""
        done: Future[T] = Future()
        self._put(work, done)
        return done

    def write_async(self, work: Work[T]) -> "asyncio.Future[T]":
        """`write` for the running event loop."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(work, done)
        return done

    def read(self, work: Work[T]) -> T:
        """Do `work` on what is committed."""
        with self._read_lock:
            try:
                return work(self._reading)
            except sqlite3.Error as error:
                raise explained(error, self.path) from error

    def find(self, key: str, parser: str, version: int) -> ledger.Kept | None:
        """The reply under `key`, and what version `version` of `parser` made of it."""
        return self.read(lambda connection: ledger.find(connection, key, parser, version))

    def totals(self) -> Totals:
        """What all tries of this store add up to; those loaded from another store were paid for there."""
        return self.read(_totals)

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        with self._write_lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        with self._read_lock:
            self._reading.close()
        if writer is not None:
            writer.connection.close()  # the last to go folds the log into the file

    def _put(self, work: Work[T], done: Done) -> None:
        with self._write_lock:
            if self._writer is None:
                why = "it was opened read-only" if self.read_only else "it is closed"
                done.set_exception(InputError(f"the response store {self.path} cannot be written: {why}"))
            else:
                self._writer.put(work, done)


def _totals(connection: sqlite3.Connection) -> Totals:
    own = f"FROM attempts WHERE owner != '{LOADED}'"
    attempts, unread, prompt, completion = connection.execute(
        f"SELECT count(*), coalesce(sum(outcome = ''), 0), coalesce(sum(prompt_tokens), 0),"
        f" coalesce(sum(completion_tokens), 0) {own}"
    ).fetchone()
    costs = connection.execute(f"SELECT cost, count(*) {own} AND cost IS NOT NULL GROUP BY cost")
    cost = sum((Decimal(each) * count for each, count in costs), Decimal(0))
    counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("requests", "answers")]
    return Totals(counts[0], attempts, counts[1], unread, prompt, completion, cost)
