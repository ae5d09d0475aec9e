"""Tracing straight-line programs: what runs, which states are equal, which answers are right, and hostile code."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.protocol import Verdict
from models.verify.trace import Program, Trace, Traced, same_answer, source_in, straight, trace_of
from models.verify.tracer import CHARS, key_of, values_of, written
from warehouse.errors import InputError
from warehouse.records import Example, Message


def item(gold: str = "", **meta: Any) -> Example:
    return Example((Message("user", "How many?"), Message("assistant", gold)), "s", meta)


def verdicts(*replies: str, of: Example) -> list[Verdict]:
    return Traced().verify([(reply, of) for reply in replies])


def steps(*replies: str) -> list[Trace]:
    return [trace_of(verdict) for verdict in verdicts(*replies, of=item(answer="none of these"))]


# --- which part of a text is a straight-line program


def test_statements_are_known_without_their_comments_and_found_in_the_text() -> None:
    program = straight("# first\na = 'é'  # e\nb=(1,\n  2); c = 3\n# last")
    assert program.statements == ("a = 'é'", "b = (1, 2)", "c = 3")
    assert program.head(2) == "# first\na = 'é'  # e\nb=(1,\n  2)"
    assert program.head(0) == ""
    assert program.whole


@pytest.mark.parametrize(
    ("source", "statements"),
    [
        ("a = 1\nfor i in range(3):\n    a += i\nb = 2", ("a = 1",)),
        ("a = 1\nif a:\n    b = 2", ("a = 1",)),
        ("a = 1\nb = a +", ("a = 1",)),  # cut off
        ("a = 1\nb = (a +\nc = 3", ("a = 1",)),
        ("import math\na: int = 1\na += 2\nprint(a)", ("import math", "a: int = 1", "a += 2", "print(a)")),
        ("  a = 1\n  b = 2", ("a = 1", "b = 2")),
        ("The answer is 4.", ()),
        ("a = 1\r\nb = 2\r\n", ("a = 1", "b = 2")),
        ("", ()),
        ("x = '\0'", ()),
        ("x = '\ud800'", ()),
        ("(" * 5000, ()),
        ("-" * 15000 + "1", ()),
        ("x" * 20001, ()),
    ],
)
def test_what_is_straight_line(source: str, statements: tuple[str, ...]) -> None:
    assert straight(source).statements == statements


def test_a_program_that_goes_on_in_other_ways_is_not_whole() -> None:
    assert not straight("a = 1\nif a:\n    b = 2").whole
    assert not straight("a = 1\nb = (").whole
    assert straight("a = 1\n").whole


@settings(deadline=None)
@given(st.text(alphabet="ab=1 +\n;#'(\té", max_size=40))
def test_a_head_is_a_program_of_the_same_statements(source: str) -> None:
    program = straight(source)
    for k in range(len(program.statements) + 1):
        again = straight(program.head(k))
        assert again.statements == program.statements[:k]
        assert again.whole
    assert list(program.ends) == sorted(program.ends)


def test_a_program_is_found_in_talk() -> None:
    assert source_in("Here:\n```python\na = 1\n```\nDone.") == "a = 1\n"
    assert source_in("a = 1\nb = (") == "a = 1\nb = ("
    assert source_in("[[BEGIN]]\na = 1\n[[DONE]]") == "a = 1"


# --- states


def test_a_state_is_the_sorted_values_whatever_the_names() -> None:
    assert values_of({"x": 2, "y": 1.0, "__z": 3, "m": json}) == ("1.0", "2")
    assert values_of({"a": 1.0, "b": 2}) == values_of({"x": 2, "y": 1.0})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333"),
        (-0.0, "0.0"),
        ([1 / 3, (2,)], "[0.333333, (2)]"),
        ({"b", "a"}, "{'a', 'b'}"),
        ({"k": 0.1 + 0.2}, "{'k': 0.3}"),
        (lambda: 0, "<function>"),
        (True, "True"),
        (float("nan"), "nan"),
        (None, "None"),
    ],
)
def test_values_are_written_alike_where_they_are_alike(value: object, text: str) -> None:
    assert written(value) == text


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_long_values_are_capped_and_still_told_apart(a: int, b: int) -> None:
    texts = ["x" * 300 + "y" * n for n in (a, b)]
    assert all(len(written(text)) == CHARS for text in texts)
    assert (written(texts[0]) == written(texts[1])) == (a == b)


def test_a_value_that_holds_itself_is_written() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert len(written(loop)) <= CHARS


def test_programs_are_traced_in_a_jail() -> None:
    first, second = steps("a = 4\nb = a / 2\nprint(b)\nanswer = b + 1", "half = 4 / 2\nwhole = 4")
    assert [step.answer for step in first.steps] == [None, None, None, "3.0"]
    assert (first.answered, first.answer) == (4, "3.0")
    assert [step.new for step in first.steps] == [True, True, False, True]
    assert first.steps[1].state == second.steps[1].state == key_of(("2.0", "4"))
    assert first.steps[0].state != second.steps[0].state


def test_a_statement_that_fails_ends_the_steps_and_keeps_them() -> None:
    [verdict] = verdicts("a = 1\nb = a / 0\nanswer = 2", of=item(answer="2"))
    assert (verdict.right, verdict.reason) == (False, "crashed")
    assert len(trace_of(verdict).steps) == 1


# --- verdicts


@pytest.mark.parametrize(
    ("reply", "right", "reason"),
    [
        ("answer = 2 + 3", True, ""),
        ("```python\nx = 2\nanswer = x + 3.00005\n```", True, ""),
        ("answer = '5'", True, ""),
        ("answer = 4", False, "wrong"),
        ("answer = 4\nanswer = 5", False, "wrong"),  # the first answer counts
        ("answer = 5\nx = 1 / 0", True, ""),
        ("x = 5", False, "no_answer"),
        ("for i in range(5): answer = i + 1", False, "no_answer"),
        ("The answer is 5.", False, "no_answer"),
        ("  ", False, "no_answer"),
        ("answer = 5 #" + "x" * 20000, False, "too_long"),
        ("a = 1\nb = 10 ** 10 ** 9", False, "timeout"),
        ("a = '0' * 10 ** 10\nanswer = 5", False, "crashed"),
        ("import os\nos._exit(0)\nanswer = 5", False, "no_answer"),
        ("import os\nos.write(3, b'[]\\n7\\n{}')\nos.write(3, b'\\xff')", False, "no_answer"),
        ("__import__('subprocess').run(['sleep', '60'])", False, "timeout"),
    ],
)
def test_verdicts(reply: str, right: bool, reason: str) -> None:
    [verdict] = verdicts(reply, of=item("5", answer=5))
    assert (verdict.right, verdict.reason) == (right, reason)


def test_the_answer_of_the_gold_program_is_right_where_none_is_stated() -> None:
    gold = item("a = 2\nanswer = a * 3")
    assert [v.right for v in verdicts("answer = 6", "answer = 5", of=gold)] == [True, False]
    assert verdicts("answer = 6", of=item("No program."))[0].reason == "no_reference"


def test_one_call_judges_many_items() -> None:
    asked = [("answer = 1", item(answer=1)), ("answer = 1", item(answer=2)), ("answer = 3", item("answer = 1 + 2"))]
    assert [verdict.right for verdict in Traced().verify(asked)] == [True, False, True]


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("5.00009", ["5"], True),
        ("5.0002", ["5"], False),
        ("1000", ["1,000"], True),
        ("x", ["y", " x "], True),
        ("nan", ["nan2"], False),
        ("inf", ["1e999"], False),
        ("5", [], False),
    ],
)
def test_answers_are_compared_as_numbers_or_whole(found: str, wanted: list[str], same: bool) -> None:
    assert same_answer(found, wanted) is same


def test_a_verdict_without_a_trace_has_an_empty_one() -> None:
    assert trace_of(Verdict(False, reason="no_answer")) == Trace(Program(""))


def test_limits_and_the_fingerprint() -> None:
    assert Traced().fingerprint != Traced(wall_seconds=3).fingerprint
    with pytest.raises(InputError):
        Traced(memory_mb=0)
