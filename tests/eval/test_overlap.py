"""Finding test rows elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.overlap import ids_of, overlap, require_disjoint
from warehouse.errors import InputError
from warehouse.records import Example, Message


def row(question: str, answer: str = "a") -> Example:
    return Example((Message("user", question), Message("assistant", answer)), "made")


def test_same_row_and_same_prompt() -> None:
    pool = ids_of([row("one"), row("two"), row("  ONE "), row("one", "b"), row("three")])
    found = overlap(pool, ids_of([row("one")]))
    assert found.same_row.tolist() == [0]
    assert found.same_prompt.tolist() == [0, 2, 3]
    assert found.counts() == {"same_row": 1, "same_prompt": 3}


@given(st.lists(st.sampled_from("abcdef"), max_size=8), st.lists(st.sampled_from("abcdef"), max_size=8))
def test_agrees_with_a_set(pool: list[str], test: list[str]) -> None:
    found = overlap(ids_of(map(row, pool)), ids_of(map(row, test)))
    assert found.same_prompt.tolist() == [i for i, question in enumerate(pool) if question in set(test)]
    assert set(found.same_row) <= set(found.same_prompt)


def test_a_target_row_in_the_test_set_is_refused() -> None:
    require_disjoint(ids_of([row("one")]), ids_of([row("two")]))
    with pytest.raises(InputError, match=r"1 of 2 target rows are also in the test set \(target rows 1\)"):
        require_disjoint(ids_of([row("one"), row("two")]), ids_of([row("two", "another answer")]))
