"""Verifiable instructions: each by replies that do and do not follow it, strict and loose, and what is averaged."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.assess import assess
from eval.instructions.table import INSTRUCTIONS, fault, follows, follows_loosely
from eval.instructions.task import Instructions
from eval.instructions.words import sentences, tokens
from models.canned import CannedModel
from warehouse.errors import InputError
from warehouse.records import Example, Message

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["river", "C++ (a)"]}, ["Rivers of C++ (A)"], ["river", "C (a) river"]),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        ["Cat, cats"],
        ["cat", "c.t cut"],
    ),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, ["cat", "dog"], ["cat cat"]),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, ["rocks and stones"], ["A Rock.", "rock"]),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": "at least"},
        ["# a #"],
        ["# a", "a"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "A", "let_frequency": 2, "let_relation": "less than"},
        ["Abc", "bcd"],
        ["abca"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein Satz in deutscher Sprache, und er ist lang genug, um erkannt zu werden."],
        ["This is a sentence in the English language, and it is long enough to be told."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One is here. Two is there!", "Is it? Yes."],
        ["Dr. Smith of the U.S. Army paid 3.5 dollars.", "One only"],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, ["One."], ["One. Two."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na *** b\n***"],
        ["a", "a***b***c"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["one two three", "don't go"],
        ["two words"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First.\n\nThen, it went.", 'a\n\n\n\n"then" b'],
        ["Then a.\n\nb", "a\n\nThen b\n\nc", "a\n\nThenceforth b", "Then"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] and [b c]"], ["[a]", "none"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\nP.S. y", "p. s. z"], ["PS y", "no"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S more", "p.p. s"], ["P.S. y"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n * b"],
        ["* a", "* a\n* b\n- c", "**a**"],
    ),
    ("detectable_format:constrained_response", {}, ["My answer is yes."], ["Yes.", "my answer is yes."]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and **b**"],
        ["*a*", "** ** *x*", "a * b"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"],
        ["SECTION 1", "Section 1 Section 2", "SECTION SECTION"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', "```json\n[1]\n```", "```\n3\n```"], ["{a: 1}", 'x {"a": 1}']),
    ("detectable_format:title", {}, ["<<A title>>\ntext"], ["<<>>", "< <a>>", "<<\n>>", "title"]),
    (
        "combination:two_responses",
        {},
        ["a******b", "******\na\n******\nb"],
        ["a", "a******a", "a******b******c", "a************b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say Hi."}, ["say hi. Hi!"], ["Hi! Say Hi."]),
    (
        "startend:end_checker",
        {"end_phrase": "That is all."},
        ["x. that is all.", '"a That is all."'],
        ["That is all. Bye"],
    ),
    ("startend:quotation", {}, ['"a b"', ' "" '], ['"', 'a "b"', "“a”"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["GO UP", "I AM"],
        ["go UP", "WELL-KNOWN", "12 34"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS A SENTENCE IN THE ENGLISH LANGUAGE FOR ALL WHO READ IT."],
        ["THIS is A SENTENCE", "DAS IST EIN SATZ IN DER DEUTSCHEN SPRACHE UND NICHT ENGLISCH."],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is a sentence in the english language for all who read it."],
        ["This is a sentence", "das ist ein satz in der deutschen sprache und nicht englisch."],
    ),
    ("punctuation:no_comma", {}, ["no such mark"], ["one, two"]),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES)
def test_replies_that_follow_and_that_do_not(
    name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    assert fault(name, arguments) == ""
    assert [reply for reply in right if not follows(reply, name, arguments)] == []
    assert [reply for reply in wrong if follows(reply, name, arguments)] == []
    assert not follows(" \n", name, arguments)
    assert not follows_loosely("", name, arguments)


def test_all_25_are_tried_here() -> None:
    assert len(INSTRUCTIONS) == 25
    assert {name for name, *_ in CASES} == set(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Mr. Brown met Dr. White. They spoke.", 2),
        ("It costs 3.50 dollars. Cheap!", 2),
        ('He said "Stop." Then he left.', 2),
        ("J. R. Tolkien wrote it.", 1),
        ("What?! No... really.", 2),
        ("1. Wash the rice\n2. Boil it\n\nServe it.", 3),
        ("In 1990. Then more.", 2),
        ("# Heading\nText goes on\nin a second line.", 2),
        ("你好。世界。", 2),
        ("... !!", 0),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count, sentences(text)


@given(st.lists(st.sampled_from(["It rains.", "Who knows?", "Yes!"]), max_size=8))
def test_plain_sentences_are_counted_and_kept(parts: list[str]) -> None:
    assert sentences(" ".join(parts)) == parts


def test_hyphens_do_not_part_a_word() -> None:
    assert tokens("A well-known U.S. don't") == ["A", "well-known", "U.S", "don't"]


@given(st.text("ab*\n ,.", max_size=30), st.sampled_from(CASES))
def test_what_is_followed_strictly_is_followed_loosely(reply: str, case: tuple[str, dict[str, Any], Any, Any]) -> None:
    name, arguments, *_ = case
    assert follows_loosely(reply, name, arguments) or not follows(reply, name, arguments)


def test_loose_forgives_an_introduction_an_end_and_asterisks() -> None:
    for reply in ('Here it is:\n"the text"', '"the text"\nThat is it.', 'Sure.\n**"the text"**\nBye.'):
        assert not follows(reply, "startend:quotation", {})
        assert follows_loosely(reply, "startend:quotation", {})


def row(text: str, *asked: tuple[str, dict[str, Any]]) -> Example:
    meta = {"instruction_id_list": [name for name, _ in asked], "kwargs": [known for _, known in asked]}
    return Example((Message("user", text),), "made", meta)


NO_COMMA: tuple[str, dict[str, Any]] = ("punctuation:no_comma", {})
QUOTED = ("startend:quotation", {"unused": None})  # as tables hold arguments that an instruction does not take


def test_instructions_count_alike_and_so_do_prompts() -> None:
    rows = (row("one", NO_COMMA, QUOTED, ("detectable_format:title", {})), row("two", QUOTED))
    model = CannedModel({"one": "<<a, b>>", "two": '"yes"'})
    found = assess(Instructions(rows), model, "key", np.random.default_rng(0))
    metrics = {name: estimate.value for name, estimate in found.report.metrics.items()}
    assert metrics["prompt_strict"] == 0.5
    assert metrics["instruction_strict"] == pytest.approx(2 / 4)  # 1 of 3 and 1 of 1, not the mean of 1/3 and 1
    first = next(each for each in found.items if each.metric == "instruction_strict")
    assert first.value == pytest.approx(1 / 3)
    assert first.parts == 3
    assert json.loads(first.detail)["failed"] == ["punctuation:no_comma", "startend:quotation"]
    assert "nll" not in metrics  # no gold reply


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({}, "must list its instructions"),
        ({"instruction_id_list": ["punctuation:no_comma"]}, "a list of 1 mappings"),
        ({"instruction_id_list": ["punctuation:no_dash"], "kwargs": [{}]}, "unknown instruction 'punctuation:no_dash'"),
        (
            {"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]},
            r"arguments \[\]; it takes \['end_phrase'\]",
        ),
        (
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 3, "relation": "around"}],
            },
            "relation 'around'; it takes one of less than, at least",
        ),
        (
            {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": "3"}]},
            "num_bullets '3', which is not what it takes",
        ),
        (
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "one"}]},
            "keywords 'one', which is not",
        ),
    ],
)
def test_rows_whose_instructions_are_not_understood_are_refused(meta: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=f"test example 0 .*{why}"):
        Instructions((Example((Message("user", "x"),), "made", meta),)).items()
