"""Dialogues: generators that yield requests to models by role and are sent the replies.

Synthesizers and evaluation tasks are dialogues, so neither knows which model answers, how requests are batched or what
is cached. `models.converse` advances them.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from models.protocol import Prompt
from warehouse.records import Example, Messages

T = TypeVar("T")
Result = TypeVar("Result")
WAVE = 1024  # dialogues alive at once


@dataclass(frozen=True, slots=True)
class Complete:
    """Ask the model in `role` ("generator", "judge", "tuned", ...) for one reply; answered by a `Completion`."""

    role: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Score:
    """Ask for the log-probability of each assistant token of `messages`; answered by a float32 array."""

    role: str
    messages: Messages


@dataclass(frozen=True, slots=True)
class Embed:
    """Ask for the embedding of `text`; answered by a (d,) float32 array."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask whether `reply` answers `item`, which holds the reference; answered by a `Verdict`."""

    role: str
    reply: str
    item: Example


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finished row."""

    example: Example


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not kept, with a reason from the closed list of its synthesizer or filter."""

    reason: str
    detail: str = ""
    example: Example | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand finished rows out as they are made, so that a crash keeps them; answered by None."""

    rows: tuple[Accepted | Rejected, ...]


@dataclass(frozen=True, slots=True)
class Many:
    """Advance these dialogues beside each other, at most `wave` at once; answered by their results, in order."""

    dialogues: Iterable["Dialogue[Any]"]
    wave: int = WAVE


Request: TypeAlias = Complete | Score | Embed | Verify | Emit | Many
Reply: TypeAlias = Any  # as the request says: Completion, float32 array, Verdict, list of results, None
Dialogue: TypeAlias = Generator[list[Request], list[Reply], Result]


def each(items: Iterable[T], per_item: Callable[[T], Dialogue[Result]], wave: int = WAVE) -> Dialogue[list[Result]]:
    """One small dialogue per item, advanced together inside one job: `results = yield from each(seeds, per_seed)`.

    Where an item needs randomness of its own, give `zip(seeds, rng.spawn(len(seeds)))`: order then changes nothing.
    """
    [results] = yield [Many((per_item(item) for item in items), wave)]
    found: list[Result] = results
    return found
