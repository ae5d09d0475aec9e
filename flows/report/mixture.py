"""Mixture before and after: what the pool is made of, and what each method made of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from flows.report.book import Book
from flows.report.chosen import Picks
from flows.report.text import label

KINDS = 30  # rows of a table
COLUMNS = 12  # methods of a table and a chart
FOLLOWED = 500  # kinds, by their rows in the pool; the others are counted together
UNSTATED, REST = "(not stated)", "(all other kinds)"


@dataclass(frozen=True, slots=True)
class Column:
    """The pool, or one method at one budget: rows by kind, summed over `seeds` seeds."""

    name: str
    method: str
    seeds: int
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def share(self, kind: str) -> float:
        return self.counts.get(kind, 0) / max(1, self.total)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares by `what` ("source", "skill" or "noise"); the pool is the first column.

    `kinds` are ordered by their share in the pool; those beyond `KINDS` and methods beyond `COLUMNS` are counted only.
    """

    what: str
    columns: tuple[Column, ...]
    kinds: tuple[str, ...]
    kinds_left_out: int
    columns_left_out: int

    @property
    def leading(self) -> list[str]:
        """Kinds by the largest share they have anywhere."""
        return sorted(self.kinds, key=lambda kind: -max(column.share(kind) for column in self.columns))


WHATS = ("source", "skill", "noise")


def mixtures_of(book: Book, picks: Picks) -> dict[str, Mixture | None]:
    """By source, skill and noise; None for what no row of the pool states."""
    if not picks.picks:
        return dict.fromkeys(WHATS)
    book.connection.execute(
        """CREATE TEMP TABLE pooled AS SELECT source, meta->>'skill' AS skill, meta->>'noise' AS noise
           FROM samples WHERE pool = ANY(?)""",
        [picks.pools],
    )
    return {what: _mixture(book, picks, what) for what in WHATS}


def _mixture(book: Book, picks: Picks, what: str) -> Mixture | None:
    sql = f"SELECT {what} AS kind, count(*) AS n FROM pooled GROUP BY ALL ORDER BY n DESC, kind LIMIT ?"
    pool = book.rows(sql, FOLLOWED)
    if all(row["kind"] is None for row in pool):
        return None
    rest = book.rows("SELECT count(*) AS n FROM pooled")[0]["n"] - sum(row["n"] for row in pool)
    known = {_kind(row["kind"]) for row in pool}
    counts: dict[str, dict[str, int]] = {}
    for row in book.rows(f"SELECT selection, {what} AS kind, count(*) AS n FROM chosen GROUP BY ALL"):
        kind = _kind(row["kind"]) if _kind(row["kind"]) in known else REST
        mine = counts.setdefault(row["selection"], {})
        mine[kind] = mine.get(kind, 0) + row["n"]
    parts = [{_kind(row["kind"]): row["n"]} for row in pool]
    columns = [Column("pool", "", 0, _summed([*parts, {REST: rest} if rest else {}]))]
    for first in picks.firsts[:COLUMNS]:
        keys = [pick.key for pick in picks.picks if pick.arm == first.arm]
        columns.append(Column(first.arm, first.method, len(keys), _summed([counts.get(key, {}) for key in keys])))
    kinds = sorted({kind for column in columns for kind in column.counts}, key=lambda k: (-columns[0].share(k), k))
    beyond = max(0, len(kinds) - KINDS), max(0, len(picks.firsts) - COLUMNS)
    return Mixture(what, tuple(columns), tuple(kinds[:KINDS]), *beyond)


def _kind(value: object) -> str:
    return UNSTATED if value is None else label(value)


def _summed(parts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for kind, n in part.items():
            total[kind] = total.get(kind, 0) + n
    return total
