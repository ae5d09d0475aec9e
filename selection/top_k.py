"""`top_k`: the rows most like the target set as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.problem import Problem
from selection.targets import Targets, mean_direction, nearest, targets_of, told
from selection.topk import Lists, top_lists
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class TopK:
    """Rows ranked by their cosine with the targets: mean over tasks of the mean, or of the largest, within each task.

    representation  the signal to compare in: model, template, pooling and maximum length
    aggregate       `mean` is one dot product per row, with the mean direction of the targets; `max` is the mean-max
                    that Ivison et al. 2025 compare with round-robin

    Every task weighs the same, however many targets it has. Scores are those means; higher is better. The reason names
    the nearest target. Raises `InputError` without targets and for vectors that are not finite.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    aggregate: Literal["mean", "max"] = "mean"

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = targets_of(problem, "representation")
        top = top_lists(problem, self._lists(targets), problem.budget)
        rows, scores = top.rows[0], top.scores[0]
        facts = {
            "aggregate": self.aggregate,
            "targets": targets.m,
            **summary(scores, HIGHER),
            "rows_of_length_0": top.census.zero,
            "pool_scores": top.census.histogram(problem.n),
        }
        return selection(rows, scores, told(targets, nearest(problem, targets, rows)), HIGHER, **facts)

    def _lists(self, targets: Targets) -> Lists:
        if self.aggregate == "max":
            return Lists(targets.signal, targets.values, targets.starts, average=True)
        return Lists(targets.signal, mean_direction(targets), np.zeros(1, np.int64))
