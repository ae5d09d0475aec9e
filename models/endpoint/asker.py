"""One request from its key to its answer: the store first, then a lease, then tries until one is final."""

import asyncio
from typing import Literal, TypeAlias

import numpy as np

from models.endpoint import ledger
from models.endpoint.answers import PARSER, VERSION, failed, from_json
from models.endpoint.life import Dropped
from models.endpoint.outcomes import FINAL, Outcome, classify
from models.endpoint.retries import Retry
from models.endpoint.sender import Sender, Wanted
from models.endpoint.wire import WireRequest
from models.protocol import UNANSWERED, Completion

Caching: TypeAlias = Literal["use", "only", "refresh"]
HELD_S = 0.2  # between looks at a request that another process is asking
FIRST_ROWS = 50
BAD_ROWS = 10  # a fifth of the first rows: where more are refused, the fault is in what all have in common


class Asker:
    """Asks one endpoint for answers, each key once. Belongs to one event loop."""

    def __init__(self, sender: Sender, retry: Retry, caching: Caching, rng: np.random.Generator) -> None:
        self.sender, self.retry, self.caching, self.rng = sender, retry, caching, rng
        self.life, self.tally, self.store = sender.life, sender.tally, sender.life.store
        self._running: dict[str, asyncio.Future[Completion]] = {}
        self._rows = self._bad = 0

    async def ask(self, request: WireRequest, wanted: Wanted, row: bool = True) -> Completion:
        """The answer to `request`, from whoever asks it already or asked it before; else it is sent.

        Raises `Dropped` where it is no longer `wanted` before it leaves, and what stopped the endpoint. A `row` counts
        towards the first rows, whose refusals stop the endpoint; a probe does not.
        """
        while (running := self._running.get(request.key)) is not None:
            try:
                return await asyncio.shield(running)
            except Dropped:
                continue
        shared = self._running[request.key] = asyncio.get_running_loop().create_future()
        try:
            completion = await self._answer(request, wanted)
            if row:
                self._count(completion)
            shared.set_result(completion)
            return completion
        except asyncio.CancelledError:
            shared.cancel()
            raise
        except BaseException as error:
            shared.set_exception(error)
            shared.exception()  # it is raised here; others need not be there to hear it
            raise
        finally:
            del self._running[request.key]

    async def _answer(self, request: WireRequest, wanted: Wanted) -> Completion:
        if (kept := await self._kept(request)) is not None:
            return kept
        if self.caching == "only":
            return failed("unreachable", "not in the response store, and nothing may be asked", request.key)
        while (claim := await self._claimed(request)) == "held":
            if not wanted():
                raise Dropped
            await self.life.rest(HELD_S)
        if claim == "answered" and (kept := await self._kept(request)) is not None:
            return kept
        completion: Completion | None = None
        try:
            completion = await self._tries(request, wanted)
            return completion
        finally:
            if completion is None or completion.failure in UNANSWERED:  # an answer gave its lease back when it was kept
                self.life.note(lambda connection: ledger.release(connection, self.life.owner, request.key))

    async def _claimed(self, request: WireRequest) -> ledger.Claim:
        self.life.check()
        again = self.caching == "refresh"
        return await self.life.committed(
            lambda connection: ledger.claim(connection, request.key, self.life.owner, again)
        )

    async def _kept(self, request: WireRequest) -> Completion | None:
        """The answer in the store. One that came but was not read, or was read by another parser, is read now."""
        kept = self.store.find(request.key, PARSER, VERSION)
        if kept is None or (self.caching == "refresh" and kept.owner != self.life.owner):
            return None
        if kept.parsed is not None:
            self.tally.cached += 1
            return from_json(kept.parsed, request.key)
        outcome = classify(kept.status, kept.headers, kept.body)
        final = kept.outcome != "" or outcome.kind in FINAL
        completion, _ = await self.sender.settle(request, kept.attempt, outcome, final, ours=False)
        self.tally.cached += final
        return completion if final else None

    async def _tries(self, request: WireRequest, wanted: Wanted) -> Completion:
        """Tries until one is final, or tries, time or budget are used up."""
        clock = self.life.clock.monotonic
        began, failures, anomalies, number = clock(), 0, 0, 0
        while True:
            number += 1
            tried = await self.sender.send(request, number, wanted, last_anomaly=anomalies > 0)
            if tried is None:
                return failed("over_budget", "the rest of the budget is too small for this request", request.key)
            if tried.completion is not None:
                return tried.completion
            outcome = tried.outcome
            if outcome.kind == "fatal":
                raise self.sender.halt(outcome.detail)
            if outcome.kind == "too_long" or outcome.kind == "bad_request":
                return failed(outcome.kind, outcome.detail, request.key)
            anomalies += outcome.kind in ("anomaly", "foreign")
            if outcome.kind == "foreign" and anomalies > 1:
                self._bad += 1
                return self._given_up(request, outcome, number, tried.unmet)
            failures += outcome.kind == "transient"
            wait = self.retry.wait(number, float(self.rng.random()), outcome.wait)
            if failures >= self.retry.tries or clock() - began + wait > self.retry.seconds:
                return self._given_up(request, outcome, number, tried.unmet)
            await self.life.rest(wait)

    def _given_up(self, request: WireRequest, outcome: Outcome, tries: int, unmet: bool) -> Completion:
        if unmet and not self.sender.heard:
            raise self.sender.halt(f"{outcome.detail}; start the server, or mend base_url")
        return failed("unreachable", f"after {tries} tries: {outcome.detail}", request.key)

    def _count(self, completion: Completion) -> None:
        """Stop the endpoint where too many of the first rows are refused."""
        self._rows += 1
        self._bad += completion.failure == "bad_request"
        if self._bad > BAD_ROWS and self._rows <= FIRST_ROWS:
            self.sender.halt(
                f"{self._bad} of the first {self._rows} requests were refused or answered by no model, the last with: "
                f"{completion.detail}; mend what they have in common, then run again"
            )
