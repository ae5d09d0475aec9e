"""Calibration: worked numbers, laws, and scikit-learn's average precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from eval import calibration as cal

CONFIDENCE = np.array([0.95, 0.95, 0.95, 0.55, 0.55, 0.25])
RIGHT = np.array([1, 1, 0, 1, 0, 0])
ITEMS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def columns(items: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([c for c, _ in items]), np.array([r for _, r in items])


def test_calibration_error_by_hand() -> None:
    assert cal.expected_calibration_error(RIGHT, CONFIDENCE) == pytest.approx(0.2)


def test_bins_hold_their_upper_edge() -> None:
    table = cal.reliability(np.ones(5), np.array([0.0, 0.1, 0.1 + 1e-9, 0.3, 1.0]))
    assert [b.n for b in table] == [2, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert (table[2].low, table[2].high, table[2].confidence) == (0.2, 0.3, 0.3)
    assert table[2].accuracy is not None
    assert (table[2].accuracy.value, table[2].accuracy.high, table[2].accuracy.n) == (1.0, 1.0, 1)
    assert table[4].accuracy is None


@given(ITEMS)
def test_the_table_gives_the_error(items: list[tuple[float, bool]]) -> None:
    confidence, right = columns(items)
    table = cal.reliability(right, confidence)
    gaps = sum(
        b.n * abs(b.accuracy.value - b.confidence) for b in table if b.accuracy is not None and b.confidence is not None
    )
    assert cal.expected_calibration_error(right, confidence) == pytest.approx(gaps / len(right))
    assert sum(b.n for b in table) == len(right)
    assert 0 <= cal.expected_calibration_error(right, confidence) <= 1 + 1e-12


@given(st.integers(1, 300), st.data())
def test_a_share_lies_in_its_interval(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    found, other = cal.wilson(right, n), cal.wilson(n - right, n)
    assert 0 <= found.low <= found.value == right / n <= found.high <= 1
    assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_wilson_by_hand() -> None:
    found = cal.wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.490, 0.943), abs=5e-4)


@given(ITEMS)
def test_one_bin_is_the_gap_of_the_means(items: list[tuple[float, bool]]) -> None:
    confidence, right = columns(items)
    expected = abs(right.mean() - confidence.mean())
    assert cal.expected_calibration_error(right, confidence, bins=1) == pytest.approx(expected)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found 0.5 to 1.5"):
        cal.expected_calibration_error(np.ones(2), np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match="2 confidences and 1 verdicts"):
        cal.reliability(np.ones(1), np.array([0.5, 0.5]))


def test_refusal_precision_by_hand() -> None:
    confidence, sure = np.array([0.9, 0.8, 0.7, 0.6, 0.2]), np.array([0.9, 0.1, 0.8, 0.4, 0.6])
    assert cal.refusal_precision(np.array([1, 0, 1, 0, 1]), confidence, sure) == pytest.approx(0.866667, abs=1e-6)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_that_of_scikit_learn(items: list[tuple[float, bool]]) -> None:
    confidence, right = columns(items)
    if right.any():
        assert cal.average_precision(right, confidence) == pytest.approx(average_precision_score(right, confidence))
    else:
        assert cal.average_precision(right, confidence) == 0.0


def test_brier_score() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert cal.brier_score(sure, np.array([0, 0, 1])) == pytest.approx([0.0, 2.0, 0.5])
