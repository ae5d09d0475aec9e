"""`lexical`: rows that share character trigrams with the targets. No model, so it is the baseline a model must beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.buckets import check_dims
from selection.by_turns import ListPolicy, choose_by_turns
from selection.problem import Problem
from selection.trigrams import DIMS, spec
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class Lexical:
    """Targets, or tasks where there are several, take turns as in RDS+, by the cosine of hashed trigram sets.

    dims    buckets that trigrams are hashed into
    policy  how turns go: see `rds_plus`

    Scores are the cosines that pulled the rows in; higher is better. Raises `InputError` without targets.
    """

    compares: ClassVar[bool] = True

    dims: int = DIMS
    policy: ListPolicy = "retry"

    def __post_init__(self) -> None:
        check_dims(self.dims, DIMS)

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"trigrams": spec(self.dims)}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        return choose_by_turns(problem, "trigrams", self.policy)
