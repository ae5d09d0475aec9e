"""How fast an endpoint is asked: requests at once, requests and tokens a minute."""

import asyncio
from collections import deque
from collections.abc import Callable

WINDOW = 64  # replies whose latencies are looked at together
SLOW = 3.0  # times the best window's latency that count as overload
FORGET = 1.02  # by how much the best latency fades per window, so that an endpoint that has become slower is accepted


class Gate:
    """Requests at once: additive increase, multiplicative decrease between `low` and `high`, `high` to begin with.

    Throttling halves the limit, once for all requests that were under way together; a window of replies whose 95th
    percentile of latency is `SLOW` times the best window's lowers it by a tenth; each reply raises it by 1 / limit
    while it is used up. Belongs to one event loop; first come, first served.
    """

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.limit = float(high)
        self.inside = 0
        self._entered = 0
        self._changed_at = 0  # how many had entered when the limit was last lowered
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._latencies: list[float] = []
        self._best: float | None = None

    async def enter(self) -> int:
        """Wait for room; returns the number of this entry, which `throttled` takes."""
        if self.inside >= int(self.limit) or self._waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._admit()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # admitted and cancelled at once
                    self.leave()
                raise
        else:
            self.inside += 1
        self._entered += 1
        return self._entered

    def leave(self) -> None:
        self.inside -= 1
        self._admit()

    def answered(self, seconds: float) -> None:
        """A reply came after `seconds`."""
        if self.inside >= int(self.limit) - 1:
            self.limit = min(float(self.high), self.limit + 1 / self.limit)
            self._admit()
        self._latencies.append(seconds)
        if len(self._latencies) == WINDOW:
            self._judge(sorted(self._latencies)[int(0.95 * WINDOW)])
            self._latencies.clear()

    def throttled(self, entry: int) -> None:
        """The request of `entry` was told to slow down, or timed out."""
        if entry > self._changed_at:
            self._lower(0.5)

    def _judge(self, p95: float) -> None:
        if self._best is not None and p95 > SLOW * self._best:
            self._lower(0.9)
        self._best = p95 if self._best is None else min(p95, FORGET * self._best)

    def _lower(self, factor: float) -> None:
        self.limit = max(float(self.low), self.limit * factor)
        self._changed_at = self._entered

    def _admit(self) -> None:
        while self._waiting and self.inside < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.inside += 1


class Bucket:
    """So many units a minute, by a bucket that holds one second's worth (at least one unit).

    More than it holds may be taken at once and is owed, so any minute sees at most a second's worth above the rate and
    the last thing taken.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self.rate = per_minute / 60
        self.size = max(1.0, self.rate)
        self.clock = clock
        self._level = self.size
        self._at = clock()

    def take(self, units: float) -> float:
        """Take `units`; returns the seconds to wait before using them."""
        self._fill()
        wait = max(0.0, min(units, self.size) - self._level) / self.rate
        self._level -= units
        return wait

    def give(self, units: float) -> None:
        """Give back what was not used; less than none: what was used beyond it."""
        self._fill()
        self._level = min(self.size, self._level + units)

    def _fill(self) -> None:
        now = self.clock()
        self._level = min(self.size, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
