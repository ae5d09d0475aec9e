"""Splits: disjoint at every level, the same in any order, and never a test without training."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.splits import CATEGORY, EXCLUDED, INSTANCE, LEVELS, TASK, TRAIN, Shares, split
from warehouse.errors import InputError

ROWS = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("tuv"), st.integers(0, 30)), max_size=80)
SHARES = st.builds(Shares, st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0, 0.9))


def levels(rows: list[tuple[str, str, int]], seed: int, shares: Shares | None = None) -> np.ndarray:
    return split([c for c, _, _ in rows], [t for _, t, _ in rows], [f"p{p}" for _, _, p in rows], seed, shares).level


@given(ROWS, st.integers(0, 9), SHARES)
def test_levels_are_disjoint(rows: list[tuple[str, str, int]], seed: int, shares: Shares) -> None:
    level = levels(rows, seed, shares)
    assert set(level) <= {*LEVELS, EXCLUDED}
    kept = [(row, at) for row, at in zip(rows, level, strict=True) if at != EXCLUDED]
    prompts = {at: {p for (_, _, p), of in kept if of == at} for at in LEVELS}
    for i, one in enumerate(LEVELS):
        for other in LEVELS[i + 1 :]:
            assert not prompts[one] & prompts[other]
    categories = {c for (c, _, _), at in kept if at == CATEGORY}
    assert not categories & {c for (c, _, _), at in kept if at in (TRAIN, INSTANCE, TASK)}
    tasks = {(c, t) for (c, t, _), at in kept if at == TASK}
    assert not tasks & {(c, t) for (c, t, _), at in kept if at in (TRAIN, INSTANCE)}


@given(ROWS, st.integers(0, 9), SHARES, st.randoms())
def test_order_does_not_matter(rows: list[tuple[str, str, int]], seed: int, shares: Shares, shuffle: Random) -> None:
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    assert levels([rows[i] for i in order], seed, shares).tolist() == levels(rows, seed, shares)[order].tolist()


@given(ROWS, st.integers(0, 9), SHARES)
def test_what_is_tested_was_trained_on_one_level_below(
    rows: list[tuple[str, str, int]], seed: int, shares: Shares
) -> None:
    """Before shared prompts are excluded: a task with held-out instances has others, and so on."""
    own = [(c, t, 1000 * i + p) for i, (c, t, p) in enumerate(rows)]  # no prompt twice
    level = levels(own, seed, shares)
    trained = {(c, t) for (c, t, _), at in zip(own, level, strict=True) if at == TRAIN}
    for (c, t, _), at in zip(own, level, strict=True):
        if at == INSTANCE:
            assert (c, t) in trained
        if at == TASK:
            assert c in {category for category, _ in trained}
    assert EXCLUDED not in level


def test_shares_are_kept() -> None:
    rows = [
        (f"category {c}", f"task {t}", 1000 * c + 100 * t + p) for c in range(10) for t in range(10) for p in range(100)
    ]
    found = split(
        [c for c, _, _ in rows], [t for _, t, _ in rows], [str(p) for _, _, p in rows], 3, Shares(0.2, 0.1, 0.3)
    ).counts()
    assert found[CATEGORY] == 2000
    assert found[TASK] == 800
    assert found[INSTANCE] == pytest.approx(0.3 * 7200, rel=0.1)
    assert sum(found.values()) == 10_000


def test_a_prompt_keeps_its_place_when_others_come() -> None:
    few = [("A", "t", p) for p in range(50)]
    before, after = (
        levels(rows, 0, Shares(0, 0, 0.3)) for rows in (few, [*few, *[("A", "t", p) for p in range(50, 90)]])
    )
    assert before.tolist() == after[:50].tolist()


def test_a_small_task_is_not_tested_on_what_it_trains_on() -> None:
    assert levels([("A", "t", 1)], 0, Shares(0.9, 0.9, 0.9)).tolist() == [TRAIN]
    assert set(levels([("A", "t", 1), ("A", "t", 1)], 0, Shares(0, 0, 0.99))) == {TRAIN}
    assert sorted(levels([("A", "t", 1), ("A", "t", 2)], 0, Shares(0, 0, 0.99))) == [INSTANCE, TRAIN]


def test_another_seed_is_another_split() -> None:
    rows = [("A", "t", p) for p in range(200)]
    assert levels(rows, 0).tolist() != levels(rows, 1).tolist()


def test_a_share_must_leave_something() -> None:
    with pytest.raises(InputError, match="share of tasks to hold out is 1; give 0 or more, below 1"):
        Shares(tasks=1.0)
    with pytest.raises(ValueError, match="do not fit"):
        split(["A"], ["t"], [], 0)
