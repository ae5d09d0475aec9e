"""How far an endpoint has come: counters for whoever watches."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from models.endpoint.prices import Tokens


@dataclass(frozen=True, slots=True)
class Progress:
    """What an endpoint has done since it was made.

    `requests` HTTP tries that have left; `cached` rows answered from the store; `waiting` rows that are not under way;
    `in_flight` tries under way; `outcomes` tries by class; `flags` tries by oddity; `cost` USD of all tries (None: no
    prices are known); `limit` requests at once that are allowed now.
    """

    requests: int
    cached: int
    waiting: int
    in_flight: int
    outcomes: Mapping[str, int]
    flags: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    limit: int


@dataclass(slots=True)
class Tally:
    """The counters behind `Progress`; written by one thread."""

    requests: int = 0
    cached: int = 0
    rows: int = 0
    in_flight: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)

    def tried(self, outcome: str, flags: tuple[str, ...], tokens: Tokens, cost: Decimal | None) -> None:
        self.outcomes[outcome] += 1
        self.flags.update(flags)
        self.prompt_tokens += tokens.prompt
        self.completion_tokens += tokens.completion
        self.cost += cost or 0
