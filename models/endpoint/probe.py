"""What an endpoint can do, found out by asking it: servers accept fields that they ignore."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from models.endpoint.reply import loaded
from models.endpoint.spec import EndpointSpec
from models.endpoint.wire import Mode, WireRequest, wire_request
from models.protocol import UNANSWERED, Completion, Prompt
from warehouse.errors import InputError
from warehouse.records import Message, canonical

Ask: TypeAlias = Callable[[WireRequest], Awaitable[Completion]]
TOKENS = 24
STORY = (Message("user", "Write the first words of a story about something you choose at random."),)
COLOUR = (Message("user", "Name a colour. Answer in JSON."),)
MARK = "winnow_probe"  # a key that no reply holds unless its schema was enforced
SCHEMA = canonical(
    {
        "type": "object",
        "properties": {MARK: {"type": "string", "enum": ["yes"]}},
        "required": [MARK],
        "additionalProperties": False,
    }
)
CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an endpoint was seen to do with one model.

    `samples` two seeds at temperature 1 gave two texts; `seeded` one seed gave the same text twice; `json_schema` a
    schema was met that the prompt does not tell; `json_object` a JSON object came; `logprobs` came with a reply; `stop`
    a stop string ended one; `max_context` the tokens that the server states for a prompt and its reply, or None.
    """

    samples: bool
    seeded: bool
    json_schema: bool
    json_object: bool
    logprobs: bool
    stop: bool
    max_context: int | None = None

    def as_json(self) -> str:
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Capabilities":
        return cls(**json.loads(text))

    @property
    def mode(self) -> Mode:
        """The strictest way to send a schema."""
        return "json_schema" if self.json_schema else "json_object" if self.json_object else "prompt"

    def require(self, names: tuple[str, ...], endpoint: str) -> None:
        """Raise `InputError` unless all `names` are there."""
        found = asdict(self)
        if unknown := [name for name in names if name not in found]:
            raise InputError(f"unknown capability {', '.join(unknown)}; known: {', '.join(found)}")
        if missing := [name for name in names if not found[name]]:
            raise InputError(
                f"endpoint {endpoint} was asked and lacks {', '.join(missing)}; give another endpoint or method"
            )


class Unprobed(Exception):
    """A probe that got no answer; the completion says why."""

    def __init__(self, completion: Completion) -> None:
        super().__init__(f"{completion.failure}: {completion.detail}")
        self.completion = completion


async def probe(spec: EndpointSpec, ask: Ask) -> Capabilities:
    """Seven small requests. Raises `Unprobed` where the endpoint answers nothing.

    Sampling comes first: a server that batches continuously may keep the first temperature that it sees.
    """
    first = await _text(ask, _request(spec, STORY, seed=1))
    same = await _text(ask, replace(_request(spec, STORY, seed=1), draw=1))
    other = await _text(ask, _request(spec, STORY, seed=2))
    greedy = await _asked(ask, wire_request(spec, Prompt(STORY, TOKENS), logprobs=True))
    stopped = await _stops(spec, ask, greedy.text if greedy else "")
    schema = await _text(ask, _request(spec, COLOUR, "json_schema"))
    anything = await _text(ask, _request(spec, COLOUR, "json_object"))
    return Capabilities(
        samples=bool(first and other) and first != other,
        seeded=bool(first) and first == same,
        json_schema=_object(schema) == {MARK: "yes"},
        json_object=_object(anything) is not None,
        logprobs=bool(greedy and greedy.logprobs),
        stop=stopped,
    )


def stated_context(body: bytes, model: str) -> int | None:
    """The context length that a server's list of models states for `model`."""
    value, _ = loaded(body)
    listed = value.get("data") if isinstance(value, dict) else None
    entries = listed if isinstance(listed, list) else []
    entries = [entry for entry in entries if isinstance(entry, dict) and entry.get("id") == model]
    for entry in entries:
        meta = entry.get("meta")
        every = entry | meta if isinstance(meta, dict) else entry
        stated = [every.get(name) for name in CONTEXT_FIELDS]
        if numbers := [n for n in stated if isinstance(n, int) and not isinstance(n, bool) and n > 0]:
            return numbers[0]
    return None


def _request(spec: EndpointSpec, messages: tuple[Message, ...], mode: Mode = "", seed: int = 1) -> WireRequest:
    schema = SCHEMA if mode else None
    temperature = 0.0 if mode else 1.0
    return wire_request(spec, Prompt(messages, TOKENS, temperature, seed=seed, schema=schema), mode)


async def _stops(spec: EndpointSpec, ask: Ask, text: str) -> bool:
    """Whether a piece out of the middle of a greedy reply ends the same reply when it is given as a stop string."""
    words = text.split(" ")
    stop = words[len(words) // 2]
    if len(words) < 3 or not stop:
        return False
    found = await _text(ask, wire_request(spec, Prompt(STORY, TOKENS, stop=(stop,)), ""))
    return stop not in found and text.startswith(found.rstrip())


async def _text(ask: Ask, request: WireRequest) -> str:
    completion = await _asked(ask, request)
    return completion.text if completion else ""


async def _asked(ask: Ask, request: WireRequest) -> Completion | None:
    """The reply; None where the endpoint refuses the request or has nothing to say."""
    completion = await ask(request)
    if completion.failure in UNANSWERED and completion.failure != "bad_request":
        raise Unprobed(completion)
    return None if completion.failure else completion


def _object(text: str) -> dict[str, Any] | None:
    value, _ = loaded(text.encode("utf-8", "replace"))
    return value if isinstance(value, dict) else None
