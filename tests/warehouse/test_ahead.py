"""Calls done ahead: answers in the order asked, and no more held than promised."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.ahead import ahead


@given(n=st.integers(0, 30), width=st.integers(1, 5))
def test_answers_come_in_order_and_calls_are_taken_as_answers_are(n: int, width: int) -> None:
    taken = 0

    def calls() -> Iterator[tuple[int, int]]:
        nonlocal taken
        for i in range(n):
            taken += 1
            yield i, 1

    answers = []
    for answer in ahead(int.__add__, calls(), width):
        answers.append(answer)
        assert taken <= len(answers) + width
    assert answers == list(range(1, n + 1))


def test_an_error_comes_where_its_answer_would() -> None:
    answers = ahead(divmod, [(6, 3), (1, 0), (4, 2)], 2)
    assert next(answers) == (2, 0)
    with pytest.raises(ZeroDivisionError):
        next(answers)
