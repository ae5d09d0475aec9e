"""Advancing dialogues: who is asked what and when, and where the answers go.

A model that answers one prompt at a time (`Submits`: an endpoint) is asked as soon as a dialogue asks, so no dialogue
waits for the slowest of its neighbours. Any other model is asked in batches: once all dialogues wait, in one call per
role and kind of request.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from models.dialogue import (
    WAVE,
    Accepted,
    Complete,
    Dialogue,
    Embed,
    Emit,
    Many,
    Rejected,
    Reply,
    Request,
    Score,
    Verify,
)
from models.protocol import Completion, Encoder, LanguageModel, Submits, Verifier, Want
from warehouse.errors import InputError

T = TypeVar("T")
Result = TypeVar("Result")
BEAT_S = 1.0
Place: TypeAlias = tuple[int, ...]
Take: TypeAlias = Callable[[Place, Sequence[Accepted | Rejected], Sequence[str]], None]


def converse(
    dialogues: Iterable[Dialogue[Result]],
    models: Mapping[str, LanguageModel],
    encoders: Mapping[str, Encoder] | None = None,
    emit: Take | None = None,
    wave: int = WAVE,
    verifiers: Mapping[str, Verifier] | None = None,
    beat: Callable[[], None] | None = None,
    listen: Callable[[Completion], None] | None = None,
) -> list[Result]:
    """Advance many dialogues together and return their results in order.

    At most `wave` dialogues live at once, and a new one starts where one has ended. `emit` takes finished rows as soon
    as they are handed out, with their place and the keys of the replies that their dialogue, or one inside it that
    ended without rows, heard since rows were last handed out. Places are in the order of the dialogues and of their
    rows, however the answers came in. Raises `InputError` for a role that no model was given for; an error inside a
    dialogue carries a note with that dialogue's number. `beat` is called before each step and while nothing comes, at
    least every `BEAT_S` seconds; what it raises ends the conversation. `listen` is told every completion.
    """
    conversation = _Conversation(models, encoders or {}, verifiers or {}, emit, beat or _nothing, listen)
    found: list[list[Result]] = []
    try:
        conversation.run(_Group((), enumerate(dialogues), wave, found.append, []))
    finally:
        conversation.close()
    return found[0]


class Collected:
    """Takes what dialogues hand out and gives it back in the order of its places."""

    def __init__(self) -> None:
        self._parts: list[tuple[Place, Sequence[Accepted | Rejected], Sequence[str]]] = []

    def __call__(self, place: Place, rows: Sequence[Accepted | Rejected], heard: Sequence[str]) -> None:
        self._parts.append((place, rows, heard))

    def rows(self) -> list[Accepted | Rejected]:
        return [row for row, _ in self.heard()]

    def heard(self) -> list[tuple[Accepted | Rejected, Sequence[str]]]:
        """Every row with the keys of the replies behind it."""
        parts = sorted(self._parts, key=lambda part: part[0])
        return [(row, heard) for _, rows, heard in parts for row in rows]


@dataclass(slots=True)
class _Group:
    """Dialogues that live beside each other; `answer` takes their results, in order, when the last has ended."""

    place: Place
    waiting: Iterator[tuple[int, Dialogue[Any]]]
    wave: int
    answer: Callable[[list[Any]], None]
    heard: list[str]  # takes what its dialogues heard and handed out with no row
    alive: int = 0
    results: dict[int, Any] = field(default_factory=dict)
    answered: bool = False
    silent: dict[int, list[str]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Living:
    """A dialogue that waits for `missing` of its `replies`; `given` counts the rows and groups it handed out."""

    group: _Group
    number: int
    dialogue: Dialogue[Any]
    replies: list[Reply] | None = None
    missing: int = 0
    given: int = 0
    heard: list[str] = field(default_factory=list)

    @property
    def place(self) -> Place:
        return (*self.group.place, self.number)

    def listen(self) -> None:
        """Note the keys of its replies, in the order it asked."""
        for reply in self.replies or ():
            if isinstance(reply, Completion) and reply.key:
                self.heard += [*reply.earlier, reply.key]

    def next_place(self) -> Place:
        self.given += 1
        return (*self.place, self.given)


Slot: TypeAlias = tuple[_Living, int]


class _Conversation:
    """All that is alive: `ready` has its replies, `batches` waits to be asked for, `outside` is asked already."""

    def __init__(
        self,
        models: Mapping[str, LanguageModel],
        encoders: Mapping[str, Encoder],
        verifiers: Mapping[str, Verifier],
        emit: Take | None,
        beat: Callable[[], None],
        listen: Callable[[Completion], None] | None,
    ) -> None:
        self.listen = listen
        self.models, self.encoders, self.verifiers, self.emit, self.beat = models, encoders, verifiers, emit, beat
        self.living: dict[_Living, None] = {}
        self.ready: deque[_Living] = deque()
        self.roomy: deque[_Group] = deque()
        self.batches: dict[tuple[type, str], list[tuple[Slot, Request]]] = {}
        self.outside: dict[Future[Completion], Slot] = {}
        self.done: SimpleQueue[Future[Completion]] = SimpleQueue()

    def run(self, group: _Group) -> None:
        self.roomy.append(group)
        while self.ready or self.roomy or self.batches or self.outside:
            self.beat()
            if self.ready:
                self._advance(self.ready.popleft())
            elif self.roomy:
                self._start(self.roomy.popleft())
            elif self.batches:
                self._ask()
            else:
                self._receive()

    def close(self) -> None:
        for future in self.outside:
            future.cancel()
        for one in reversed(self.living):
            one.dialogue.close()

    def _start(self, group: _Group) -> None:
        while group.alive < group.wave and (following := next(group.waiting, None)) is not None:
            one = _Living(group, *following)
            group.alive += 1
            self.living[one] = None
            self._advance(one)
        if not group.alive and not group.answered:
            group.answered = True
            group.heard += [key for number in sorted(group.silent) for key in group.silent[number]]
            group.answer([group.results[number] for number in range(len(group.results))])

    def _advance(self, one: _Living) -> None:
        """Send `one` its replies (None starts it) and take its next requests, or its result."""
        one.listen()
        try:
            requests = next(one.dialogue) if one.replies is None else one.dialogue.send(one.replies)
        except StopIteration as end:
            self._end(one, end.value)
            return
        except BaseException as error:
            del self.living[one]
            error.add_note(f"in dialogue {'.'.join(map(str, one.place))}")
            raise
        one.replies, one.missing = [None] * len(requests), len(requests)
        for request in requests:  # rows first: what is finished is kept whatever comes of the rest
            if isinstance(request, Emit):
                self._hand_out(one, request)
        for number, request in enumerate(requests):
            self._take((one, number), request)
        if not one.missing:
            self.ready.append(one)

    def _end(self, one: _Living, result: object) -> None:
        del self.living[one]
        one.group.results[one.number] = result
        one.group.silent[one.number] = one.heard
        one.group.alive -= 1
        self.roomy.append(one.group)

    def _hand_out(self, one: _Living, request: Emit) -> None:
        if self.emit is None:
            raise ValueError("a dialogue emits rows, but nothing was given that takes them (emit=...)")
        self.emit(one.next_place(), request.rows, tuple(one.heard))
        one.heard.clear()

    def _take(self, slot: Slot, request: Request) -> None:
        if isinstance(request, Emit):
            slot[0].missing -= 1
        elif isinstance(request, Many):
            waiting = enumerate(request.dialogues)
            one = slot[0]
            self.roomy.append(
                _Group(one.next_place(), waiting, request.wave, lambda found: self._reply(slot, found), one.heard)
            )
        elif isinstance(request, Complete) and isinstance(model := self.models.get(request.role), Submits):
            future = model.submit(request.prompt)
            self.outside[future] = slot
            future.add_done_callback(self.done.put)
        else:
            self.batches.setdefault((type(request), request.role), []).append((slot, request))

    def _reply(self, slot: Slot, reply: Reply) -> None:
        one, number = slot
        assert one.replies is not None  # it asked
        one.replies[number] = reply
        one.missing -= 1
        if self.listen is not None and isinstance(reply, Completion):
            self.listen(reply)
        if not one.missing:
            self.ready.append(one)

    def _ask(self) -> None:
        asked, self.batches = self.batches, {}
        for (_, role), batch in asked.items():
            replies = self._answers(role, [request for _, request in batch])
            for (slot, _), reply in zip(batch, replies, strict=True):
                self._reply(slot, reply)

    def _answers(self, role: str, requests: Sequence[Request]) -> Sequence[Reply]:
        """The replies to requests of one kind to one role."""
        if texts := [request.text for request in requests if isinstance(request, Embed)]:
            return list(_in_role(role, self.encoders, "encoder").embed(texts))
        if checks := [(request.reply, request.item) for request in requests if isinstance(request, Verify)]:
            return _in_role(role, self.verifiers, "verifier").verify(checks)
        model = _in_role(role, self.models, "model")
        if prompts := [request.prompt for request in requests if isinstance(request, Complete)]:
            return model.complete(prompts)
        rows = [request.messages for request in requests if isinstance(request, Score)]
        return model.measure(rows, frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs or []

    def _next(self) -> "Future[Completion]":
        while True:
            try:
                return self.done.get(timeout=BEAT_S)
            except Empty:
                self.beat()

    def _receive(self) -> None:
        """Wait for an answer from outside, and take all that have come."""
        future = self._next()
        while True:
            self._reply(self.outside.pop(future), future.result())
            if self.done.empty():
                return
            future = self.done.get()


def _nothing() -> None:
    """Nobody watches."""


def _in_role(role: str, given: Mapping[str, T], kind: str) -> T:
    if role not in given:
        known = ", ".join(sorted(given)) or "none"
        raise InputError(f"a dialogue asks the {kind} in role {role!r}, but none was given; given roles: {known}")
    return given[role]
