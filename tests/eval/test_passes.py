"""pass@k: worked numbers, and the definition by counting subsets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.passes import pass_at_k
from warehouse.errors import InputError


@pytest.mark.parametrize(
    ("n", "right", "k", "value"),
    [(10, 3, 1, 0.3), (10, 3, 5, 0.916667), (10, 1, 10, 1.0), (10, 0, 10, 0.0), (200, 10, 10, 0.408548)],
)
def test_worked_numbers(n: int, right: int, k: int, value: float) -> None:
    assert pass_at_k(n, right, k) == pytest.approx(value, abs=5e-7)


@given(st.integers(1, 60), st.data())
def test_it_is_the_share_of_subsets_with_a_right_try(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, right, k) == pytest.approx(1 - math.comb(n - right, k) / math.comb(n, k), abs=1e-9)


def test_too_few_tries_are_refused() -> None:
    with pytest.raises(InputError, match="pass@10 needs at least 10 tries of every item; found 5"):
        pass_at_k(5, 5, 10)
    with pytest.raises(ValueError, match="do not fit"):
        pass_at_k(5, 6, 1)
