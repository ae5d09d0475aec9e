"""The accepted rows of a synthesis, read from its artifact by their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from flows.report.book import Book
from flows.synth.rows import ROWS_FILE
from warehouse.store import Artifact

Talk = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Written:
    """An accepted row: its number, its messages, the keys of the replies and the sample ids of the seeds behind it,
    and what is known of it, as JSON."""

    row: int
    messages: Talk
    replies: Sequence[str]
    parents: Sequence[str]
    meta: str


def drawn(book: Book, made: Artifact, most: int) -> list[Written]:
    """At most `most` accepted rows at random, the same ones for the same run."""
    rows = book.rows(
        """SELECT "row", replies, parents, meta FROM generations WHERE generation = ?
           ORDER BY md5(? || "row"::VARCHAR), "row" LIMIT ?""",
        made.key,
        book.run,
        most,
    )
    texts = _messages(made, {row["row"] for row in rows})
    return [_written(row, texts[row["row"]]) for row in rows if row["row"] in texts]


def _written(row: Mapping[str, Any], messages: Talk) -> Written:
    return Written(row["row"], messages, row["replies"] or (), row["parents"] or (), row["meta"] or "{}")


def _messages(made: Artifact, rows: set[int]) -> dict[int, Talk]:
    """The messages of `rows`: line k of the file, from 0, is row k."""
    with (made.folder / ROWS_FILE).open("rb") as lines:
        wanted = islice(enumerate(lines), max(rows, default=-1) + 1)
        return {number: orjson.loads(line)["messages"] for number, line in wanted if number in rows}


def prompt_of(messages: Talk) -> str:
    """What the user's turns say, one below the other."""
    return "\n".join(turn["content"] for turn in messages if turn["role"] == "user")
