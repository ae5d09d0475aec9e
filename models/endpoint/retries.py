"""When a try that failed is made again."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
EPOCH = 1e9  # a number above is a point in time
EPOCH_MS = 1e12


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `tries` for faults of server and network, and `seconds` from a row's first try to the start of its last.

    The wait before try n + 1 is uniform in [0, min(cap, base 2ⁿ⁻¹)] ("full jitter", M. Brooker, Exponential Backoff
    And Jitter, 2015), or what the server asks for and up to `base` more. Throttled tries do not count as `tries`.
    """

    tries: int = 6
    seconds: float = 600.0
    base: float = 0.5
    cap: float = 60.0

    def __post_init__(self) -> None:
        if self.tries < 1 or not all(math.isfinite(s) and s >= 0 for s in (self.seconds, self.base, self.cap)):
            raise ValueError(f"a retry policy needs at least one try and times of at least 0; got {self}")

    def wait(self, failed: int, jitter: float, stated: float | None = None) -> float:
        """Seconds before the next try after `failed` failures; `jitter` in [0, 1), `stated` by the server."""
        if stated is not None:
            return stated + jitter * self.base
        return jitter * min(self.cap, self.base * 2.0 ** min(failed - 1, 60))


def stated_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds a server asks to wait, from `retry-after-ms`, `Retry-After` or `x-ratelimit-reset-*`; None: it does not.

    Names are in lower case; `now` is the wall clock. Of several limits those that are used up count, and of these the
    last to come back; where the server does not say which are used up, the first to come back.
    """
    if (ms := _number(headers.get("retry-after-ms", ""))) is not None:
        return ms / 1000
    if (after := headers.get("retry-after")) is not None:
        stated = _number(after)
        return _until(after, now) if stated is None else stated
    resets = {
        name.removeprefix("x-ratelimit-reset").removeprefix("-"): wait
        for name, value in headers.items()
        if name.startswith("x-ratelimit-reset") and (wait := _reset(value, now)) is not None
    }
    used_up = [wait for what, wait in resets.items() if headers.get(_remaining(what), "").strip() == "0"]
    return max(used_up) if used_up else min(resets.values(), default=None)


def _remaining(what: str) -> str:
    return f"x-ratelimit-remaining-{what}" if what else "x-ratelimit-remaining"


def _reset(value: str, now: float) -> float | None:
    """Seconds from "1m30s", "17ms", "2.5", a point in time in (milli)seconds or an ISO date."""
    text = value.strip()
    if (number := _number(text)) is not None:
        at = number / 1000 if number > EPOCH_MS else number
        return max(0.0, at - now) if at > EPOCH else at
    parts = DURATION.findall(text)
    if parts and "".join(f"{amount}{unit}" for amount, unit in parts) == text:
        return math.fsum(float(amount) * UNITS[unit] for amount, unit in parts)
    return _until(text, now)


def _number(text: str) -> float | None:
    """A plain number of at least 0."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*", text, re.ASCII)
    return float(found[1]) if found else None


def _until(text: str, now: float) -> float | None:
    """Seconds until a date, as mail or ISO 8601 writes it; 0 for one that has passed."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text.strip())
            return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    return None
