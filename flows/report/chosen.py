"""What was chosen: the run's selections, their scores against the pool's, and how far they overlap."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from flows.report.book import Book
from flows.report.results import arm
from flows.report.text import label
from warehouse.records import Floats

BINS = 30  # of a histogram where the method does not say how the pool's scores lie
HISTOGRAMS = 12
MATRIX = 14  # methods of one overlap matrix


@dataclass(frozen=True, slots=True)
class Pick:
    """One selection: a method at a budget with a seed. `arm` names the first two."""

    key: str
    pool: str
    method: str
    budget: int
    seed: int
    rows: int
    direction: str
    diagnostics: Mapping[str, Any]
    arm: str

    @property
    def has_scores(self) -> bool:
        return self.direction != "none"


@dataclass(frozen=True, slots=True)
class Picks:
    """All selections of the run in the order they were made. `lost` counts those that are in the store no more."""

    picks: tuple[Pick, ...]
    lost: int

    @property
    def pools(self) -> list[str]:
        return list(dict.fromkeys(pick.pool for pick in self.picks))

    @property
    def seeds(self) -> list[int]:
        return sorted({pick.seed for pick in self.picks})

    @property
    def budgets(self) -> list[int]:
        return sorted({pick.budget for pick in self.picks})

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(pick.method for pick in self.picks))

    @property
    def firsts(self) -> list[Pick]:
        """Of every method and budget the selection of the lowest seed."""
        lowest: dict[str, Pick] = {}
        for pick in sorted(self.picks, key=lambda pick: pick.seed):
            lowest.setdefault(pick.arm, pick)
        return [lowest[name] for name in dict.fromkeys(pick.arm for pick in self.picks)]


def picks_of(book: Book) -> Picks:
    """The run's selections; the rows they chose are then in the temporary table `chosen`, without their texts."""
    keys = book.keys("select")
    found = {row["selection"]: row for row in book.rows("SELECT * FROM selections WHERE selection = ANY(?)", keys)}
    budgets = {row["budget"] for row in found.values()}
    picks = tuple(_pick(found[key], len(budgets) > 1) for key in keys if key in found)
    book.connection.execute(
        """CREATE TEMP TABLE chosen AS
           SELECT selection, budget, seed, pool, "row", score, source, meta->>'skill' AS skill, meta->>'noise' AS noise
           FROM selected WHERE selection = ANY(?)""",
        [keys],
    )
    return Picks(picks, len(keys) - len(picks))


def _pick(row: Mapping[str, Any], several_budgets: bool) -> Pick:
    return Pick(
        key=row["selection"],
        pool=row["pool"],
        method=label(row["method"]),
        budget=row["budget"],
        seed=row["seed"],
        rows=row["rows"],
        direction=row["direction"],
        diagnostics=json.loads(row["diagnostics"] or "{}"),
        arm=arm(label(row["method"]), row["budget"], several_budgets),
    )


@dataclass(frozen=True, slots=True)
class Scores:
    """Histogram of one selection's scores over `edges` (b + 1,), beside the pool's where the method noted those.

    `cut` is the score at the edge of what was chosen: the lowest chosen one where higher is better.
    """

    pick: Pick
    edges: Floats
    chosen: tuple[int, ...]
    pool: tuple[int, ...] | None
    cut: float


@dataclass(frozen=True, slots=True)
class ScoreSection:
    """`without` names the arms whose method gives no scores; `left_out` counts arms beyond `HISTOGRAMS`."""

    scores: tuple[Scores, ...] = ()
    without: tuple[str, ...] = ()
    left_out: int = 0


def scores_of(book: Book, picks: Picks) -> ScoreSection:
    """One histogram per method and budget, of the lowest seed."""
    scored = [pick for pick in picks.firsts if pick.has_scores]
    values = _values(book, scored[:HISTOGRAMS])
    drawn = [_scores(pick, values[pick.key]) for pick in scored[:HISTOGRAMS] if pick.key in values]
    without = tuple(pick.arm for pick in picks.firsts if not pick.has_scores)
    return ScoreSection(tuple(drawn), without, max(0, len(scored) - HISTOGRAMS))


