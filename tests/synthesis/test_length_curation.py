"""Lengths that are asked for, the score for following them, and which rows are kept."""

from fractions import Fraction

import pytest
from asked_models import accepted, made, reasons, seed
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Rejected
from synthesis.length_curation import LongOutput, length_score, paragraphs
from synthesis.required_length import LANGUAGES, Required, required_lengths
from warehouse.errors import InputError

WORDS = ("words", 500.0, 500.0)


def asked(text: str) -> list[tuple[str, float | None, float | None]]:
    return [(found.unit, found.low, found.high) for found in required_lengths(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write a 500-word essay", [WORDS]),
        ("Write 500 words. The 500 words must rhyme.", [WORDS]),
        ("Write 1,500 words", [("words", 1500, 1500)]),
        ("about 1.5k words", [("words", 1500, 1500)]),
        ("two thousand words", [("words", 2000, 2000)]),
        ("at least 500 words", [("words", 500, None)]),
        ("500 words or more", [("words", 500, None)]),
        ("500+ words", [("words", 500, None)]),
        ("no more than 500 words", [("words", None, 500)]),
        ("500 words (maximum)", [("words", None, 500)]),
        ("between 300 and 500 words", [("words", 300, 500)]),
        ("300–500 words", [("words", 300, 500)]),
        ("up to 2 pages", [("pages", None, 2)]),
        ("5 to 10 pages", [("pages", 5, 10)]),
        ("a five-paragraph essay", [("paragraphs", 5, 5)]),
        ("under 280 characters", [("characters", None, 280)]),
        ("2000 tokens", [("tokens", 2000, 2000)]),
        ("3 pages of 500 words", [("pages", 3, 3), WORDS]),
        ("写一篇800字的文章", [("words", 800, 800)]),
        ("不少于1000字", [("words", 1000, None)]),
        ("800到1000字", [("words", 800, 1000)]),
        ("一千五百字左右", [("words", 1500, 1500)]),
        ("两万字", [("words", 20000, 20000)]),
        ("800字以内で書いて", [("words", None, 800)]),
        ("写三段", [("paragraphs", 3, 3)]),
        ("500자 이내로 작성", [("characters", None, 500)]),
        ("mindestens 1.000 Wörter", [("words", 1000, None)]),
        ("au moins trois pages", [("pages", 3, None)]),
        ("entre 300 y 500 palabras", [("words", 300, 500)]),
        ("pelo menos 500 palavras", [("words", 500, None)]),
        ("almeno 500 parole", [("words", 500, None)]),
        ("не менее 500 слов", [("words", 500, None)]),
    ],
)
def test_a_length_is_found(text: str, expected: list[object]) -> None:
    assert asked(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "Write an essay", "the first 3 words", "100 words per slide", "50 words each", "a wordy 5",
     "四字成语", "一段代码", "版本2.0字段", "a story with three characters", "0 words", "500 to 300 words"],
)  # fmt: skip
def test_what_asks_for_no_length(text: str) -> None:
    assert asked(text) == []


@given(st.integers(20, 99_999), st.sampled_from(["words", "characters", "tokens", "paragraphs", "pages"]))
@settings(deadline=None)
def test_a_number_is_read_however_it_is_written(x: int, unit: str) -> None:
    expected = [(unit, float(x), float(x))]
    assert asked(f"Write {x} {unit}.") == asked(f"Write {x:,} {unit}.") == asked(f"Write {x:05d}-{unit}") == expected


