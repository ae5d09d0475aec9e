"""What an average hides: the best method against the control in parts of the test, and how steady replies are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics import OVER_ALL
from eval.slices import Slice, slices
from flows.report.book import Book
from flows.report.item_tables import items_of
from flows.report.results import Board, Result

SHOWN = 40  # slices


@dataclass(frozen=True, slots=True)
class Repeated:
    """How far the outcomes of `n` items asked `repeats` times agree: share that changed, mean sd of an item."""

    n: int
    repeats: int
    changed: float
    spread: float


@dataclass(frozen=True, slots=True)
class SliceSection:
    """The slices of one board at its largest budget, over all seeds; `left_out` counts those beyond `SHOWN`."""

    board: Board
    best: Result
    slices: tuple[Slice, ...]
    left_out: int
    repeated: Repeated | None


def sliced_of(book: Book, boards: Sequence[Board]) -> SliceSection | None:
    """Of the first metric that is a mean over items of one task, and whose items differ in something known; or None."""
    for board in boards:
        best = board.best(board.budgets[-1]) if board.budgets else None
        if best is None or board.task == OVER_ALL or board.meant.statistic is not None:
            continue
        if (section := _section(book, board, best)) is not None:
            return section
    return None


def _section(book: Book, board: Board, best: Result) -> SliceSection | None:
    control = board.control(best.budget)
    tables = items_of(book, [best, *([control] if control else [])], board.meant.reads)
    if tables is None:
        return None
    found = slices(tables[0], tables[1] if control else None, board.metric, np.random.default_rng(0))
    repeated = _repeated(book, board, best)
    if not found and repeated is None:
        return None
    return SliceSection(board, best, found[:SHOWN], max(0, len(found) - SHOWN), repeated)


def _repeated(book: Book, board: Board, best: Result) -> Repeated | None:
    rows = book.rows(
        """SELECT max(n) AS n, max(repeats) AS repeats, avg(changed) AS changed, avg(spread) AS spread FROM repeats
           WHERE evaluation = ANY(?) AND metric = ? HAVING count(*) > 0""",
        list(best.evaluations),
        board.meant.column,
    )
    return Repeated(**rows[0]) if rows else None
