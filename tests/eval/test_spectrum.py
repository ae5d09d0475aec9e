"""The matrix nuclear norm: a worked number, bounds and invariances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eval.spectrum import matrix_nuclear_norm

MATRICES = arrays.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(-9, 9))


def test_a_worked_number() -> None:
    found = matrix_nuclear_norm(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 10], [0, 1, 0]], np.float64))
    assert found == pytest.approx(0.861406, abs=5e-7)
    assert 4 * found == pytest.approx(3.445626, abs=5e-7)


@given(MATRICES, st.integers(-5, 5), st.integers(1, 5))
def test_shift_and_scale_change_nothing_and_it_is_bounded(x: np.ndarray, shift: int, scale: int) -> None:
    found = matrix_nuclear_norm(x)
    assert 0 <= found <= 1 + 1e-9
    # whole numbers: the mean of a constant column is exact
    assert matrix_nuclear_norm((x + shift) * scale) == pytest.approx(found, abs=1e-6)


def test_equal_rows_are_as_compact_as_can_be() -> None:
    assert matrix_nuclear_norm(np.tile([1.0, 2.0, 3.0, 4.0], (4, 1))) == 0.0


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        matrix_nuclear_norm(np.ones(3))
