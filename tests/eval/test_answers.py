"""Reading answers out of replies."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.answers import compile_answer, extract, number_in, same_text
from warehouse.errors import InputError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("-5", "-5"),
        ("12-5", "5"),
        ("12 -5", "-5"),
        ("it fell by −5", "-5"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("He pays $1,234,567.", "1234567"),
        ("3,4", "4"),
        ("first 3, then 4.", "4"),
        ("+7", "7"),
        ("She has 5 left, so 5 * 3 = 15\n#### 15", "15"),
        ("#### 42", "42"),
        ("#### -1,200", "-1200"),
        ("The final answer is 42. I checked it 3 times.", "42"),
        ("The answer is $18.00 for 2 shirts", "18.00"),
        ("Answer: **7**, because 3 + 4", "7"),
        ("The answer is 3 + 4 = 7", "7"),
        ("The answer is 12-5 = 7", "7"),
        ("The answer is hard to say, maybe 9", "9"),
        ("The answer is 1. No: the answer is 2.", "2"),
        ("0", "0"),
    ],
)
def test_number_in(text: str, number: str) -> None:
    assert number_in(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "####", None])
def test_no_number(text: str | None) -> None:
    assert number_in(text) is None


def test_numbers_are_equal_as_decimals() -> None:
    assert number_in("18") == number_in("18.0")
    assert number_in("1.5") != number_in("15")


@given(st.decimals(-(10**9), 10**9, places=2))
def test_a_written_number_is_read_back(number: Decimal) -> None:
    for text in (
        f"{number}",
        f"so it is {number}.",
        f"{number:,}",
        f"1 and 2, #### {number:,}",
        f"The answer is {number}!",
    ):
        assert number_in(text) == number


def test_same_text_strips_and_folds_case_only_where_asked() -> None:
    assert same_text(" Paris\n", "Paris", casefold=False)
    assert not same_text("paris", "Paris", casefold=False)
    assert same_text("paris", "Paris", casefold=True)
    assert not same_text("1.5", "15", casefold=True)
    assert not same_text(None, "", casefold=False)


def test_extract_takes_the_last_match() -> None:
    pattern = compile_answer(r"Answer: (\w+)")
    assert extract("Answer: a. No, Answer: b.", pattern) == "b"
    assert extract("b", pattern) is None
    assert extract("x <yes>", compile_answer("<.*>")) == "<yes>"


def test_a_broken_pattern_is_an_input_error() -> None:
    with pytest.raises(InputError, match="not a regular expression"):
        compile_answer("(")
