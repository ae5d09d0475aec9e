"""Preference pairs: a prompt, the reply that was chosen, and the one that was rejected; and how rows of files say so.

A row is read twice as a row of a pool, once with each reply in it (`warehouse.formats`); what the two conversations
begin with alike is the prompt. `docs/preferences.md` is the page for users.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard

from warehouse.formats import ROLES, Interpreter
from warehouse.json_text import loads
from warehouse.pool_writer import prepare
from warehouse.records import Example, Message, Messages, canonical, digest
from warehouse.rejects import Reason, Refused, excerpt

NAMED = ("chosen", "rejected")
LETTERED = ("response_a", "response_b", "label")
PROMPTS = ("prompt", "question", "instruction", "query", "input", "messages", "conversations", "conversation")
# columns that would be read as the reply, were they left beside it
REPLIES = frozenset({"completion", "response", "answer", "answers", "output", *NAMED, *LETTERED})
LAYOUTS = (
    "Preference data needs the columns chosen and rejected (or response_a, response_b and label), and the prompt: in "
    f"one of {', '.join(PROMPTS)}, or at the beginning of both conversations. See docs/preferences.md."
)
_TURN = re.compile(r"\n\n(Human|Assistant):")  # of the transcripts that Anthropic's hh-rlhf holds


class PairReason(StrEnum):
    """Why a row that can be read is no pair."""

    NO_PREFERENCE = "no_preference"  # a tie, or a label that names neither reply
    SAME_REPLIES = "same_replies"
    NO_COMMON_PROMPT = "no_common_prompt"
    SEVERAL_TURNS = "several_turns"  # the conversations go on after the reply in which they part
    HELD_OUT = "held_out"  # its prompt asks what a test row asks


@dataclass(frozen=True, slots=True)
class NoPair:
    """Why a row gives no pair."""

    reason: Reason | PairReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt, which ends before a reply, and two replies to it. `source` and `meta` are as of an `Example`."""

    prompt: Messages
    chosen: str
    rejected: str
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pair_id(self) -> str:
        """A function of prompt and replies alone."""
        turns = [[message.role, message.content.strip()] for message in self.prompt]
        return digest(canonical({"prompt": turns, "chosen": self.chosen.strip(), "rejected": self.rejected.strip()}))

    @property
    def prompt_id(self) -> str:
        """As of an `Example`: rows that ask the same share it."""
        return Example(self.prompt, self.source).prompt_id


class PairInterpreter:
    """Turns the rows of one file into pairs. `label` is the source of rows that name none themselves."""

    def __init__(self, label: str) -> None:
        self._read = Interpreter(label)

    def __call__(self, row: Mapping[str, Any]) -> Pair | NoPair:
        """The pair in `row`, or why there is none."""
        columns = {name.casefold(): value for name, value in reversed(list(row.items()))}
        if not holds_pairs(columns):
            return NoPair(Reason.UNKNOWN_COLUMNS, excerpt(", ".join(row)))
        replies = _replies(columns)
        if isinstance(replies, NoPair):
            return replies
        left = {name: value for name, value in columns.items() if name not in REPLIES}
        sides = [self._side(left, reply) for reply in replies]
        if refused := next((side for side in sides if isinstance(side, NoPair)), None):
            return refused
        chosen, rejected = (side for side in sides if isinstance(side, Example))
        return _paired(chosen, rejected)

    def _side(self, left: Mapping[str, Any], reply: Any) -> Example | NoPair:
        """The conversation that ends with `reply`, which may be the whole of it."""
        row = _row(left, _turns(reply))
        if isinstance(row, NoPair):
            return row
        example = self._read(row)
        checked = example if isinstance(example, Refused) else prepare(example)
        return NoPair(checked.reason, checked.detail) if isinstance(checked, Refused) else checked.example


def holds_pairs(columns: Mapping[str, Any]) -> bool:
    """Whether a row with these columns (in lower case) says which of two replies is better."""
    return all(name in columns for name in NAMED) or all(name in columns for name in LETTERED)


