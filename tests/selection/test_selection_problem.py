"""A problem checks itself: the budget against the pool, and its arrays against each other."""

import numpy as np
import pytest

from selection.problem import KEYS, InProcess, Problem
from warehouse.errors import InputError

KEYS_OF_5 = np.array([3, 1, 4, 1, 5], np.uint64)


@pytest.mark.parametrize(
    ("budget", "n", "message"),
    [
        (0, 5, "budget is 0 rows"),
        (-3, 5, "budget is -3 rows"),
        (6, 5, "budget is 6 rows but the pool has 5"),
        (1, 0, "empty"),
    ],
)
def test_a_budget_must_fit_the_pool(budget, n, message):
    with pytest.raises(InputError, match=message):
        Problem(budget=budget, keys=KEYS_OF_5[:n])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keys": np.arange(5)}, "uint64"),
        ({"keys": KEYS_OF_5[:, None]}, "uint64"),
        ({"candidates": {"a": np.zeros((4, 2))}}, r"5 candidates.*'a': \(4, 2\)"),
        ({"candidates": {KEYS: np.zeros(5)}}, "cannot name a signal"),
        ({"groups": {"source": np.zeros(6)}}, "'group source'"),
        ({"costs": np.zeros(3, np.int64)}, "costs"),
        ({"targets": {"a": np.zeros((2, 2))}}, "0 targets"),
        ({"candidates": {"a": np.zeros((5, 3))}, "targets": {"a": np.zeros((2, 2))}, "target_task": [0, 0]}, "per row"),
        ({"target_task": [0, -1]}, "negative task"),
        ({"target_task": [0, 2], "task_names": ("x", "y")}, "task 2"),
    ],
)
def test_arrays_must_fit_together(fields, message):
    if "target_task" in fields:
        fields["target_task"] = np.array(fields["target_task"])
    with pytest.raises(ValueError, match=message):
        Problem(**{"budget": 1, "keys": KEYS_OF_5, **fields})


def test_equal_keys_are_ordered_by_row():
    assert Problem(budget=1, keys=KEYS_OF_5).by_key.tolist() == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("block_rows", [1, 2, 5, 9])
def test_blocks_cover_every_row_once_in_order_with_its_key(block_rows, threads):
    problem = Problem(
        budget=1, keys=KEYS_OF_5, candidates={"a": np.arange(5.0)}, reducer=InProcess(block_rows, threads)
    )
    seen = problem.reduce(lambda block: [(block.start, block.stop, block.signals)], lambda one, other: one + other)
    assert [start for start, _, _ in seen] == list(range(0, 5, block_rows))
    assert np.concatenate([signals["a"] for _, _, signals in seen]).tolist() == [0, 1, 2, 3, 4]
    assert np.concatenate([signals[KEYS] for _, _, signals in seen]).tolist() == KEYS_OF_5.tolist()
