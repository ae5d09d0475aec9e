"""Values instead of text: a reply that must meet a pydantic model, mended where it can be, asked again where not."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import json_repair
from pydantic import BaseModel, ValidationError

from models.dialogue import Complete, Dialogue
from models.protocol import Completion, Failure, Prompt
from models.telling import Telling, telling
from warehouse.records import Message, canonical, digest

T = TypeVar("T", bound=BaseModel)
Lack: TypeAlias = Literal["unmet", "cut_off"]

TEMPLATES = Path(__file__).parent / "templates" / "structured"
ASKED: Telling = telling(TEMPLATES, "asked.v1")
AGAIN: Telling = telling(TEMPLATES, "again.v1")
TOLD = digest(canonical([ASKED.key, AGAIN.key]))
"""Changes with every word that a model is told about a schema: for `told` and `template` of who asks so."""

RE_ASKS = 2
FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
SHOWN = 500  # characters of a validation error that a model is told


@dataclass(frozen=True, slots=True)
class Structured(Generic[T]):
    """A value that meets its model. `keys` are those of all replies on the way, `mended` says that the text was not
    JSON as it stood."""

    value: T
    keys: tuple[str, ...]
    mended: bool


@dataclass(frozen=True, slots=True)
class Unmet:
    """No reply met the model: the last one's `text`, and why: a failure of the endpoint, "cut_off" or "unmet"."""

    reason: Failure | Lack
    detail: str
    keys: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a reply is no value of its model."""

    reason: Lack
    detail: str


def structured(role: str, prompt: Prompt, wanted: type[T], re_asks: int = RE_ASKS) -> Dialogue[Structured[T] | Unmet]:
    """Ask `role` for a value of `wanted`: `found = yield from structured("generator", prompt, Answer)`.

    The schema is told in the prompt's last user turn, for every model alike, and set as `Prompt.schema` for those that
    can enforce it; what comes is checked here in any case. A reply that fails is asked again at most `re_asks` times
    with its fault, each time as a request of its own. Raises `ValueError` for a model that lets unnamed keys pass.
    """
    schema, keys = schema_of(wanted), list[str]()
    asked = replace(prompt, messages=_with_schema(prompt, schema), schema=schema)
    while True:
        (reply,) = yield [Complete(role, asked)]
        assert isinstance(reply, Completion)  # what `Complete` is answered by
        keys.append(reply.key)
        if reply.failure:
            return Unmet(reply.failure, reply.detail, tuple(keys))
        found = read(reply, wanted)
        if not isinstance(found, Fault):
            value, mended = found
            return Structured(value, tuple(keys), mended)
        if len(keys) > re_asks:
            return Unmet(found.reason, found.detail, tuple(keys), reply.text)
        said = (Message("assistant", reply.text), Message("user", AGAIN(fault=found.detail)))
        asked = replace(asked, messages=(*asked.messages, *said))


def read(reply: Completion, wanted: type[T]) -> tuple[T, bool] | Fault:
    """The value in a reply and whether its text had to be mended, or what is wrong with it.

    In turn: the text as JSON, a fenced block of it, a Python literal, JSON with its slips repaired. What was cut off
    is not repaired: a repair would close what was never written.
    """
    cut = reply.finish_reason == "length"
    first: str | None = None
    for value, mended in _values(reply.text, repair=not cut):
        try:
            return wanted.model_validate_json(json.dumps(value, allow_nan=False)), mended
        except ValidationError as error:
            first = first or _said(error)
        except (TypeError, ValueError):  # a literal that JSON cannot hold
            continue
    if cut:
        return Fault("cut_off", f"it was cut off after {reply.usage.completion_tokens} tokens; make it shorter")
    return Fault("unmet", first or "it holds no JSON value")


@cache
def schema_of(wanted: type[BaseModel]) -> str:
    """The JSON schema of `wanted` in one spelling. Raises `ValueError` where it lets other keys pass."""
    schema = wanted.model_json_schema()
    for part in _parts(schema):
        if "properties" in part and part.get("additionalProperties") is not False:
            raise ValueError(
                f"{part.get('title', wanted.__name__)} lets keys pass that it does not name; "
                'set model_config = ConfigDict(extra="forbid")'
            )
    return canonical(schema)


def _with_schema(prompt: Prompt, schema: str) -> tuple[Message, ...]:
    """The turns of `prompt`, the schema told in the last."""
    *before, last = prompt.messages
    told = ASKED(schema=schema)
    if last.role != "user":
        return (*prompt.messages, Message("user", told))
    return (*before, Message("user", f"{last.content}\n\n{told}"))


def _values(text: str, repair: bool) -> Iterator[tuple[Any, bool]]:
    """The values that a text may mean, the strictest reading first, each with whether the text had to be mended."""
    stripped = text.strip()
    blocks = [block.strip() for block in FENCE.findall(text)]
    for number, part in enumerate((stripped, *blocks)):
        try:
            yield json.loads(part, object_pairs_hook=_once), number > 0
        except (ValueError, RecursionError):
            continue
    if not repair:
        return
    for part in (*blocks, stripped):
        try:
            yield ast.literal_eval(part), True
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    for part in (*blocks, stripped):
        mended = _repaired(part)
        if isinstance(mended, dict | list) and mended:
            yield mended, True


def _repaired(text: str) -> Any:
    try:
        return json_repair.loads(text)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose keys stands once: of two, nobody knows which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _said(error: ValidationError) -> str:
    """What pydantic found, for a model to read; without the input, which it has."""
    faults = [
        f"{'.'.join(map(str, one['loc'])) or 'the value'}: {one['msg']}" for one in error.errors(include_url=False)
    ]
    return "; ".join(faults)[:SHOWN]


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects inside a schema."""
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from _parts(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _parts(part)
