"""What a job may spend: reserved before a request leaves, settled when its reply is there."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Lock
from typing import Literal

from models.endpoint.prices import amount
from warehouse.errors import InputError

Grant = Literal["granted", "wait", "never"]


@dataclass(frozen=True, slots=True)
class Amount:
    """Money, tokens and requests: what one try may use, or what all have used."""

    usd: Decimal = Decimal(0)
    tokens: int = 0
    requests: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.usd + other.usd, self.tokens + other.tokens, self.requests + other.requests)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.usd - other.usd, self.tokens - other.tokens, self.requests - other.requests)


@dataclass(slots=True)
class Budget:
    """Limits on all that the models which share it spend; None is no limit. Safe to use from several threads.

    What is spent plus what is reserved never exceeds a limit at the moment of a reservation, so the end is over a limit
    by no more than replies exceed their reservations. `seconds` counts from the first reservation.
    """

    usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _spent: Amount = field(default=Amount(), init=False)
    _reserved: Amount = field(default=Amount(), init=False)
    _began: float | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        if self.usd is not None:
            self.usd = amount(self.usd, "budget usd")
        for name in ("tokens", "requests", "seconds"):
            limit = getattr(self, name)
            if limit is not None and not (limit >= 0 and math.isfinite(limit)):
                raise InputError(f"budget {name} is {limit!r}; give a number of at least 0, or leave it out")

    def reserve(self, most: Amount) -> Grant:
        """Reserve `most` where it fits; "wait": it may fit when others are settled; "never": it will not."""
        with self._lock:
            now = self.clock()
            began = now if self._began is None else self._began
            if self._over(self._spent + most) or (self.seconds is not None and now - began >= self.seconds):
                return "never"
            if self._over(self._spent + self._reserved + most):
                return "wait"
            self._began, self._reserved = began, self._reserved + most
            return "granted"

    def settle(self, most: Amount, used: Amount) -> None:
        """Give `most`, reserved before, back, and count what was `used`."""
        with self._lock:
            self._reserved -= most
            self._spent += used

    def spent(self) -> Amount:
        with self._lock:
            return self._spent

    def reserved(self) -> Amount:
        with self._lock:
            return self._reserved

    def _over(self, total: Amount) -> bool:
        return (
            (self.usd is not None and total.usd > self.usd)
            or (self.tokens is not None and total.tokens > self.tokens)
            or (self.requests is not None and total.requests > self.requests)
        )
