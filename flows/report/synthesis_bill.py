"""What a synthesis cost: every try to get a reply, failed ones included, how it ended and how long it took."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.report.book import Book
from flows.report.charts import spans_a_decade
from flows.report.synthesis_reasons import ANSWERED, ended_as
from flows.report.text import label

BINS = 30
HERE = "on this machine"  # a model that is no endpoint has no name in a request
SHORTEST_S = 1e-6  # what took no time at all has its place on a logarithmic axis too


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over tries. `usd` is None where no try has a price, `priced` counts those that have; `p50` and `p95` are
    seconds of one try, over the `timed` ones."""

    model: str
    requests: int
    tries: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    failed_usd: float
    priced: int
    p50: float | None
    p95: float | None
    timed: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Ended:
    """Tries that ended in one way. `p50` is their median in seconds."""

    outcome: str
    words: str
    tries: int
    p50: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Histogram of seconds per try over `edges` (b + 1,), logarithmic where `log` says so."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    log: bool
    p50: float
    p95: float
    n: int


@dataclass(frozen=True, slots=True)
class Bill:
    """All tries together, by model and by how they ended. `replies` counts requests that were answered."""

    all: Sums
    by_model: tuple[Sums, ...]
    replies: int
    ended: tuple[Ended, ...]
    latency: Latency | None


def bill_of(book: Book, key: str) -> Bill | None:
    """None where the synthesis noted no try."""
    by_model = _sums(book, key, "model")
    if not by_model:
        return None
    (total,) = _sums(book, key, "''")
    replies = book.rows("SELECT count(DISTINCT reply) AS n FROM replies WHERE generation = ?", key)[0]["n"]
    return Bill(total, tuple(by_model), replies, _ended(book, key), _latency(book, key, total))


def _sums(book: Book, key: str, by: str) -> list[Sums]:
    rows = book.rows(
        f"""SELECT {by} AS model, count(DISTINCT reply) AS requests, count(*) AS tries,
                   count(*) FILTER (NOT outcome = ANY($2)) AS failed,
                   coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
                   coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens, sum(cost_usd) AS usd,
                   coalesce(sum(cost_usd) FILTER (NOT outcome = ANY($2)), 0) AS failed_usd, count(cost_usd) AS priced,
                   quantile_cont(seconds, 0.5) AS p50, quantile_cont(seconds, 0.95) AS p95, count(seconds) AS timed
            FROM attempts WHERE generation = $1 GROUP BY ALL ORDER BY tries DESC, model""",
        key,
        list(ANSWERED),
    )
    return [Sums(**{**row, "model": label(row["model"] or HERE)}) for row in rows]


def _ended(book: Book, key: str) -> tuple[Ended, ...]:
    rows = book.rows(
        """SELECT coalesce(outcome, '') AS outcome, count(*) AS tries, median(seconds) AS p50
           FROM attempts WHERE generation = ? GROUP BY ALL ORDER BY tries DESC, outcome""",
        key,
    )
    return tuple(Ended(label(row["outcome"]), ended_as(row["outcome"]), row["tries"], row["p50"]) for row in rows)


def _latency(book: Book, key: str, total: Sums) -> Latency | None:
    if total.p50 is None or total.p95 is None:
        return None
    seconds = f"SELECT greatest(seconds, {SHORTEST_S}) AS s FROM attempts WHERE generation = ? AND seconds IS NOT NULL"
    ends = book.rows(f"SELECT min(s) AS low, max(s) AS high FROM ({seconds})", key)[0]
    log = spans_a_decade([ends["low"], ends["high"]])
    low = math.log10(ends["low"]) if log else 0.0
    width = ((math.log10(ends["high"]) if log else ends["high"]) - low) / BINS
    found = book.rows(
        f"""SELECT least(greatest(floor(({"log10(s)" if log else "s"} - ?) / ?), 0), ?)::INT AS bin, count(*) AS n
            FROM ({seconds}) GROUP BY ALL""",
        low,
        width,
        BINS - 1,
        key,
    )
    return Latency(_edges(low, width, log), _filled(found), log, total.p50, total.p95, total.timed)


def _edges(low: float, width: float, log: bool) -> tuple[float, ...]:
    edges = (low + width * place for place in range(BINS + 1))
    return tuple(10.0**edge if log else edge for edge in edges)


def _filled(found: Sequence[Mapping[str, int]]) -> tuple[int, ...]:
    counts = {row["bin"]: row["n"] for row in found}
    return tuple(counts.get(place, 0) for place in range(BINS))
