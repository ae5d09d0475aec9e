"""What all requests of one endpoint share: the clock, the store's commits, and how everything ends."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from models.endpoint import ledger
from models.endpoint.store import ResponseStore

T = TypeVar("T")


class Dropped(Exception):
    """Nobody waits for this request any more."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the client sees it; tests give their own."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Life:
    """The life of one endpoint's client, on one event loop.

    `down` is what stopped it for good: then only the store answers. `closing` says that nothing more may leave.
    `rested` is called when a request begins to wait for time to pass, so that another can be begun. `owner` is this
    client's name on leases and tries.
    """

    def __init__(self, store: ResponseStore, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.owner = ledger.new_owner()
        self.down: Exception | None = None
        self.closing = False
        self.resting: set[asyncio.Task[Any]] = set()
        self.rested: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Raise what stopped the endpoint, where something did."""
        if self.closing:
            raise asyncio.CancelledError
        if self.down is not None:
            raise self.down

    def stop(self, error: Exception) -> Exception:
        """Let all requests that wait, and all later ones, fail with `error`; those that have left come to an end."""
        self.down = self.down or error
        for task in self.resting:
            task.cancel()
        return self.down

    async def rest(self, seconds: float) -> None:
        """Let time pass and others work. Raises what stops the endpoint meanwhile."""
        self.check()
        task = asyncio.current_task()
        assert task is not None  # it runs in one
        self.resting.add(task)
        self.rested()
        try:
            await self.clock.sleep(seconds)
        except asyncio.CancelledError:
            if self.down is None or self.closing:
                raise
            task.uncancel()
        finally:
            self.resting.discard(task)
        self.check()

    async def committed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` once it is in the store. A store that cannot be written stops everything."""
        try:
            return await self.store.write_async(work)
        except (OSError, ValueError) as error:
            raise self.stop(error) from error

    def note(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Let `work` be committed without waiting for it."""
        self.store.write_async(work).add_done_callback(self._noted)

    async def keep_leases(self) -> None:
        """Tell other processes that this one lives, until cancelled."""
        while not self.store.read_only:
            await asyncio.sleep(ledger.LEASE_S / 3)
            self.note(lambda connection: ledger.renew(connection, self.owner))

    def _noted(self, done: "asyncio.Future[object]") -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            self.stop(error)
