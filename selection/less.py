"""`less`: rows whose gradient would lower the loss of the targets (LESS: Xia et al. 2024, arXiv 2402.04333)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.problem import Problem
from selection.targets import nearest, targets_of, task_directions, told
from selection.topk import Lists, top_lists
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class Less:
    """Rows ranked by their influence: the largest over tasks of the mean cosine of gradients with the task's targets.

    gradient         the signal of a row: its gradient at each of c checkpoints as Adam would apply it, projected, of
                     unit length times the root of the checkpoint's share of the learning rate; (n, c p)
    target_gradient  the signal of a target: its plain gradient, projected in the same way

    The scores are then the weighted sums over checkpoints of the paper; higher is better. The reason names the target
    with the largest cosine. Raises `InputError` without targets and for vectors that are not finite; a row without
    gradient (no reply) has influence 0.
    """

    compares: ClassVar[bool] = True

    gradient: Spec
    target_gradient: Spec

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"gradient": self.gradient}

    @property
    def target_reads(self) -> Mapping[str, Spec]:
        return {"gradient": self.target_gradient}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = targets_of(problem, "gradient")
        tasks = Lists("gradient", np.rint(task_directions(targets)), np.zeros(1, np.int64))
        top = top_lists(problem, tasks, problem.budget)
        rows, scores = top.rows[0], top.scores[0]
        facts = {
            "targets": targets.m,
            "tasks": len(targets.tasks),
            **summary(scores, HIGHER),
            "rows_of_length_0": top.census.zero,
            "pool_scores": top.census.histogram(problem.n),
        }
        return selection(rows, scores, told(targets, nearest(problem, targets, rows)), HIGHER, **facts)
