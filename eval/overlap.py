"""Which rows of one set are also in another: test rows must be in neither the pool, the selection nor the target set.

Rows are compared by `sample_id` (the same conversation) and by `prompt_id` (the same question, whatever the answer;
case and white space folded). Plain functions of id arrays: a caller reads them from a table.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.records import Example, Rows

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Ids:
    """`sample_id` and `prompt_id` of n rows, each (n,) of str, in row order."""

    sample: NDArray[np.str_]
    prompt: NDArray[np.str_]


def ids_of(examples: Iterable[Example]) -> Ids:
    pairs = [(example.sample_id, example.prompt_id) for example in examples]
    return Ids(np.array([s for s, _ in pairs], np.str_), np.array([p for _, p in pairs], np.str_))


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows of a set that a test set also holds: `same_row` with their answer, `same_prompt` at least the question.

    Row numbers (k,) of the set, ascending. Every row of `same_row` is in `same_prompt` too.
    """

    same_row: Rows
    same_prompt: Rows

    def __bool__(self) -> bool:
        return len(self.same_prompt) > 0

    def counts(self) -> dict[str, int]:
        return {"same_row": len(self.same_row), "same_prompt": len(self.same_prompt)}


def overlap(rows: Ids, test: Ids) -> Overlap:
    """The rows that are also in the test set."""
    same_row = np.isin(rows.sample, test.sample)
    same_prompt = same_row | np.isin(rows.prompt, test.prompt)
    return Overlap(np.flatnonzero(same_row), np.flatnonzero(same_prompt))


def require_disjoint(target: Ids, test: Ids) -> None:
    """Raise `InputError` where the target set, which guides selection, shares a question with the test set."""
    if shared := overlap(target, test):
        rows = ", ".join(str(row) for row in shared.same_prompt[:SHOWN])
        raise InputError(
            f"{len(shared.same_prompt)} of {len(target.sample)} target rows are also in the test set (target rows "
            f"{rows}{', ...' if len(shared.same_prompt) > SHOWN else ''}), so the test would reward what selection was "
            "shown; take them out of one of the two"
        )