@given(st.text("0123456789 一千百万字段words.,-–pages至最少oratleastmax()\n자 이내K", max_size=60))
@settings(deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    for found in required_lengths(text):
        assert found.low is not None or found.high is not None
        assert max(found.low or 0, found.high or 0) > 0


def exactly(x: float) -> Required:
    return Required("words", x, x)


def test_the_boundaries_of_the_paper() -> None:
    """80 at y = 1.6 x and at y = x / 1.4 (0.714 x); 0 from 4 x and down to x / 3."""
    assert length_score(1600, exactly(1000)) == 80
    assert length_score(1601, exactly(1000)) < 80
    assert length_score(1000, exactly(1400)) == 80
    assert length_score(714, exactly(1000)) < 80 < length_score(715, exactly(1000))
    assert length_score(1000, exactly(1000)) == 100
    assert length_score(4000, exactly(1000)) == 0 == length_score(333, exactly(1000))


@given(st.integers(1, 10_000), st.integers(1, 10_000))
@settings(deadline=None)
def test_the_score_is_the_formula_of_the_paper(y: int, x: int) -> None:
    ratio = Fraction(y, x)
    over, under = 1 - (ratio - 1) / 3, 1 - (1 / ratio - 1) / 2
    assert length_score(y, exactly(x)) == pytest.approx(100 * max(0.0, float(over if y > x else under)))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000))
@settings(deadline=None)
def test_a_range_is_missed_by_its_nearer_limit(y: int, a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    found = length_score(y, Required("words", low, high))
    assert found == (100 if low <= y <= high else length_score(y, exactly(low if y < low else high)))
    assert length_score(y, Required("words", low, None)) == max(found, 100 * (y >= low))
    assert length_score(y, Required("words", None, high)) == max(found, 100 * (y <= high))


def test_which_rows_are_kept() -> None:
    essay = "Write a 100-word essay."
    rows = made(
        LongOutput(),
        [
            seed(essay, "word " * 160),
            seed(essay, "word " * 161),
            seed(essay, "word " * 72),
            seed(essay, "word " * 71),
            seed(essay, "..."),
            seed(essay, ""),
            seed("Write an essay.", "word " * 100),
            seed("Write 2 pages of 100 words.", "word " * 100),
            seed("Write at least 1 paragraph.", "I'm sorry, but I cannot help with that."),
        ],
    )
    assert [row.reason if isinstance(row, Rejected) else "" for row in rows] == [
        "", "off_length", "", "off_length", "empty_reply", "no_exchange", "no_length", "several_lengths", "refusal",
    ]  # fmt: skip
    [first, _] = accepted(rows)
    assert first.messages == seed(essay, "word " * 160).messages
    assert first.meta == {
        "parents": [seed(essay, "word " * 160).sample_id],
        "template": [],
        "required": {"unit": "words", "low": 100.0, "high": 100.0},
        "length": 160,
        "length_score": 80,
    }


def test_a_unit_or_language_that_is_not_named_asks_for_nothing() -> None:
    row = seed("Write 100 words on 2 pages.", "word " * 100)
    assert reasons(made(LongOutput(units=["words"]), [row])) == {"": 1}
    assert reasons(made(LongOutput(units=["tokens"]), [row])) == {"no_length": 1}
    assert reasons(made(LongOutput(languages=["de", "zh"], units=["words"]), [row])) == {"no_length": 1}
    assert reasons(made(LongOutput(units=["words"], min_words=101), [row])) == {"too_short": 1}


def test_units_are_measured() -> None:
    job = LongOutput(words_per_page=250, tokens_per_word=2)
    assert job.length("一二三 four, five's", "words") == 5
    assert job.length(" a  b\nc ", "characters") == 5
    assert job.length("word " * 500, "pages") == 2
    assert job.length("word " * 500, "tokens") == 1000
    assert paragraphs("# Title\n\nOne.\nStill one.\n\n---\n\nTwo.") == 2
    assert paragraphs("One.\nTwo.") == 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"units": ["miles"]}, "miles.*words"),
        ({"languages": ["xx"]}, "xx.*en"),
        ({"languages": []}, "at least one"),
        ({"least_score": 101}, "0 to 100"),
        ({"min_words": -1}, "min_words"),
    ],
)
def test_what_cannot_be_asked_for(params: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LongOutput(**params)  # type: ignore[arg-type]


def test_a_long_text_without_spaces_takes_no_longer_than_its_length() -> None:
    # where the search is quadratic this does not end within the patience of any runner
    assert required_lengths("x" * 400_000 + " 300 words", LANGUAGES) == [Required("words", 300, 300)]
