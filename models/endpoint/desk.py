"""The desk of one endpoint: prompts come in from any thread, are begun in order, and leave as completions."""

import asyncio
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from models.endpoint import ledger
from models.endpoint.answers import failed
from models.endpoint.asker import Asker, Caching
from models.endpoint.budget import Budget
from models.endpoint.life import Clock, Dropped, Life
from models.endpoint.probe import Capabilities, Unprobed, probe, stated_context
from models.endpoint.progress import Progress, Tally
from models.endpoint.retries import Retry
from models.endpoint.sender import Sender, Wanted
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.endpoint.wire import Mode, WireRequest, wire_request
from models.protocol import Completion, Prompt

AHEAD = 4  # rows under way per request at once: the store commits while the endpoint works
RESTING = 1024  # rows that may wait for time to pass beside them


@dataclass(slots=True)
class Row:
    prompt: Prompt
    future: "Future[Completion]"

    def wanted(self) -> bool:
        return not self.future.cancelled()


class Desk:
    """Serves rows on one event loop, which must run when it is made; only `take` may be called from other threads."""

    def __init__(
        self,
        spec: EndpointSpec,
        store: ResponseStore,
        budget: Budget | None,
        retry: Retry,
        caching: Caching,
        rng: np.random.Generator,
        clock: Clock,
    ) -> None:
        self.spec = spec
        self.tally = Tally()
        self.life = Life(store, clock)
        self.sender = Sender(spec, budget, self.life, self.tally)
        self.asker = Asker(self.sender, retry, caching, rng)
        self.life.rested = self._begin
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Row] = deque()
        self._called = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heart = self._loop.create_task(self.life.keep_leases())
        self._capabilities: Capabilities | None = None
        self.probed: list[str] = []
        self._probing = asyncio.Lock()

    def take(self, row: Row) -> None:
        """Put `row` at the end of those that wait; from any thread."""
        self._waiting.append(row)
        if not self._called:  # one call begins all that came before it runs
            self._called = True
            self._loop.call_soon_threadsafe(self._call)

    def progress(self) -> Progress:
        tally = self.tally
        return Progress(
            tally.requests,
            tally.cached,
            len(self._waiting) + len(self._tasks) - tally.in_flight,
            tally.in_flight,
            dict(tally.outcomes),
            dict(tally.flags),
            tally.prompt_tokens,
            tally.completion_tokens,
            tally.cost if self.spec.prices else None,
            int(self.sender.gate.limit),
        )

    async def capabilities(self) -> Capabilities:
        """What the endpoint can do: from the store, else by a probe. Raises `Unprobed` where it does not answer."""
        async with self._probing:
            if self._capabilities is None:
                at, model = self.spec.at, self.spec.model
                kept = self.life.store.read(lambda connection: ledger.find_capabilities(connection, at, model))
                self._capabilities = Capabilities.from_json(kept) if kept else await self._probed()
            return self._capabilities

    async def close(self, drain_seconds: float) -> None:
        """Begin nothing more, let what has left come back, commit it, and give all leases back."""
        self.life.closing = True
        self._heart.cancel()
        while self._waiting:
            self._waiting.popleft().future.cancel()
        for task in self._tasks - self.sender.sending:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=drain_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.sender.transport.close()
        store, owner = self.life.store, self.life.owner
        ledger.retire(owner)
        if not store.read_only:
            released = store.write_async(lambda connection: ledger.release(connection, owner))
            await asyncio.gather(released, return_exceptions=True)  # the rows have heard of a store that failed

    def _call(self) -> None:
        self._called = False
        self._begin()

    def _begin(self) -> None:
        """Begin rows while there is room for them."""
        room = AHEAD * self.spec.max_concurrency
        while (
            self._waiting
            and len(self._tasks) - len(self.life.resting) < room
            and len(self._tasks) < room + RESTING
            and not self.life.closing
        ):
            row = self._waiting.popleft()
            if row.wanted():
                task = self._loop.create_task(self._completion(row.prompt, row.wanted))
                self._tasks.add(task)
                task.add_done_callback(partial(self._ended, row))

    def _ended(self, row: Row, task: asyncio.Task[Completion]) -> None:
        """Hand what became of a row to whoever waits for it."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(error, Dropped):
            row.future.cancel()
        elif row.future.set_running_or_notify_cancel():
            if error is None:
                row.future.set_result(task.result())
            else:
                row.future.set_exception(error)
        self._begin()

    async def _completion(self, prompt: Prompt, wanted: Wanted) -> Completion:
        """The answer to `prompt`, with the endpoint's policy on replies that were cut."""
        try:
            mode = await self._mode(prompt)
        except Unprobed as error:
            return error.completion
        earlier: list[str] = []
        while True:
            completion = await self.asker.ask(self._request(prompt, mode), wanted)
            longer = min(2 * prompt.max_tokens, self.spec.length_cap)
            if completion.finish_reason != "length" or self.spec.length != "grow" or longer <= prompt.max_tokens:
                break
            earlier.append(completion.key)
            prompt = replace(prompt, max_tokens=longer)
        completion = replace(completion, earlier=tuple(earlier))
        if completion.finish_reason == "length" and (self.spec.length == "drop" or not completion.text.strip()):
            detail = f"cut after {prompt.max_tokens} tokens"
            return replace(failed("empty", detail, completion.key, completion.usage), earlier=completion.earlier)
        return completion

    def _request(self, prompt: Prompt, mode: Mode) -> WireRequest:
        return wire_request(self.spec, prompt, mode, self.spec.logprobs)

    async def _mode(self, prompt: Prompt) -> Mode:
        if prompt.schema is None:
            return ""
        return (await self.capabilities()).mode if self.spec.structured == "auto" else self.spec.structured

    async def _probe(self, request: WireRequest) -> Completion:
        self.probed.append(request.key)
        return await self.asker.ask(request, lambda: True, row=False)

    async def _probed(self) -> Capabilities:
        found = await probe(self.spec, self._probe)
        models = await self.sender.transport.get("/models")
        found = replace(found, max_context=stated_context(models.body or b"", self.spec.model))
        spec, value, server = self.spec, found.as_json(), self.sender.server
        await self.life.committed(
            lambda connection: ledger.keep_capabilities(connection, spec.at, spec.model, server, value)
        )
        return found
