"""A language model behind an OpenAI-compatible server: every reply is kept, every request ends in a stated outcome."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from threading import Lock, Semaphore, Thread
from types import TracebackType
from typing import Any, TypeVar, get_args

import numpy as np

from models.endpoint.asker import Caching
from models.endpoint.budget import Budget
from models.endpoint.desk import AHEAD, Desk, Row
from models.endpoint.life import Clock
from models.endpoint.probe import Capabilities, Unprobed
from models.endpoint.progress import Progress
from models.endpoint.retries import Retry
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.protocol import Completion, Measures, Prompt, Want
from warehouse.errors import InputError
from warehouse.records import Messages

T = TypeVar("T")
DRAIN_S = 30.0


class EndpointModel:
    """Implements `LanguageModel` and `Submits` over one endpoint, with an event loop in a thread of its own.

    `caching` is "use" (what is in `store` is not asked again), "only" (nothing is asked: what is not there is
    "unreachable") or "refresh" (what this model has not asked itself is asked again). `seed` is of the waits between
    tries. No connection is made before the first prompt that the store has no answer to. May be called from any
    thread of the process that made it. The store stays open when the model is closed.

    What happens to a prompt is in its `Completion`. A future raises only where nothing can go on: `EndpointDown` (all
    that waits fails with it, what the store has is still answered), the error of a store that cannot be written, or
    `CancelledError` for what had not left when the model was closed.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        store: ResponseStore,
        budget: Budget | None = None,
        retry: Retry | None = None,
        caching: Caching = "use",
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        if caching not in get_args(Caching):
            raise InputError(f"unknown caching {caching!r}; known: {', '.join(get_args(Caching))}")
        if budget is not None and budget.usd is not None and spec.prices is None:
            raise InputError(
                f"endpoint {spec.name} has no prices, so a budget in USD cannot be kept; add [{spec.name}.prices] with "
                "input and output per million tokens (0 for a server of your own), or give the budget in tokens"
            )
        self.spec, self.store = spec, store
        self._make: Callable[[], Desk] = lambda: Desk(
            spec, store, budget, retry or Retry(), caching, np.random.default_rng(seed), clock or Clock()
        )
        self._lock = Lock()
        self._desk: Desk | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._closed = False

    def __enter__(self) -> "EndpointModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint

    def submit(self, prompt: Prompt) -> "Future[Completion]":
        """The completion of `prompt`, when it is there. A future that is cancelled in time is not asked for."""
        future: Future[Completion] = Future()
        self._started().take(Row(prompt, future))
        return future

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """The completions of `prompts`, in order; as many are under way as the endpoint allows."""
        room = Semaphore(2 * AHEAD * self.spec.max_concurrency)
        found: list[Completion | None] = [None] * len(prompts)
        waiting: dict[int, Future[Completion]] = {}
        try:
            for number, prompt in enumerate(prompts):
                room.acquire()
                future = waiting[number] = self.submit(prompt)
                future.add_done_callback(lambda _: room.release())
                _collect(waiting, found)
            for number in list(waiting):
                found[number] = waiting[number].result()
        finally:
            for future in waiting.values():
                future.cancel()
        return [completion for completion in found if completion is not None]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        """Raises `InputError`: an endpoint gives no log-probabilities of a given text."""
        raise InputError(
            f"endpoint {self.spec.name} gives no log-probabilities of a given text and no hidden states; "
            "measure with a model on this machine, such as winnow-tiny"
        )

    def progress(self) -> Progress:
        """How far this model has come; also after it was closed."""
        return (self._desk or self._started()).progress()

    def probed(self) -> list[str]:
        """The keys of the requests that found out, since this was made, what the endpoint can do."""
        return list(self._desk.probed) if self._desk is not None else []

    def capabilities(self) -> Capabilities:
        """What the endpoint can do; asked at the first call and kept in the store.

        Raises `InputError` where it does not answer.
        """
        desk = self._started()
        try:
            return self._within(desk.capabilities())
        except Unprobed as error:
            raise InputError(f"endpoint {self.spec.name} could not be asked what it can do: {error}") from error

    def require(self, *names: str) -> None:
        """Raise `InputError` where the endpoint lacks one of the capabilities `names` ("logprobs", "stop", ...)."""
        self.capabilities().require(names, self.spec.name)

    def close(self, drain_seconds: float = DRAIN_S) -> None:
        """Send nothing more, wait at most `drain_seconds` for what has left, keep it, and give leases back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            desk = self._desk
        if desk is not None and self._loop is not None and self._thread is not None:
            self._within(desk.close(drain_seconds))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _started(self) -> Desk:
        """The desk, whose thread is started by the first who needs it."""
        if (desk := self._desk) is not None and not self._closed:
            return desk
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the model of endpoint {self.spec.name} is closed")
            if self._desk is None:
                ready: Future[Desk] = Future()
                self._thread = Thread(target=self._run, args=(ready,), name=f"endpoint {self.spec.name}", daemon=True)
                self._thread.start()
                self._desk = ready.result()
            return self._desk

    def _run(self, ready: "Future[Desk]") -> None:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            self._loop = loop
            try:
                ready.set_result(loop.run_until_complete(_made(self._make)))
            except BaseException as error:
                ready.set_exception(error)
                raise
            loop.run_forever()

    def _within(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None  # there is a desk
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _made(make: Callable[[], Desk]) -> Desk:
    return make()


def _collect(waiting: dict[int, "Future[Completion]"], found: list[Completion | None]) -> None:
    """Move what is done at the front of `waiting` to `found`."""
    while waiting and (first := next(iter(waiting))) is not None and waiting[first].done():
        found[first] = waiting.pop(first).result()
