"""Dialogues: generators that yield requests to models by role and are sent the replies.

Synthesizers and evaluation tasks are dialogues, so neither knows which model answers, how requests are batched or what
is cached. `converse` advances many of them together, one round of requests at a time.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.protocol import Completion, Encoder, LanguageModel, Prompt, Want
from warehouse.errors import InputError
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


Request: TypeAlias = Complete | Score | Embed | Emit
Reply: TypeAlias = Completion | NDArray[np.float32] | None
Dialogue: TypeAlias = Generator[list[Request], list[Reply], Result]


def converse(
    dialogues: Iterable[Dialogue[Result]],
    models: Mapping[str, LanguageModel],
    encoders: Mapping[str, Encoder] | None = None,
    emit: Callable[[Sequence[Accepted | Rejected]], None] | None = None,
    wave: int = WAVE,
) -> list[Result]:
    """Advance many dialogues together and return their results in order.

    Each round sends the pending requests of all living dialogues to their models, one call per role and kind; at most
    `wave` dialogues live at once, and a new one starts where one has ended. `emit` takes finished rows before any model
    of that round is called, so that a crash keeps them. Raises `InputError` for a role that no model was given for;
    an error inside a dialogue carries a note with that dialogue's number.
    """
    job = together(dialogues, wave)
    try:
        requests = next(job)
        while True:
            requests = job.send(_answer(requests, models, encoders or {}, emit))
    except StopIteration as end:
        results: list[Result] = end.value
        return results
    finally:
        job.close()


def each(items: Iterable[T], per_item: Callable[[T], Dialogue[Result]], wave: int = WAVE) -> Dialogue[list[Result]]:
    """One small dialogue per item, advanced together inside one job: `results = yield from each(seeds, per_seed)`.

    Where an item needs randomness of its own, give `zip(seeds, rng.spawn(len(seeds)))`: order then changes nothing.
    """
    return together((per_item(item) for item in items), wave)


def together(dialogues: Iterable[Dialogue[Result]], wave: int = WAVE) -> Dialogue[list[Result]]:
    """Many dialogues as one: each of its rounds holds the requests of all that are alive, in order."""
    waiting = enumerate(dialogues)
    results: dict[int, Result] = {}
    living: list[_Living[Result]] = []
    try:
        while True:
            living += _started(waiting, wave - len(living), results)
            if not living:
                return [results[i] for i in range(len(results))]
            replies = iter((yield [request for one in living for request in one.requests]))
            living = [one for one in living if one.advance(list(islice(replies, len(one.requests))), results)]
    finally:
        for one in living:
            one.dialogue.close()


@dataclass(slots=True)
class _Living(Generic[Result]):
    """A dialogue that waits for the replies to its `requests`."""

    number: int
    dialogue: Dialogue[Result]
    requests: list[Request]

    def advance(self, replies: list[Reply] | None, results: dict[int, Result]) -> bool:
        """Send the replies (None starts the dialogue); False, and a result, where that was its end."""
        try:
            self.requests = next(self.dialogue) if replies is None else self.dialogue.send(replies)
        except StopIteration as end:
            results[self.number] = end.value
            return False
        except BaseException as error:
            error.add_note(f"in dialogue {self.number}")
            raise
        return True


def _started(
    waiting: Iterator[tuple[int, Dialogue[Result]]], room: int, results: dict[int, Result]
) -> Iterator[_Living[Result]]:
    """Start dialogues until `room` of them wait for a reply; those that end without asking take no room."""
    while room > 0 and (following := next(waiting, None)) is not None:
        one = _Living(*following, [])
        if one.advance(None, results):
            room -= 1
            yield one


def _answer(
    requests: Sequence[Request],
    models: Mapping[str, LanguageModel],
    encoders: Mapping[str, Encoder],
    emit: Callable[[Sequence[Accepted | Rejected]], None] | None,
) -> list[Reply]:
    replies: list[Reply] = [None] * len(requests)
    places: dict[tuple[type, str], list[int]] = {}
    for place, request in enumerate(requests):
        if isinstance(request, Emit):
            _hand_out(request, emit)
        else:
            places.setdefault((type(request), request.role), []).append(place)
    for (_, role), group in places.items():
        for place, reply in zip(group, _ask(role, [requests[i] for i in group], models, encoders), strict=True):
            replies[place] = reply
    return replies


def _hand_out(request: Emit, emit: Callable[[Sequence[Accepted | Rejected]], None] | None) -> None:
    if emit is None:
        raise ValueError("a dialogue emits rows, but nothing was given that takes them (emit=...)")
    emit(request.rows)


def _ask(
    role: str, requests: Sequence[Request], models: Mapping[str, LanguageModel], encoders: Mapping[str, Encoder]
) -> Sequence[Reply]:
    """The replies to requests of one kind to one role."""
    if texts := [request.text for request in requests if isinstance(request, Embed)]:
        return list(_in_role(role, encoders, "encoder").embed(texts))
    model = _in_role(role, models, "model")
    if prompts := [request.prompt for request in requests if isinstance(request, Complete)]:
        return model.complete(prompts)
    rows = [request.messages for request in requests if isinstance(request, Score)]
    return model.measure(rows, frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs or []


def _in_role(role: str, given: Mapping[str, T], kind: str) -> T:
    if role not in given:
        known = ", ".join(sorted(given)) or "none"
        raise InputError(f"a dialogue asks the {kind} in role {role!r}, but none was given; given roles: {known}")
    return given[role]
