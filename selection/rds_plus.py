"""`rds_plus`: representation-based selection (Ivison et al. 2025, arXiv 2503.01807).

The turns themselves are in `selection.by_turns`, the merges in `selection.round_robin`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.by_turns import ListPolicy, choose_by_turns
from selection.problem import Problem
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class RdsPlus:
    """Targets, or tasks where there are several, take turns in choosing the row nearest to them by cosine.

    representation  the signal to compare in: model, template, pooling and maximum length
    policy          `retry` (algorithm 1), `consume` (the released code), or `global_max`: no turns, all rows ranked by
                    their largest cosine with any target (the released code's option for large pools)

    With several tasks a row's score in a task is its largest cosine with that task's targets. Scores are the
    cosines that pulled the rows in; higher is better. Raises `InputError` without targets and for vectors that are
    not finite; a row of length 0 has cosine 0 with everything.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    policy: ListPolicy = "retry"

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        return choose_by_turns(problem, "representation", self.policy)
