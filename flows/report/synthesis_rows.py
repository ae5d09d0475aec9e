"""Rows to look at: what a model was told, what it replied, and what was made of it, accepted and refused alike."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.book import Book
from flows.report.cards import Conversation, Turn
from flows.report.synthesis_accepted import drawn
from flows.report.synthesis_reasons import ended_as, refused_because
from flows.report.text import Excerpt, excerpt, label
from warehouse.store import Artifact

ROWS = 60  # of all syntheses of a report together, but at least one of every reason
MOST = 4  # of one reason
REPLIES = 3  # of one row
TURNS = 4  # of a conversation
HEAD, REST = 360, 900  # characters
META_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Heard:
    """A prompt and the reply to it. `note` says how the reply ended where that was not by itself."""

    model: str
    prompt: Conversation | None
    reply: Excerpt
    note: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One row: the first replies behind it, what was made of them, and what is known of it, as JSON."""

    heard: tuple[Heard, ...]
    more: int
    row: Conversation | None
    detail: Excerpt
    meta: Excerpt


@dataclass(frozen=True, slots=True)
class Group:
    """Some rows of one reason, drawn at random from `of`. `reason` is empty for accepted rows."""

    reason: str
    words: str
    rows: tuple[Shown, ...]
    of: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A row before its replies are read."""

    messages: Sequence[Mapping[str, str]]
    replies: Sequence[str]
    detail: str
    meta: str


def groups_of(book: Book, made: Artifact, sharing: int) -> tuple[Group, ...]:
    """Accepted rows, then refused ones by reason, the most frequent first; `sharing` syntheses share the page."""
    refused = book.rows("SELECT reason, count(*) AS n FROM rejects WHERE pool = ? GROUP BY ALL", made.key)
    counts = {row["reason"]: row["n"] for row in sorted(refused, key=lambda row: (-row["n"], row["reason"]))}
    each = min(MOST, max(1, ROWS // (sharing * (1 + len(counts)))))
    accepted = [_Row(row.messages, row.replies, "", row.meta) for row in drawn(book, made, each)]
    found = {"": accepted} | _refused(book, made.key, each)
    heard = _heard(book, made.key, [key for rows in found.values() for row in rows for key in row.replies[:REPLIES]])
    of = book.rows("SELECT count(*) AS n FROM generations WHERE generation = ?", made.key)[0]["n"]
    return tuple(
        Group(label(reason), refused_because(reason) if reason else "accepted", _shown(found[reason], heard), n)
        for reason, n in {"": of, **counts}.items()
        if found.get(reason)
    )


def _refused(book: Book, key: str, each: int) -> dict[str, list[_Row]]:
    """Up to `each` refused rows of every reason, at random, the same ones for the same run."""
    rows = book.rows(
        """SELECT reason, detail, messages, replies, meta FROM rejects JOIN (
               SELECT location, row_number() OVER (PARTITION BY reason ORDER BY md5($2 || location), location) AS place
               FROM rejects WHERE pool = $1 QUALIFY place <= $3) USING (location)
           WHERE pool = $1 ORDER BY reason, place""",
        key,
        book.run,
        each,
    )
    found: dict[str, list[_Row]] = {}
    for row in rows:
        made = _Row(_turns(row["messages"]), row["replies"] or (), row["detail"] or "", row["meta"] or "{}")
        found.setdefault(row["reason"], []).append(made)
    return found


def _turns(text: str | None) -> list[Mapping[str, str]]:
    """The turns of a conversation that is kept as JSON; none where it is no conversation."""
    turns = json.loads(text or "null")
    if not isinstance(turns, list):
        return []
    return [
        {"role": str(turn.get("role")), "content": _said(turn.get("content"))}
        for turn in turns
        if isinstance(turn, dict)
    ]


def _said(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _shown(rows: Sequence[_Row], heard: Mapping[str, Heard]) -> tuple[Shown, ...]:
    return tuple(
        Shown(
            heard=tuple(heard[key] for key in row.replies[:REPLIES] if key in heard),
            more=max(0, len(row.replies) - REPLIES),
            row=_talk(row.messages),
            detail=excerpt(row.detail, 300, REST),
            meta=excerpt(row.meta, META_CHARS, 0),
        )
        for row in rows
    )


def _talk(messages: Sequence[Mapping[str, str]]) -> Conversation | None:
    turns = tuple(Turn(label(turn["role"]), excerpt(turn["content"], HEAD, REST)) for turn in messages[:TURNS])
    return Conversation(turns, max(0, len(messages) - TURNS)) if turns else None


def _heard(book: Book, key: str, replies: Sequence[str]) -> dict[str, Heard]:
    """Key of a request to its reply; where none came, to how the last try ended."""
    tried = book.rows(
        """SELECT reply, model, outcome, error FROM attempts WHERE generation = ? AND reply = ANY(?)
           QUALIFY row_number() OVER (PARTITION BY reply ORDER BY number DESC) = 1""",
        key,
        list(replies),
    )
    found = {row["reply"]: _unanswered(row) for row in tried}
    answered = book.rows(
        """SELECT reply, model, prompt, text, finish_reason, failure FROM replies
           WHERE generation = ? AND reply = ANY(?)""",
        key,
        list(replies),
    )
    return found | {row["reply"]: _answered(row) for row in answered}


def _unanswered(row: Mapping[str, Any]) -> Heard:
    said = f": {row['error']}" if row["error"] else ""
    return Heard(label(row["model"] or ""), None, excerpt(f"{ended_as(row['outcome'] or '')}{said}"), "no reply")


def _answered(row: Mapping[str, Any]) -> Heard:
    notes = [row["failure"], "" if row["finish_reason"] == "stop" else f"finish reason {row['finish_reason']}"]
    note = ", ".join(label(note) for note in notes if note)
    return Heard(label(row["model"] or ""), _talk(_turns(row["prompt"])), excerpt(row["text"], HEAD, REST), note)
