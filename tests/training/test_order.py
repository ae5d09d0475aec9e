"""The order of training rows."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.order import order, within_steps

lengths_of = st.lists(st.integers(1, 50), min_size=1, max_size=60).map(lambda x: np.array(x, np.int64))


@given(lengths_of, st.integers(1, 3), st.integers(1, 9), st.booleans(), st.integers(0, 9))
def test_every_row_comes_once_per_epoch(
    lengths: np.ndarray, epochs: int, step_rows: int, by_length: bool, seed: int
) -> None:
    rows = order(lengths, epochs, step_rows, by_length, np.random.default_rng(seed))
    assert Counter(rows.tolist()) == dict.fromkeys(range(len(lengths)), epochs)
    again = order(lengths, epochs, step_rows, by_length, np.random.default_rng(seed))
    assert np.array_equal(rows, again)


@given(lengths_of, st.floats(0.05, 3))
def test_part_epochs_repeat_no_row_before_its_turn(lengths: np.ndarray, epochs: float) -> None:
    rows = order(lengths, epochs, 4, True, np.random.default_rng(0))
    assert len(rows) == max(1, round(epochs * len(lengths)))
    assert max(Counter(rows.tolist()).values()) <= int(np.ceil(epochs))


@given(lengths_of, st.integers(1, 9), st.booleans())
def test_a_step_within_an_epoch_repeats_no_row(lengths: np.ndarray, step_rows: int, by_length: bool) -> None:
    n = len(lengths)
    rows = order(lengths, 4, step_rows, by_length, np.random.default_rng(0))
    for epoch in range(4):
        assert sorted(rows[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_grouping_saves_padding_and_stays_mixed() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 4096)

    def padding(rows: np.ndarray) -> int:
        steps = lengths[rows].reshape(-1, 16)
        return int((steps.max(axis=1, keepdims=True) - steps).sum())

    plain = order(lengths, 1, 16, False, np.random.default_rng(0))
    grouped = order(lengths, 1, 16, True, np.random.default_rng(0))
    assert padding(grouped) < padding(plain) / 4
    means = lengths[grouped].reshape(-1, 16).mean(axis=1)
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2


@given(lengths_of, st.integers(1, 3), st.integers(1, 9))
def test_sorting_within_steps_leaves_each_step_its_rows(lengths: np.ndarray, epochs: int, step_rows: int) -> None:
    plan = order(lengths, epochs, step_rows, False, np.random.default_rng(0))
    inside = within_steps(plan, lengths, step_rows)
    for start in range(0, len(plan), step_rows):
        step = inside[start : start + step_rows]
        assert sorted(step.tolist()) == sorted(plan[start : start + step_rows].tolist())
        assert (np.diff(lengths[step]) >= 0).all()


def test_sorting_within_steps_saves_the_padding_of_their_batches() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 4096)
    plan = order(lengths, 1, 32, False, np.random.default_rng(0))
    padded = [
        int((lengths[rows].reshape(-1, 8).max(axis=1) * 8).sum()) for rows in (within_steps(plan, lengths, 32), plan)
    ]
    assert padded[0] < 0.75 * padded[1]


def test_steps_stay_grouped_where_epochs_do_not_divide_into_steps() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 38))
    rows = order(lengths, 3, 5, True, np.random.default_rng(3))
    spread = [int(np.ptp(lengths[rows[i : i + 5]])) for i in range(0, 110, 5)]
    across = {7, 14}  # the steps that hold the end of one epoch and the start of the next
    assert max(s for i, s in enumerate(spread) if i not in across) < 10
