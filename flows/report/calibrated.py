"""Whether a model's confidence says how often it is right: the reliability table of the best methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eval.calibration import Bin, reliability
from eval.metrics import METRICS, right_of
from eval.repeats import averaged
from flows.report.book import Book
from flows.report.item_tables import items_of
from flows.report.results import BASE, Board, Result
from warehouse.records import Floats

ECE = "ece"
SHOWN = 8  # diagrams of one task, beside those of the control and the base model


@dataclass(frozen=True, slots=True)
class Reliability:
    """One result's answers of all seeds in bins of confidence; its value is the calibration error, mean over seeds."""

    result: Result
    bins: tuple[Bin, ...]

    @property
    def n(self) -> int:
        return sum(each.n for each in self.bins)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One task whose items have a confidence and are right or wrong; `right` says which value tells.

    `left_out` counts methods at the largest budget that are not shown.
    """

    board: Board
    right: str
    diagrams: tuple[Reliability, ...]
    left_out: int


def calibrated_of(book: Book, boards: Sequence[Board]) -> tuple[Calibrated, ...]:
    """The tasks of the run that have a calibration error, of which nothing was pruned since."""
    found = (_calibrated(book, board) for board in boards if board.metric == ECE)
    return tuple(each for each in found if each is not None)


def _calibrated(book: Book, board: Board) -> Calibrated | None:
    largest = max(board.budgets, default=0)
    raced = [r for r in board.results if r.budget == largest and not r.is_baseline]
    beside = [r for r in board.results if r.method == BASE or (r.budget == largest and r.is_control)]
    results = [*raced[:SHOWN], *beside]
    names = [m.column for m in METRICS.values() if m.share and m.higher_is_better]
    tables = items_of(book, results, ["confidence", *names])
    if tables is None:
        return None
    right = right_of(pc.unique(next(iter(tables[0].values()))["metric"]).to_pylist())
    if right is None:
        return None
    diagrams = [_diagram(result, table, right) for result, table in zip(results, tables, strict=True)]
    return Calibrated(board, right, tuple(diagrams), max(0, len(raced) - SHOWN))


def _diagram(result: Result, tables: dict[int, pa.Table], right: str) -> Reliability:
    rights, confidences = (
        np.concatenate([_column(table, name) for table in tables.values()]) for name in (right, "confidence")
    )
    return Reliability(result, reliability(rights, confidences))


def _column(table: pa.Table, name: str) -> Floats:
    """(n,) one per-item value, in the order of the items' ids."""
    values: Any = averaged(table.filter(pc.equal(table["metric"], name)))["value"].to_numpy()
    return np.asarray(values, np.float64)
