"""The one thread of a process that writes to a response store: work of many requests shares a commit."""

import asyncio
import contextlib
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias, TypeVar

from models.endpoint.tables import explained

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]
Done: TypeAlias = Future[Any] | asyncio.Future[Any]
Piece: TypeAlias = tuple[Work[Any], Done]
End: TypeAlias = tuple[Done, Any, Exception | None]

GROUP = 150  # pieces of work in one commit: three make a result
LINGER_S = 0.005  # how long the first of them waits for others, where there were others before


class Writer:
    """Commits pieces of work in the order in which they came, and tells those who wait once it is done."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection, self.path = connection, path
        self._queue: SimpleQueue[Piece | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=f"responses {path.name}", daemon=True)
        self._thread.start()

    def put(self, work: Work[Any], done: Done) -> None:
        """Do `work` in a transaction; `done` gets its result when it is committed, or what went wrong."""
        self._queue.put((work, done))

    def close(self) -> None:
        """Commit what waits."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        crowded = False
        while (one := self._queue.get()) is not None:
            if crowded:
                time.sleep(LINGER_S)
            group = [one]
            while one is not None and len(group) < GROUP and not self._queue.empty():
                if (one := self._queue.get()) is not None:
                    group.append(one)
            _tell(self._committed(group))
            if one is None:
                return
            crowded = len(group) > 1

    def _committed(self, group: Sequence[Piece]) -> list[End]:
        """One transaction for the group; where a piece of work fails, one for each, so that it fails alone."""
        try:
            results = self._transact([work for work, _ in group])
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:  # what SQLite raises for work and values
            if len(group) > 1:
                return [end for one in group for end in self._committed([one])]
            [(_, done)] = group
            return [(done, None, explained(error, self.path) if isinstance(error, sqlite3.Error) else error)]
        return [(done, result, None) for (_, done), result in zip(group, results, strict=True)]

    def _transact(self, group: Sequence[Work[Any]]) -> list[Any]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            results = [work(self.connection) for work in group]
            self.connection.execute("COMMIT")
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        return results


def _tell(ends: Sequence[End]) -> None:
    """Hand results to those who wait; an event loop is woken once for all of its own."""
    of_loops: dict[asyncio.AbstractEventLoop, list[End]] = defaultdict(list)
    here = list[End]()
    for end in ends:
        (of_loops[end[0].get_loop()] if isinstance(end[0], asyncio.Future) else here).append(end)
    _end(here)
    for loop, its in of_loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_end, its)


def _end(ends: Sequence[End]) -> None:
    for done, result, error in ends:
        if done.done():
            continue  # cancelled
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