def _replies(columns: Mapping[str, Any]) -> tuple[Any, Any] | NoPair:
    """The chosen and the rejected reply as they were stored."""
    if all(name in columns for name in NAMED):
        return columns["chosen"], columns["rejected"]
    first, second = columns["response_a"], columns["response_b"]
    label = str(columns["label"]).casefold().removeprefix("response_").removeprefix("model_")
    if label not in ("a", "b"):
        return NoPair(PairReason.NO_PREFERENCE, excerpt(f"label is {columns['label']!r}; expected a or b"))
    return (first, second) if label == "a" else (second, first)


def _row(left: Mapping[str, Any], reply: Any) -> dict[str, Any] | NoPair:
    """A row of a pool: the prompt of `left` followed by `reply`, or `reply` alone where that is a conversation."""
    asked = next((name for name in PROMPTS if left.get(name) not in (None, "", [])), None)
    if _are_turns(reply) and not _replies_first(reply):
        return {name: value for name, value in left.items() if name not in PROMPTS} | {"messages": reply}
    if asked is None:
        if any(name in left for name in PROMPTS):
            return NoPair(Reason.NULL_CONTENT, "the prompt")
        return NoPair(PairReason.NO_COMMON_PROMPT, "there is no prompt beside the replies, nor in them")
    others = {name: value for name, value in left.items() if name not in PROMPTS}
    if asked == "instruction":
        return others | {"instruction": left["instruction"], "input": left.get("input"), "output": reply}
    return others | {"prompt": _turns(left[asked]), "completion": reply}


def _turns(value: Any) -> Any:
    """Turns as a list of {role, content}, whatever they were written as; anything else as it is."""
    if isinstance(value, str):
        return _turns_in(value)
    if isinstance(value, dict) and {"role", "from"} & value.keys():
        value = [value]
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_renamed(turn) for turn in value]
    return value


def _turns_in(text: str) -> Any:
    """The turns of a transcript, or of a list of them as JSON; any other text as it is."""
    if text.startswith("\n\nHuman:"):
        said = _TURN.split(text)[1:]
        roles = {"Human": "user", "Assistant": "assistant"}
        turns = [_turn(roles[who], what.strip()) for who, what in zip(said[::2], said[1::2], strict=True)]
        # a transcript that ends with the mark of a reply asks for it
        return turns[:-1] if turns[-1] == _turn("assistant", "") else turns
    if text.lstrip()[:1] == "[":
        try:
            turns = _turns(loads(text))
        except (ValueError, RecursionError):
            return text
        return turns if _are_turns(turns) else text
    return text


def _turn(role: str, content: str) -> dict[str, str]:
    """A turn as files hold it."""
    return {"role": role, "content": content}


def _renamed(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn with ShareGPT's names as one with `role` and `content`."""
    names = {"from": "role", "value": "content"}
    return {names.get(name, name): value for name, value in turn.items() if value is not None or name == "content"}


def _are_turns(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _replies_first(turns: list[dict[str, Any]]) -> bool:
    said = turns[0]["role"]
    return isinstance(said, str) and ROLES.get(said.casefold()) == "assistant"


def _paired(chosen: Example, rejected: Example) -> Pair | NoPair:
    """The pair of two conversations that begin alike and part in one reply, which is their last turn."""
    mine, other = (tuple(_stripped(message) for message in side.messages) for side in (chosen, rejected))
    alike = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    if mine == other:
        return NoPair(PairReason.SAME_REPLIES, excerpt(chosen.messages[-1].content))
    ends = (chosen.messages[alike:], rejected.messages[alike:])
    if not any(message.role == "user" for message in chosen.messages[:alike]) or any(
        not end or end[0].role != "assistant" for end in ends
    ):
        return NoPair(PairReason.NO_COMMON_PROMPT, excerpt(f"they part in turn {alike}: {_told(ends)}"))
    if any(len(end) > 1 for end in ends):
        return NoPair(PairReason.SEVERAL_TURNS, excerpt(f"they part in turn {alike}: {_told(ends)}"))
    prompt = chosen.messages[:alike]
    return Pair(prompt, ends[0][0].content, ends[1][0].content, chosen.source, chosen.meta)


def _stripped(message: Message) -> tuple[str, str]:
    return message.role, message.content.strip()


def _told(ends: tuple[Messages, Messages]) -> str:
    return " / ".join(f"{end[0].role}: {end[0].content[:60]}" if end else "no more" for end in ends)
