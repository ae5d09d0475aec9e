"""How each ability grows with the rows that a model was tuned on, against what guessing would give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.growth import Growth, growth
from eval.metrics import OVER_ALL
from eval.slices import SMALL, UNSAID
from flows.report.book import Book
from flows.report.item_tables import items_of
from flows.report.results import BASE, Board
from flows.report.text import label
from warehouse.records import Estimate

METHODS = 6  # of the best at the largest budget, beside the baselines
ABILITIES = 12  # charts that are not folded away
SHOWN = 36  # charts


@dataclass(frozen=True, slots=True)
class Curve:
    """One method's value by budget, smallest first; budget 0 is the base model, where every method starts."""

    method: str
    points: tuple[tuple[int, Estimate], ...]


@dataclass(frozen=True, slots=True)
class Ability:
    """The curves of one ability. `chance` is what guessing would give, None where replies are free."""

    name: str
    n: int
    chance: float | None
    curves: tuple[Curve, ...]

    @property
    def is_small(self) -> bool:
        return self.n < SMALL


@dataclass(frozen=True, slots=True)
class Growing:
    """All abilities of one task by its main metric. `methods_out` and `left_out` count what is not shown."""

    board: Board
    methods: tuple[str, ...]
    methods_out: int
    abilities: tuple[Ability, ...]
    left_out: int

    @property
    def is_folded(self) -> bool:
        return len(self.abilities) > ABILITIES


def growing_of(book: Book, boards: Sequence[Board]) -> tuple[Growing, ...]:
    """For the first metric of each task that is a mean over items; nothing of tasks whose items name no ability."""
    first: dict[str, Board] = {}
    for board in boards:
        if board.task != OVER_ALL and board.meant.statistic is None:
            first.setdefault(board.task, board)
    return tuple(found for board in first.values() if (found := _growing(book, board)) is not None)


def _growing(book: Book, board: Board) -> Growing | None:
    methods, out = _methods(board)
    results = [r for r in board.results if r.method in methods or r.method == BASE]
    if len({r.budget for r in results}) < 2:
        return None
    tables = items_of(book, results, board.meant.reads)
    if tables is None or not any(name for table in tables[0].values() for name in table["ability"].to_pylist()):
        return None
    by_result = list(zip(results, tables, strict=True))
    start = {r.budget: table for r, table in by_result if r.method == BASE}
    grown = {
        method: growth(
            start | {r.budget: table for r, table in by_result if r.method == method},
            board.metric,
            np.random.default_rng(0),
        )
        for method in methods
    }
    names = sorted({name for each in grown.values() for name in each}, key=lambda name: (not name, name))
    abilities = [_ability(name, {method: each[name] for method, each in grown.items()}) for name in names]
    return Growing(board, methods, out, tuple(abilities[:SHOWN]), max(0, len(abilities) - SHOWN))


def _methods(board: Board) -> tuple[tuple[str, ...], int]:
    """The best methods at the largest budget and the baselines that were tuned; and how many are left out."""
    ordered = sorted((r for r in board.results if r.method != BASE), key=lambda r: -r.budget)
    raced = list(dict.fromkeys(r.method for r in ordered if not r.is_baseline))
    baselines = list(dict.fromkeys(r.method for r in ordered if r.is_baseline))
    return (*raced[:METHODS], *baselines), max(0, len(raced) - METHODS)


def _ability(name: str, grown: dict[str, Growth]) -> Ability:
    curves = tuple(Curve(method, each.points) for method, each in grown.items())
    first = next(iter(grown.values()))
    return Ability(label(name or UNSAID), first.points[0][1].n, first.chance, curves)
