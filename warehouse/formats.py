"""Instruction formats, recognised by their columns alone, and how each becomes messages.

A column is matched by its name, whatever its case, against a short closed list. Every other column goes to `meta`.
`docs/formats.md` is the page for users.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NoReturn
from uuid import UUID

from warehouse.json_text import loads
from warehouse.records import Example, Message, Role
from warehouse.rejects import Reason, Refused, excerpt

ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant",
    "function_call": "assistant",  # the model writes the call, so the loss must see it
    "tool": "tool", "observation": "tool", "function": "tool", "ipython": "tool",
}  # fmt: skip
SOURCE_COLUMNS = ("source", "dataset", "data_source")
SYSTEM_COLUMNS = ("system", "system_prompt")
TURN_FIELDS = frozenset({"role", "from", "content", "value", "tool_calls", "function_call"})

Filled = Mapping[str, Any]  # part of a format → the value of the column that fills it
Note = Callable[[str], None]


class _Refusal(Exception):
    """Carries a reason out of the parts of a row; `Interpreter` turns it into a value."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def _refuse(reason: Reason, detail: str = "") -> NoReturn:
    raise _Refusal(Refused(reason, excerpt(detail)))


@dataclass(frozen=True, slots=True)
class Format:
    """A layout of columns: part → accepted column names, the first that is there counts. `read` makes the messages."""

    name: str
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]]
    read: Callable[[Filled, Note], list[Message]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A format found in given columns: part → the column that fills it, and the columns that are left for meta."""

    format: Format
    columns: Mapping[str, str]
    required: tuple[str, ...]
    left: tuple[str, ...]

    def filled(self, row: Mapping[str, Any]) -> int:
        """How many required parts hold something in `row`."""
        return sum([row[column] is not None and row[column] != "" for column in self.required])


@dataclass(frozen=True, slots=True)
class Columns:
    """What a tuple of column names means: the formats it can hold, the most specific first (none: it is not known).

    `source`, `identity` and `meta` are columns that mean the same in every format; empty where there is none.
    """

    layouts: tuple[Layout, ...]
    source: str
    identity: str
    meta: str

    def layout_of(self, row: Mapping[str, Any]) -> Layout:
        """The layout that `row` fills best: files of mixed schemas leave the columns of the others empty."""
        first = self.layouts[0]
        if len(self.layouts) == 1 or first.filled(row) == len(first.required):
            return first
        return max(self.layouts, key=lambda layout: layout.filled(row) / len(layout.required))


def formats(unanswered: bool = False) -> tuple["Format", ...]:
    """The known formats; `unanswered` rows may lack the reply."""
    return (*FORMATS, *PROMPTS) if unanswered else FORMATS


def known_formats(unanswered: bool = False) -> str:
    """One line per format with its required columns, for error messages."""
    known = formats(unanswered)
    lines = (f"  {f.name}: " + " and ".join("/".join(names) for names in f.required.values()) for f in known)
    return "Known formats and the columns they need:\n" + "\n".join(lines)


@lru_cache(maxsize=1024)
def recognise(columns: tuple[str, ...], unanswered: bool = False) -> Columns:
    """What the columns of a row or file mean. `layouts` is empty where no known format fits."""
    folded = _fold(columns)
    layouts = tuple(layout for known in formats(unanswered) if (layout := _layout(known, columns, folded)))
    return Columns(layouts, _first(folded, SOURCE_COLUMNS) or "", folded.get("id", ""), folded.get("meta", ""))


def _layout(known: Format, columns: tuple[str, ...], folded: Mapping[str, str]) -> Layout | None:
    found = {part: _first(folded, names) for part, names in (*known.required.items(), *known.optional.items())}
    if not all(found[part] for part in known.required):
        return None
    used = {part: column for part, column in found.items() if column is not None}
    left = tuple(column for column in columns if column and column not in used.values())
    return Layout(known, used, tuple(used[part] for part in known.required), left)


def _fold(columns: Sequence[str]) -> dict[str, str]:
    return {column.casefold(): column for column in reversed(columns)}


def _first(folded: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((folded[name] for name in names if name in folded), None)


class Interpreter:
    """Turns the rows of one file into examples. `label` is the source of rows that name none themselves.

    With `unanswered` rows may hold a prompt alone. `notes` gathers, once each, what was left out of kept rows.
    """

    def __init__(self, label: str, unanswered: bool = False) -> None:
        self._label, self._unanswered = label, unanswered
        self.notes: dict[str, None] = {}
        self._names: tuple[str, ...] = ()
        self._columns = recognise(())

    def __call__(self, row: Mapping[str, Any]) -> Example | Refused:
        """The example in `row`, in whichever known format it is, or why there is none."""
        columns = self._columns_of(row)
        if not columns.layouts:
            return Refused(Reason.UNKNOWN_COLUMNS, excerpt(", ".join(row)))
        layout = columns.layout_of(row)
        filled = {part: row[column] for part, column in layout.columns.items()}
        try:
            messages = tuple(layout.format.read(filled, self._note))
        except _Refusal as refusal:
            return refusal.refused
        meta = {name: value for name in layout.left if (value := row[name]) is not None}
        source = meta.pop(columns.source) if _is_label(meta.get(columns.source)) else self._label
        if columns.meta in meta:
            meta = _merged(meta, columns.meta)
        if isinstance(given := filled.get("input"), str) and given.strip():
            meta["input"] = given  # what an export needs to part instruction and input again
        return Example(messages, source, self._plain_columns(meta))

    def identity(self, row: Mapping[str, Any]) -> str | None:
        """The row's explicit `id` as text; None where it has none."""
        value = row.get(self._columns_of(row).identity)
        if value is None or value == "" or isinstance(value, list | dict | float):
            return None
        return str(value)

    def _columns_of(self, row: Mapping[str, Any]) -> Columns:
        names = tuple(row)
        if names != self._names:
            self._names, self._columns = names, recognise(names, self._unanswered)
        return self._columns

    def _note(self, text: str) -> None:
        self.notes[text] = None

    def _plain_columns(self, meta: dict[str, Any]) -> dict[str, Any]:
        if all([type(value) in _SCALARS for value in meta.values()]):
            return meta
        plain = {}
        for name, value in meta.items():
            try:
                plain[name] = _plain(value)
            except (TypeError, RecursionError) as error:
                self._note(f"column {name!r} dropped: JSON cannot hold it ({error})")
        return plain


_SCALARS = (str, int, bool)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and not value.isspace() and value != ""


def _merged(extra: dict[str, Any], meta: str) -> dict[str, Any]:
    """Spread the JSON object in the column `meta` over the extra columns, which win where both name the same."""
    value = _parsed(extra[meta])
    if not isinstance(value, dict):
        return extra
    return {**{k: v for k, v in value.items() if v is not None}, **{k: v for k, v in extra.items() if k != meta}}


def _parsed(value: Any) -> Any:
    """The JSON that a text holds; anything else, and text that holds none, as it is."""
    if not (isinstance(value, str) and value.lstrip()[:1] in ("[", "{")):
        return value
    try:
        return loads(value)
    except (ValueError, RecursionError):
        return value


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN is null, a date its ISO text. Raises `TypeError` for bytes and the like."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta | UUID):
        return str(value)
    raise TypeError(type(value).__name__)


def _text(value: Any, part: str) -> str:
    """The text of a content; numbers as JSON writes them, parts of type text joined."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        _refuse(Reason.NULL_CONTENT, part)
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return "".join(_text_of_part(item, part) for item in value)
    return _refuse(Reason.NOT_TEXT, f"{part} is {type(value).__name__}: {value}")


def _text_of_part(item: Any, part: str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
        return str(item["text"])
    return _refuse(Reason.NOT_TEXT, f"{part} holds a part that is not text: {item}")


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        return _refuse(Reason.INVALID_UTF8, f"byte {error.start}: {value[:400].decode('utf-8', 'replace')}")


def _turn(turn: Any, note: Note) -> Message:
    if not isinstance(turn, dict):
        _refuse(Reason.MALFORMED, f"a turn is {type(turn).__name__}, not an object: {turn}")
    said = turn.get("role", turn.get("from"))
    role = ROLES.get(said.casefold()) if isinstance(said, str) else None
    if role is None:
        _refuse(Reason.UNKNOWN_ROLE, f"{said!r}; known roles: {', '.join(ROLES)}")
    if turn.get("tool_calls") or turn.get("function_call"):
        _refuse(Reason.TOOL_CALLS, str(turn.get("tool_calls") or turn.get("function_call")))
    for name in turn.keys() - TURN_FIELDS:
        if turn[name] is not None:
            note(f"turn field {name!r} dropped")
    return Message(role, _text(turn.get("content", turn.get("value")), f"the {said} turn"))


def _turns(value: Any, note: Note) -> list[Message]:
    value = _parsed(value)
    if _absent(value):
        _refuse(Reason.NULL_CONTENT, "the list of turns")
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, items, strict=False)) for items in zip(*value.values(), strict=False)]
    if not isinstance(value, list):
        _refuse(Reason.MALFORMED, f"expected a list of turns, found {type(value).__name__}: {value}")
    return [_turn(turn, note) for turn in value]


def _absent(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _system(filled: Filled) -> list[Message]:
    value = filled.get("system")
    return [] if _absent(value) else [Message("system", _text(value, "system"))]


def _from_turns(filled: Filled, note: Note) -> list[Message]:
    turns = _turns(filled["turns"], note)
    return turns if turns and turns[0].role == "system" else _system(filled) + turns


def _history(filled: Filled) -> Iterator[Message]:
    pairs = _parsed(filled.get("history"))
    if not (_absent(pairs) or isinstance(pairs, list)):
        _refuse(Reason.MALFORMED, f"history must be a list of [user, assistant] pairs, found {pairs}")
    for pair in pairs or ():
        if not isinstance(pair, list) or len(pair) != 2:
            _refuse(Reason.MALFORMED, f"history must be a list of [user, assistant] pairs, found {pair}")
        yield Message("user", _text(pair[0], "history"))
        yield Message("assistant", _text(pair[1], "history"))


def _from_pair(filled: Filled, note: Note) -> list[Message]:
    asked, reply = filled["instruction"], filled["output"]
    if _is_turns(asked) or _is_turns(reply):
        return _system(filled) + _side(asked, "user", note) + _side(reply, "assistant", note)
    if isinstance(reply, list) and reply:
        reply = reply[0]  # of several right answers the first
    return [*_asked(filled), Message("assistant", _text(reply, "the reply"))]


def _from_prompt(filled: Filled, note: Note) -> list[Message]:
    asked = filled["instruction"]
    return _system(filled) + _side(asked, "user", note) if _is_turns(asked) else _asked(filled)


def _asked(filled: Filled) -> list[Message]:
    """All turns before the reply."""
    instruction, given = _text(filled["instruction"], "the prompt"), _given(filled)
    question = f"{instruction}\n\n{given}" if instruction and given else instruction or given
    return [*_system(filled), *_history(filled), Message("user", question)]


def _given(filled: Filled) -> str:
    value = filled.get("input")
    text = "" if _absent(value) else _text(value, "input")
    return text if text.strip() else ""


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _side(value: Any, role: Role, note: Note) -> list[Message]:
    return _turns(value, note) if _is_turns(value) else [Message(role, _text(value, role))]


FORMATS: tuple[Format, ...] = (
    Format("messages", {"turns": ("messages",)}, {"system": SYSTEM_COLUMNS}, _from_turns),
    Format("sharegpt", {"turns": ("conversations", "conversation")}, {"system": SYSTEM_COLUMNS}, _from_turns),
    Format(
        "alpaca",
        {"instruction": ("instruction",), "output": ("output",)},
        {"input": ("input",), "system": SYSTEM_COLUMNS, "history": ("history",)},
        _from_pair,
    ),
    Format(
        "dolly",
        {"instruction": ("instruction",), "output": ("response",)},
        {"input": ("context",), "system": SYSTEM_COLUMNS, "history": ("history",)},
        _from_pair,
    ),
    Format(
        "prompt_completion",
        {
            "instruction": ("prompt", "question", "query", "input"),
            "output": ("completion", "response", "answer", "answers", "output"),
        },
        {"input": ("context",), "system": SYSTEM_COLUMNS, "history": ("history",)},
        _from_pair,
    ),
)
# of test sets alone: whatever else a file holds, a question without a reply would train nothing
PROMPTS: tuple[Format, ...] = (
    Format(
        "instruction",
        {"instruction": ("instruction",)},
        {"input": ("input", "context"), "system": SYSTEM_COLUMNS, "history": ("history",)},
        _from_prompt,
    ),
    Format(
        "prompt",
        {"instruction": ("prompt", "question", "query", "input")},
        {"input": ("context",), "system": SYSTEM_COLUMNS, "history": ("history",)},
        _from_prompt,
    ),
)

TEXT_COLUMNS = frozenset(
    name for known in FORMATS for names in (dict(known.required) | dict(known.optional)).values() for name in names
)
