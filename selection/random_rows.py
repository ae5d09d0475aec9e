"""`random`: rows drawn uniformly without replacement, the control of every race."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.answer import NONE, selection
from selection.problem import Problem
from warehouse.records import Rows, Selection, Spec


@dataclass(frozen=True, slots=True)
class Random:
    """Every set of `budget` rows is equally likely; a smaller budget with the same seed is the beginning of a larger.

    Scores are 0 and have no direction: nothing was measured.
    """

    compares: ClassVar[bool] = False

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        rows = shuffled(problem, rng)[: problem.budget]
        reasons = [f"draw={place}" for place in range(1, len(rows) + 1)]
        return selection(rows, np.zeros(len(rows)), reasons, NONE)


def shuffled(problem: Problem, rng: np.random.Generator) -> Rows:
    """All rows (n,) in an order that depends on their keys and `rng`, not on where the pool keeps them."""
    return rng.permutation(problem.by_key)
