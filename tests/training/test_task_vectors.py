"""Arithmetic of task vectors: examples by hand, and laws."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.task_vectors import disjoint_mean, dropped, elected, linear, threshold, ties, trimmed

A, B, C = torch.tensor([3.0, -1.0, 0.5]), torch.tensor([1.0, 2.0, -2.0]), torch.tensor([-2.0, 2.0, 0.4])
FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=True)
VECTORS = hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS)


def test_linear_by_hand() -> None:
    assert linear([A, B], [0.5, 0.5]).tolist() == [2.0, 0.5, -0.75]
    assert linear([A, B], [1.0, -1.0]).tolist() == [2.0, -3.0, 2.5]


def test_ties_by_hand() -> None:
    """Two of three entries are kept of each: A loses 0.5, B loses 1, C loses 0.4.

    Sums of what is left are 3-2=1, -1+2+2=3, -2: signs + + -. The means of those that agree are 3, (2+2)/2 and -2.
    """
    least = [threshold([each].copy, 2 / 3) for each in (A, B, C)]
    assert least == [1.0, 2.0, 2.0]
    assert trimmed(B, 2.0).tolist() == [0.0, 2.0, -2.0]
    assert elected([trimmed(d, k) for d, k in zip((A, B, C), least, strict=True)]).tolist() == [1.0, 1.0, -1.0]
    assert ties([A, B, C], least).tolist() == [3.0, 2.0, -2.0]


def test_a_vote_without_majority_moves_nothing() -> None:
    deltas = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])]
    assert disjoint_mean(deltas, elected(deltas)).tolist() == [0.0, 0.0]


def test_dare_by_hand() -> None:
    """With the seed 0 torch draws 0.496, 0.768 and 0.088: at 0.5 the first and the last entry are dropped."""
    generator = torch.Generator().manual_seed(0)
    assert dropped(A, 0.5, generator).tolist() == [0.0, -2.0, 0.0]
    assert torch.equal(dropped(A, 0.0, torch.Generator().manual_seed(0)), A)


def test_dare_keeps_the_expectation() -> None:
    delta = torch.full((200_000,), 0.25)
    left = dropped(delta, 0.9, torch.Generator().manual_seed(1))
    assert left.count_nonzero() / len(delta) == pytest.approx(0.1, abs=0.003)
    assert left.mean() == pytest.approx(0.25, rel=0.03)
    assert set(left.tolist()) == {0.0, 2.5}


@given(VECTORS, st.floats(0.01, 1.0))
def test_the_threshold_is_that_of_sorting(values: np.ndarray, density: float) -> None:
    """However the entries are spread over tensors."""
    whole = torch.from_numpy(values)
    keep = max(1, round(density * len(values)))
    expected = float(np.sort(np.abs(values))[::-1][keep - 1])
    parts = [whole[: len(whole) // 3], whole[len(whole) // 3 :].reshape(1, -1)]
    assert threshold(lambda: parts, density) == expected
    assert int((trimmed(whole, expected) != 0).sum()) <= len(values)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=FLOATS))
def test_laws_of_merging(values: np.ndarray) -> None:
    deltas = [torch.from_numpy(row) for row in values]
    everything = [0.0] * len(deltas)
    merged = ties(deltas, everything)
    assert torch.equal(ties([-each for each in deltas], everything), -merged)
    same = ties([deltas[0]] * 3, everything[:1] * 3)
    torch.testing.assert_close(same, deltas[0])
    assert (merged.abs() <= torch.stack(deltas).abs().max(0).values * (1 + 1e-6)).all()
