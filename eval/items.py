"""The outcome of every item as rows: what was asked, what came back, what it was worth."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from eval.protocol import Item, Score
from eval.tasks import gold_of, prompt_of
from warehouse.records import Messages, canonical, digest


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item under one per-item value (`exact_match`, `nll`, ...).

    group        the example's skill where its meta names one, else its source
    n_tokens     tokens of the gold reply that the loss saw: what weighs a loss per token
    prompt_hash, doc_hash, target_hash  of the prompt, all messages, the gold reply: runs are paired where these agree
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
    ]
)


def item_rows(item: Item, score: Score) -> Iterator[ItemRow]:
    """One row per value of the item's score."""
    prompt, gold = prompt_of(item.example), gold_of(item.example)
    for metric, value in score.values.items():
        yield ItemRow(
            item_id=item.item_id,
            group=str(item.example.meta.get("skill", item.example.source)),
            prompt=as_text(prompt),
            reply=score.reply,
            parsed=score.parsed,
            gold=gold,
            metric=metric,
            value=value,
            n_tokens=int(score.detail.get("n_tokens", 0)),
            finish_reason=score.detail.get("finish_reason"),
            prompt_hash=digest(canonical([[m.role, m.content] for m in prompt])),
            doc_hash=item.example.sample_id,
            target_hash=digest(gold),
        )


def as_text(messages: Messages) -> str:
    """The one user turn as it is; longer prompts with the role before each turn."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{m.role}: {m.content}" for m in messages)


def item_table(rows: Sequence[ItemRow]) -> pa.Table:
    """The rows as an Arrow table with the columns of `ITEM_SCHEMA`, in the order given."""
    return pa.Table.from_pylist([asdict(row) for row in rows], ITEM_SCHEMA)
