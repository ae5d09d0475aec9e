"""Test items worth looking at: what every method got wrong, and what the best method alone got right."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.book import Book
from flows.report.results import BASE, Board, Result
from flows.report.text import Excerpt, excerpt, label

ITEMS = 10  # of each kind


@dataclass(frozen=True, slots=True)
class Failure:
    """One test item with the best method's reply and, where that is the point, the control's; of the first seed."""

    item_id: str
    group: str
    prompt: Excerpt
    gold: Excerpt
    reply: Excerpt
    control_reply: Excerpt | None


@dataclass(frozen=True, slots=True)
class FailureSection:
    """Items of one board at its largest budget, over all seeds. The counts are of all items, shown or not."""

    board: Board
    best: Result
    methods: int
    never: tuple[Failure, ...]
    never_count: int
    gained: tuple[Failure, ...]
    gained_count: int


def failures_of(book: Book, boards: Sequence[Board]) -> FailureSection | None:
    """For the first metric that says of each item right or wrong; None where there is none."""
    for board in boards:
        if board.higher_is_better and board.budgets and (found := _failures(book, board)):
            return found
    return None


def _failures(book: Book, board: Board) -> FailureSection | None:
    budget = board.budgets[-1]
    raced = [r for r in board.results if r.budget == budget and r.method != BASE]
    best, control = board.best(budget), board.control(budget)
    if best is None or not _graded(book, board, raced):
        return None
    never = _items(book, "max(value) = 0")
    gained = _items(book, _ONLY_BEST, list(best.evaluations), list(control.evaluations)) if control else []
    return FailureSection(
        board=board,
        best=best,
        methods=len(raced),
        never=_shown(book, board, never[:ITEMS], best, None),
        never_count=len(never),
        gained=_shown(book, board, gained[:ITEMS], best, control),
        gained_count=len(gained),
    )


_ONLY_BEST = "min(value) FILTER (evaluation = ANY(?)) = 1 AND max(value) FILTER (evaluation = ANY(?)) = 0"


def _graded(book: Book, board: Board, raced: Sequence[Result]) -> bool:
    """Whether every item was either right or wrong; the outcomes are then in the temporary table `graded`."""
    book.connection.execute(
        """CREATE OR REPLACE TEMP TABLE graded AS SELECT evaluation, item_id, value FROM eval_items
           WHERE metric = ? AND evaluation = ANY(?)""",
        [board.meant.column, [key for result in raced for key in result.evaluations]],
    )
    return bool(book.rows("SELECT bool_and(value IN (0, 1)) AS yes FROM graded")[0]["yes"])


def _items(book: Book, condition: str, *values: object) -> list[str]:
    """Items by what all their outcomes say, in an order that does not follow the test set."""
    sql = f"SELECT item_id FROM graded GROUP BY item_id HAVING {condition} ORDER BY md5(item_id)"
    return [row["item_id"] for row in book.rows(sql, *values)]


def _shown(book: Book, board: Board, items: Sequence[str], best: Result, control: Result | None) -> tuple[Failure, ...]:
    if not items:
        return ()
    evaluations = {"best": best.evaluations[0]} | ({"control": control.evaluations[0]} if control else {})
    rows = book.rows(
        """SELECT evaluation, item_id, "group", prompt, reply, gold FROM eval_items
           WHERE metric = ? AND evaluation = ANY(?) AND item_id = ANY(?)""",
        board.meant.column,
        list(evaluations.values()),
        list(items),
    )
    found = {(row["evaluation"], row["item_id"]): row for row in rows}
    return tuple(
        Failure(
            item_id=label(item),
            group=label(row["group"] or ""),
            prompt=excerpt(row["prompt"]),
            gold=excerpt(row["gold"]),
            reply=excerpt(row["reply"]),
            control_reply=excerpt(found[evaluations["control"], item]["reply"]) if control else None,
        )
        for item in items
        if (row := found.get((evaluations["best"], item)))
    )
