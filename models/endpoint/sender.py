"""One try: the budget, room at the gate, the rates; then the request leaves, and what comes back is kept and read."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from models.endpoint import ledger
from models.endpoint.answers import PARSER, VERSION, as_json, completed, spent
from models.endpoint.budget import Amount, Budget
from models.endpoint.life import Dropped, Life
from models.endpoint.outcomes import FINAL, EndpointDown, Outcome, classify
from models.endpoint.progress import Tally
from models.endpoint.rates import Bucket, Gate
from models.endpoint.spec import EndpointSpec
from models.endpoint.transport import Came, Transport
from models.endpoint.wire import WireRequest
from models.protocol import Completion

Wanted: TypeAlias = Callable[[], bool]
RESERVED_S = 0.02  # between looks at a budget that others have reserved


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a try; `completion` where it is final, `unmet` where nobody was there to answer."""

    outcome: Outcome
    completion: Completion | None
    unmet: bool


class Sender:
    """Sends requests to one endpoint, each once. Belongs to one event loop.

    `sending` are the tasks whose request has left and is not yet kept and read; `heard` says that the endpoint has
    answered anything at all, `server` what it calls itself.
    """

    def __init__(self, spec: EndpointSpec, budget: Budget | None, life: Life, tally: Tally) -> None:
        clock = life.clock.monotonic
        self.spec, self.budget, self.life, self.tally = spec, budget, life, tally
        self.transport = Transport(spec)
        self.gate = Gate(spec.min_concurrency, spec.max_concurrency)
        self.requests = Bucket(spec.requests_per_minute, clock) if spec.requests_per_minute else None
        self.tokens = Bucket(spec.tokens_per_minute, clock) if spec.tokens_per_minute else None
        # what has left and is in no commit yet is what a crash costs; from eight at once on half as many again may wait
        # for a commit, so that the disk does not hold a quick endpoint up
        self._unkept = asyncio.Semaphore(spec.max_concurrency + 4 * (spec.max_concurrency // 8))
        self._purse = asyncio.Lock()
        self.sending: set[asyncio.Task[Any] | None] = set()
        self.heard = False
        self.server = ""

    async def send(self, request: WireRequest, number: int, wanted: Wanted, last_anomaly: bool) -> Tried | None:
        """The `number`-th try; None where the budget allows none. With `last_anomaly` an empty reply is final.

        Raises `Dropped` where the request is no longer `wanted` before it leaves.
        """
        most = self._most(request)
        if not await self._reserved(most, wanted):
            return None
        task, used = asyncio.current_task(), None
        try:
            async with self._unkept:
                came, tried = await self._through_the_gate(request, number, wanted)
                attempt = await self.life.committed(lambda connection: ledger.receive(connection, tried))
            outcome = classify(came.status, came.headers, came.body or b"", came.error, self.life.clock.wall())
            final = outcome.kind in FINAL or (last_anomaly and outcome.kind == "anomaly")
            completion, used = await self.settle(request, attempt, outcome, final)
            if self.tokens is not None:
                self.tokens.give(_likely(request) - used.tokens)
            return Tried(outcome, completion if final else None, came.unmet)
        finally:
            left = Amount(requests=1 if task in self.sending else 0)
            self.sending.discard(task)
            if self.budget is not None:
                self.budget.settle(most, used or left)

    async def settle(
        self, request: WireRequest, attempt: int, outcome: Outcome, final: bool, ours: bool = True
    ) -> tuple[Completion, Amount]:
        """Note what a try was taken for; a `final` one becomes the answer. Those that are `ours` are in the tally."""
        tokens, flags = spent(request, outcome)
        cost = self.spec.prices.cost(tokens) if self.spec.prices else None
        served = outcome.reply.served_model if outcome.reply else ""
        judged = ledger.Judged(outcome.kind, outcome.detail, flags, served, tokens, None if cost is None else str(cost))
        completion = completed(outcome, tokens, request.key)
        if ours:
            self.tally.tried(outcome.kind, flags, tokens, cost)
        if not self.life.store.read_only:
            value, owner = as_json(completion) if final else None, self.life.owner
            await self.life.committed(
                lambda connection: _settled(connection, request.key, attempt, judged, value, owner)
            )
        return completion, Amount(cost or Decimal(0), tokens.total, 1)

    def halt(self, why: str) -> Exception:
        """Stop the endpoint for good; returns the one line that everybody is told."""
        spec = self.spec
        return self.life.stop(EndpointDown(f"endpoint {spec.name} ({spec.base_url}, model {spec.model}): {why}"))

    async def _reserved(self, most: Amount, wanted: Wanted) -> bool:
        """Reserve the worst case, first come, first served; False where it can no longer fit."""
        if self.budget is None:
            return True
        async with self._purse:
            while (grant := self.budget.reserve(most)) == "wait":
                if not wanted():
                    raise Dropped
                await self.life.rest(RESERVED_S)
        return grant == "granted"

    async def _through_the_gate(self, request: WireRequest, number: int, wanted: Wanted) -> tuple[Came, ledger.Try]:
        entry = await self.gate.enter()
        try:
            await self._paced(_likely(request))
            self.life.check()
            if not wanted():
                raise Dropped
            self.sending.add(asyncio.current_task())
            came, tried = await self._posted(request, number)
            self._weigh(came, tried.seconds, entry)
            return came, tried
        finally:
            self.gate.leave()

    async def _paced(self, tokens: int) -> None:
        """Wait until the rates allow one more request of so many tokens."""
        waits = [
            self.requests.take(1) if self.requests else 0.0,
            self.tokens.take(tokens) if self.tokens else 0.0,
        ]
        if (wait := max(waits)) > 0:
            await self.life.rest(wait)

    async def _posted(self, request: WireRequest, number: int) -> tuple[Came, ledger.Try]:
        clock = self.life.clock
        self.tally.requests += 1
        self.tally.in_flight += 1
        started, began = clock.wall(), clock.monotonic()
        try:
            came = await self.transport.post(request.payload)
        finally:
            self.tally.in_flight -= 1
        seconds = clock.monotonic() - began
        self.heard |= came.status is not None
        self.server = came.headers.get("server", self.server)
        tried = ledger.Try(
            request.key,
            request.canonical,
            number,
            self.life.owner,
            started,
            seconds,
            came.status,
            came.headers,
            came.body,
        )
        return came, tried

    def _weigh(self, came: Came, seconds: float, entry: int) -> None:
        """Let the gate know how the endpoint bears the load, and let nobody follow a request that was fatal."""
        if came.status == 429 or came.late:
            self.gate.throttled(entry)
        if came.status == 200:
            self.gate.answered(seconds)
        elif came.status is not None:
            outcome = classify(came.status, came.headers, came.body or b"")
            if outcome.kind == "fatal":
                self.halt(outcome.detail)

    def _most(self, request: WireRequest) -> Amount:
        """What one try can use at most."""
        prompt, completion = request.most_prompt_tokens, request.max_tokens
        usd = self.spec.prices.most(prompt, completion) if self.spec.prices else Decimal(0)
        return Amount(usd, prompt + completion, 1)


def _likely(request: WireRequest) -> int:
    return request.likely_prompt_tokens + request.max_tokens


def _settled(
    connection: sqlite3.Connection, key: str, attempt: int, judged: ledger.Judged, value: str | None, owner: str
) -> None:
    """Note what a try was taken for; with `value` it is the answer, and its lease is given back."""
    ledger.settle(connection, attempt, judged)
    if value is not None:
        ledger.answer(connection, key, attempt)
        ledger.keep_parsed(connection, key, PARSER, VERSION, value)
        ledger.release(connection, owner, key)
