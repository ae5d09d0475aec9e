"""Replies that say the same: what is exact, what is near, and what is neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthesis.repeats import Repeats, jaccard

LONG = " ".join(f"w{i}" for i in range(100))


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("a b", "A  b\n", "exact"),
        ("a b", "a c", ""),
        ("", " ", "exact"),
        (LONG, LONG + " end", "near"),  # 96 of 97 word 5-grams
        (LONG, LONG.replace("w50", "x"), ""),
        (LONG, " ".join(reversed(LONG.split())), ""),
    ],
)
def test_what_repeats(first: str, second: str, found: str) -> None:
    repeats = Repeats(near=0.95)
    assert repeats.of(first) == ""
    assert repeats.of(second) == found


def test_a_changed_word_touches_five_grams() -> None:
    """96 five-grams, of which 5 hold the word: 91 shared of 101."""
    for near, found in ((91 / 101, "near"), (91 / 101 + 1e-9, "")):
        repeats = Repeats(near)
        repeats.of(LONG)
        assert repeats.of(LONG.replace("w50", "x")) == found


def test_a_text_is_compared_with_those_that_are_kept() -> None:
    """Each is near the one before it, but they drift: the third is too far from the first, which alone was kept."""
    repeats = Repeats(0.9)
    assert [repeats.of(" ".join([LONG, *(f"e{i}" for i in range(k))])) for k in (0, 8, 16)] == ["", "near", ""]


@given(st.lists(st.text(), max_size=10))
def test_every_text_repeats_itself(texts: list[str]) -> None:
    repeats = Repeats()
    for text in texts:
        repeats.of(text)
        assert repeats.of(text) in ("exact", "near")


def test_jaccard() -> None:
    a, b = (frozenset((word,) for word in text) for text in ("abc", "bcd"))
    assert jaccard(a, b) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0
    assert jaccard(a, frozenset()) == 0.0
