"""The outcome of every item as rows: what was asked, what came back, what it was worth."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from eval.protocol import Item, Score
from warehouse.records import Messages, canonical, digest

COLUMNS = ("n_tokens", "finish_reason", "prompt_tokens", "reply_tokens", "parts")  # of a score's detail


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item under one per-item value (`exact_match`, `nll`, ...).

    group          the example's skill where its meta names one, else its source
    n_tokens       tokens of the gold reply that the loss saw: what weighs a loss per token
    prompt_hash, doc_hash, target_hash  of the prompt, all messages, the gold reply: runs are paired where these agree
    repeat         0, 1, ... of an item that was asked several times
    cluster        meta `cluster`, else `passage`: items of one cluster go together
    ability, level, language, difficulty  meta `skill` (else `ability`), `level`, `language`, `difficulty`
    prompt_tokens, reply_tokens  of the reply; 0 where they were not counted
    choices        replies to choose from, 0 where the reply is free: chance is 1 / choices
    parts          what the value is a mean over within the item (instructions), else 1
    detail         JSON: whatever else the task found

    Meta that is not there is "".
    """

    item_id: str
    group: str
    prompt: str
    reply: str
    parsed: str | None
    gold: str
    metric: str
    value: float
    n_tokens: int
    finish_reason: str | None
    prompt_hash: str
    doc_hash: str
    target_hash: str
    repeat: int = 0
    cluster: str = ""
    ability: str = ""
    level: str = ""
    source: str = ""
    language: str = ""
    difficulty: str = ""
    prompt_tokens: int = 0
    reply_tokens: int = 0
    choices: int = 0
    parts: int = 1
    detail: str = "{}"


ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("reply", pa.string()),
        ("parsed", pa.string()),
        ("gold", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("n_tokens", pa.int64()),
        ("finish_reason", pa.string()),
        ("prompt_hash", pa.string()),
        ("doc_hash", pa.string()),
        ("target_hash", pa.string()),
        ("repeat", pa.int64()),
        ("cluster", pa.string()),
        ("ability", pa.string()),
        ("level", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("difficulty", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("reply_tokens", pa.int64()),
        ("choices", pa.int64()),
        ("parts", pa.int64()),
        ("detail", pa.string()),
    ]
)


def item_rows(item: Item, score: Score) -> Iterator[ItemRow]:
    """One row per value of the item's score."""
    known = _of_item(item) | _of_score(item, score)
    for metric, value in score.values.items():
        yield ItemRow(metric=metric, value=value, **known)


def _of_item(item: Item) -> dict[str, Any]:
    meta = item.example.meta
    return {
        "item_id": item.item_id,
        "group": str(meta.get("skill", item.example.source)),
        "prompt": as_text(item.prompt),
        "gold": item.gold,
        "prompt_hash": digest(canonical([[m.role, m.content] for m in item.prompt])),
        "doc_hash": item.example.sample_id,
        "target_hash": digest(item.gold),
        "repeat": item.repeat,
        "cluster": _told(meta, "cluster", "passage"),
        "ability": _told(meta, "skill", "ability"),
        "level": _told(meta, "level"),
        "source": item.example.source,
        "language": _told(meta, "language"),
        "difficulty": _told(meta, "difficulty"),
        "choices": len(item.choices),
    }


def _of_score(item: Item, score: Score) -> dict[str, Any]:
    rest = {name: value for name, value in score.detail.items() if name not in COLUMNS}
    return {
        "reply": score.reply,
        "parsed": score.parsed,
        "n_tokens": int(score.detail.get("n_tokens", 0)),
        "finish_reason": score.detail.get("finish_reason"),
        "prompt_tokens": int(score.detail.get("prompt_tokens", item.prompt_tokens)),
        "reply_tokens": int(score.detail.get("reply_tokens", 0)),
        "parts": int(score.detail.get("parts", 1)),
        "detail": canonical(({"cut": True} if item.cut else {}) | rest),
    }


def _told(meta: Any, *names: str) -> str:
    """The first of these that `meta` has, as text; "" where it has none."""
    return next((str(meta[name]) for name in names if meta.get(name) is not None), "")


def as_text(messages: Messages) -> str:
    """The one user turn as it is; longer prompts with the role before each turn."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{m.role}: {m.content}" for m in messages)


def item_table(rows: Sequence[ItemRow]) -> pa.Table:
    """The rows as an Arrow table with the columns of `ITEM_SCHEMA`, in the order given."""
    return pa.Table.from_pylist([asdict(row) for row in rows], ITEM_SCHEMA)
