"""`balanced_random`: the same number of random rows from every source, as far as each goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from selection.answer import NONE, selection
from selection.problem import Problem
from selection.random_rows import shuffled
from warehouse.errors import InputError
from warehouse.records import Rows, Selection, Spec


@dataclass(frozen=True, slots=True)
class BalancedRandom:
    """Uniform over sources, then over the rows of each: the baseline of Ivison et al. 2025 that is hard to beat.

    A source that runs out leaves its share to the others in equal parts. Any beginning of the answer is balanced too,
    so a smaller budget with the same seed draws the first of the same rows. Scores are 0 and have no direction.
    Raises `InputError` where the pool's rows have no source.
    """

    compares: ClassVar[bool] = False

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        if "source" not in problem.groups:
            raise InputError("balanced_random draws evenly from the sources of the pool, but its rows have no source")
        sources, source_of = np.unique(problem.groups["source"], return_inverse=True)
        order = shuffled(problem, rng)
        rows, rounds = take_turns(order, source_of[order], rng.permutation(len(sources)), problem.budget)
        names = [str(source) for source in sources[source_of[rows]]]
        reasons = [f"round={turn} source={name}" for turn, name in zip(rounds.tolist(), names, strict=True)]
        counts = np.bincount(source_of[rows], minlength=len(sources))
        per_source = {str(source): int(count) for source, count in zip(sources, counts, strict=True)}
        return selection(rows, np.zeros(len(rows)), reasons, NONE, per_source=per_source)


def take_turns(order: Rows, group: Rows, turn: NDArray[Any], n: int) -> tuple[Rows, Rows]:
    """The first n of the rows in `order` (m,) when their groups take turns, and the round (from 1) each was taken in.

    `group` (m,) is the group of each row of `order`, `turn` (g,) the place of each group within a round. A group out of
    rows is passed by: what it leaves is shared equally, and counts of groups that still have rows differ by at most 1.
    """
    rounds = np.empty(len(order), np.int64)
    together = np.argsort(group, kind="stable")
    firsts = np.searchsorted(group[together], group[together], side="left")
    rounds[together] = np.arange(len(order)) - firsts + 1
    chosen = np.lexsort((turn[group], rounds))[:n]
    return order[chosen], rounds[chosen]
