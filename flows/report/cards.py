"""Why this row: a deterministic sample of chosen rows with the method's reason and the target that pulled them in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.report.book import Book
from flows.report.chosen import Pick, Picks
from flows.report.reasons import in_words, target_row
from flows.report.text import Excerpt, excerpt, label

CARDS = 20
TURNS = 6  # of a conversation


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: Excerpt


@dataclass(frozen=True, slots=True)
class Conversation:
    """The first turns; `left_out` counts the others."""

    turns: tuple[Turn, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Card:
    """One chosen row. `facts` are what its meta says of skill and noise; `target` is the target its reason names."""

    pick: Pick
    rank: int
    row: int
    score: float
    source: str
    facts: Mapping[str, str]
    reason: str
    raw_reason: str
    conversation: Conversation
    target_row: int | None
    target: Conversation | None


def cards_of(book: Book, picks: Picks) -> tuple[Card, ...]:
    """Up to `CARDS` rows, spread over methods and ranks; the same run gives the same cards."""
    parts = zip(picks.firsts, shares([pick.has_scores for pick in picks.firsts]), strict=True)
    wanted = [(pick, rank) for pick, share in parts for rank in ranks(pick.rows, share)]
    found = _chosen(book, wanted)
    rows = [(pick, found[pick.key, rank]) for pick, rank in wanted if (pick.key, rank) in found]
    targets = _targets(book, rows)
    return tuple(_card(pick, row, targets) for pick, row in rows)


def shares(scored: Sequence[bool]) -> list[int]:
    """How many cards each arm gets: one where the method gives no scores (its reasons say little), the rest evenly."""
    answer = [0] * len(scored)
    for place in [i for i, has in enumerate(scored) if not has] if any(scored) else []:
        answer[place] = int(sum(answer) < CARDS // 2)
    takers = [i for i, has in enumerate(scored) if has] or list(range(len(scored)))
    free = CARDS - sum(answer)
    for turn, place in enumerate(takers):
        answer[place] = free // len(takers) + (turn < free % len(takers))
    return answer


def ranks(rows: int, wanted: int) -> list[int]:
    """`wanted` ranks from 1 to `rows`, evenly spread, the first and the last among them."""
    return sorted({int(rank) for rank in np.linspace(1, rows, min(rows, wanted)).round()}) if rows else []


def _chosen(book: Book, wanted: Sequence[tuple[Pick, int]]) -> dict[tuple[str, int], dict[str, Any]]:
    rows = book.rows(
        """SELECT selection, rank, "row", score, source, reason, messages, meta FROM selected
           JOIN (SELECT unnest(?::VARCHAR[]) AS selection, unnest(?::BIGINT[]) AS rank) USING (selection, rank)""",
        [pick.key for pick, _ in wanted],
        [rank for _, rank in wanted],
    )
    return {(row["selection"], row["rank"]): row for row in rows}


def _card(pick: Pick, row: Mapping[str, Any], targets: Mapping[tuple[str, int], Conversation]) -> Card:
    reason = row["reason"] or ""
    target = target_row(reason)
    meta = json.loads(row["meta"] or "{}")
    return Card(
        pick=pick,
        rank=row["rank"],
        row=row["row"],
        score=row["score"],
        source=label(row["source"]),
        facts={name: label(meta[name]) for name in ("skill", "noise") if meta.get(name) not in (None, "")},
        reason=in_words(reason),
        raw_reason=label(reason),
        conversation=conversation(row["messages"]),
        target_row=target,
        target=None if target is None else targets.get((pick.key, target)),
    )


def _targets(book: Book, rows: Sequence[tuple[Pick, Mapping[str, Any]]]) -> dict[tuple[str, int], Conversation]:
    """(selection, row of its target set) to that row; without what was pruned since."""
    sets = {pick.key: _target_set(book, pick) for pick, _ in rows}
    named = [(pick.key, sets[pick.key], target_row(row["reason"] or "")) for pick, row in rows]
    wanted = [(key, pool, target) for key, pool, target in named if pool is not None and target is not None]
    found = book.rows(
        """SELECT pool, "row", messages FROM samples
           JOIN (SELECT DISTINCT unnest(?::VARCHAR[]) AS pool, unnest(?::BIGINT[]) AS "row") USING (pool, "row")""",
        [pool for _, pool, _ in wanted],
        [target for _, _, target in wanted],
    )
    texts = {(row["pool"], row["row"]): conversation(row["messages"]) for row in found}
    return {(key, target): texts[pool, target] for key, pool, target in wanted if (pool, target) in texts}


def _target_set(book: Book, pick: Pick) -> str | None:
    """Key of the target set that the selection was made for."""
    made = book.artifact("select", pick.key)
    return None if made is None else made.manifest["inputs"].get("target")


def conversation(messages: Sequence[Mapping[str, str]]) -> Conversation:
    """The first turns of a row, each cut to a readable length."""
    turns = tuple(Turn(label(turn["role"]), excerpt(turn["content"])) for turn in messages[:TURNS])
    return Conversation(turns, max(0, len(messages) - TURNS))