def _values(book: Book, picks: Sequence[Pick]) -> dict[str, Floats]:
    """Selection key to its finite scores, where it has any."""
    rows = book.rows(
        """SELECT selection, list(score) AS scores FROM chosen
           WHERE selection = ANY(?) AND isfinite(score) GROUP BY ALL""",
        [pick.key for pick in picks],
    )
    return {row["selection"]: np.array(row["scores"], np.float64) for row in rows}


def _scores(pick: Pick, values: Floats) -> Scores:
    edges, pool = _pool_scores(pick.diagnostics) or (_edges(values), None)
    inside = np.clip(values, edges[0], edges[-1])
    chosen = tuple(np.histogram(inside, edges)[0].tolist())
    cut = values.max() if pick.direction.startswith("lower") else values.min()
    return Scores(pick, edges, chosen, pool, float(cut))


def _pool_scores(diagnostics: Mapping[str, Any]) -> tuple[Floats, tuple[int, ...]] | None:
    """(edges, counts) as the method noted them; None where it did not, or where they do not fit together."""
    noted = diagnostics.get("pool_scores")
    if not isinstance(noted, dict):
        return None
    edges, counts = noted.get("edges", []), noted.get("counts", [])
    if len(edges) != len(counts) + 1 or len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
        return None
    counted = sum(counts)
    scale = max(1.0, noted.get("of", counted) / counted) if counted else 1.0  # of a large pool a part was counted
    return np.array(edges, np.float64), tuple(round(n * scale) for n in counts)


def _edges(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


@dataclass(frozen=True, slots=True)
class Shared:
    """Jaccard overlap of two selections: its mean over seeds, each seed's, and the rows shared on average."""

    jaccard: float
    by_seed: tuple[float, ...]
    rows: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap of all pairs of methods at one budget; None where two methods have no seed in common.

    `expected` is the overlap of two random draws of that size from the candidates, where their number is known.
    """

    budget: int
    methods: tuple[str, ...]
    cells: tuple[tuple[Shared | None, ...], ...]
    expected: float | None
    candidates: int | None
    left_out: int = field(default=0)


def overlaps_of(book: Book, picks: Picks, candidates: int | None) -> tuple[Overlap, ...]:
    """One matrix per budget with two methods or more."""
    common = {
        (row["a"], row["b"]): row["n"]
        for row in book.rows(
            """SELECT a.selection AS a, b.selection AS b, count(*) AS n
               FROM chosen a JOIN chosen b USING (pool, "row", budget, seed) GROUP BY ALL"""
        )
    }
    answer = []
    for budget in picks.budgets:
        mine = [pick for pick in picks.picks if pick.budget == budget]
        if len({pick.method for pick in mine}) > 1:
            answer.append(_overlap(budget, mine, common, candidates))
    return tuple(answer)


def _overlap(
    budget: int, picks: Sequence[Pick], common: Mapping[tuple[str, str], int], candidates: int | None
) -> Overlap:
    methods = list(dict.fromkeys(pick.method for pick in picks))
    shown = methods[:MATRIX]
    by_seed = {(pick.method, pick.seed): pick for pick in picks}
    seeds = sorted({pick.seed for pick in picks})

    def cell(a: str, b: str) -> Shared | None:
        pairs = [(by_seed[a, s], by_seed[b, s]) for s in seeds if (a, s) in by_seed and (b, s) in by_seed]
        return _shared(pairs, common)

    cells = tuple(tuple(cell(a, b) for b in shown) for a in shown)
    expected = None if candidates is None else expected_jaccard(budget, candidates)
    return Overlap(budget, tuple(shown), cells, expected, candidates, len(methods) - len(shown))


def _shared(pairs: Sequence[tuple[Pick, Pick]], common: Mapping[tuple[str, str], int]) -> Shared | None:
    if not pairs:
        return None
    rows = [common.get((a.key, b.key), 0) for a, b in pairs]
    parts = tuple(n / max(1, a.rows + b.rows - n) for n, (a, b) in zip(rows, pairs, strict=True))
    return Shared(float(np.mean(parts)), parts, float(np.mean(rows)))


def expected_jaccard(k: int, n: int) -> float:
    """Overlap of two random draws of k of n rows: k²/n rows are shared on average, of 2k - k²/n in either."""
    shared = k * k / max(1, n)
    return shared / (2 * k - shared)
