"""`deita`: the rows that score best, each unlike those before it (Liu et al. 2024, arXiv 2312.15685).

The filter itself is in `selection.packing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.histogram import histogram
from selection.packing import Packing, packing
from selection.problem import Problem
from selection.survey import survey
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

COLUMNS = ("product", "complexity", "quality")


@dataclass(frozen=True, slots=True)
class Deita:
    """Rows in the order of their score; one is taken if its cosine with every row taken is at most `threshold`.

    representation  the signal to compare in: model, template, pooling and maximum length
    scores          the signal of the scorers: sums over turns of complexity times quality, of complexity, of quality
    threshold       the Repr filter's largest cosine between two rows; from 1 on nothing is filtered
    by              what ranks: the sum of products, or one of the two

    The filter stops at the budget. If too few rows pass it, the best of the others follow, `filled`. Scores are the
    ranking's; higher is better; taken rows come first. A row of length 0 resembles nothing. Raises `InputError` for
    scores or vectors that are not finite.
    """

    compares: ClassVar[bool] = False

    representation: Spec
    scores: Spec
    threshold: float = 0.9
    by: Literal["product", "complexity", "quality"] = "product"

    def __post_init__(self) -> None:
        if not self.threshold > -1:
            raise InputError(f"threshold is {self.threshold}; give a cosine above -1, such as 0.9, or 1 for no filter")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation, "scores": self.scores}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        scores = scores_of(problem)
        ranking = scores[:, COLUMNS.index(self.by)]
        zero = survey(problem, "representation").zero
        order = np.lexsort((np.arange(problem.n), problem.keys, -ranking))
        passed = self._passed(problem, order)
        rows = _filled_up(order, passed, problem.budget)
        filled = problem.budget - len(passed.places)
        facts = {
            "by": self.by,
            "scanned": passed.scanned,
            "rejected": passed.scanned - len(passed.places),
            "filled": {"similar": filled},
            **summary(ranking[rows], HIGHER),
            "rows_of_length_0": len(zero),
            "pool_scores": histogram(ranking),
        }
        reasons = _reasons(scores[rows], filled)
        return selection(rows, ranking[rows], reasons, HIGHER, **facts)

    def _passed(self, problem: Problem, order: Rows) -> Packing:
        if self.threshold >= 1:
            return Packing(np.arange(problem.budget), problem.budget)
        return packing(problem.candidates["representation"], order, self.threshold, problem.budget)


def scores_of(problem: Problem) -> Floats:
    """(n, 3): sums over turns of complexity times quality, of complexity, of quality.

    Raises `InputError` where one is not finite.
    """
    scores = np.asarray(problem.candidates["scores"][0 : problem.n], np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(COLUMNS):
        raise ValueError(f"signal 'scores' must be (n, {len(COLUMNS)}), found {scores.shape}")
    if len(broken := np.flatnonzero(~np.isfinite(scores).all(axis=1))):
        raise InputError(
            f"{len(broken)} of {problem.n} rows have 'scores' that are NaN or infinite, "
            f"the first is row {broken[0]}: measure them again"
        )
    return scores


def _filled_up(order: Rows, passed: Packing, budget: int) -> Rows:
    """The rows that passed the filter, then the best of the others."""
    others = np.delete(order, passed.places)
    return np.concatenate([order[passed.places], others[: budget - len(passed.places)]])


def _reasons(scores: Floats, filled: int) -> list[str]:
    told = [" ".join(f"{name}={value:.4g}" for name, value in zip(COLUMNS, line, strict=True)) for line in scores]
    first = len(told) - filled
    return told[:first] + [f"{each} filled=similar" for each in told[first:]]
