"""Finding answers in replies and comparing them as text, options and numbers."""

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.protocol import Verdict
from models.verify.answer import MAX_CHARS, final_answer, plain
from models.verify.numeric import Numeric, number_in
from models.verify.reference import Reference, question_of, reference_of
from models.verify.text import Choice, Exact
from warehouse.errors import InputError
from warehouse.records import Example, Message


def item(reply: str | None = None, **meta: Any) -> Example:
    turns = [Message("user", "q")] + ([] if reply is None else [Message("assistant", reply)])
    return Example(tuple(turns), "s", meta)


def judge(verifier: Any, reply: str, about: Example) -> Verdict:
    [verdict] = verifier.verify([(reply, about)])
    assert isinstance(verdict, Verdict)
    assert verdict.right == (not verdict.reason)
    assert not verdict.reason or verdict.reason in verifier.reasons
    return verdict


@pytest.mark.parametrize(
    ("reply", "text", "how"),
    [
        ("3 + 4 = 7 apples.\n#### 7", "7", "marked"),
        ("So #### 7 and no more", "7 and no more", "marked"),
        ("# Answer\n\nx = 3", "x = 3", "marked"),
        (r"Hence \boxed{\frac{1}{2}}.", r"\frac{1}{2}", "boxed"),
        (r"\boxed{1}, no: \boxed{2}", "2", "boxed"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
        (r"\boxed{3} but then \boxed{4", "3", "boxed"),  # only a closed box counts
        (r"\boxed 5 it is", "5", "boxed"),
        (r"\boxed{.5}", ".5", "boxed"),
        (r"\boxed{5!}", "5!", "boxed"),
        ("The answer is 42.", "42", "stated"),
        ("The answer is 3.5 metres. That is long.", "3.5 metres", "stated"),
        ("**Answer:** yes", "yes", "stated"),
        ("The final answer is: $x^2$, as shown.", "x^2", "stated"),
        (r"The answer is $x=3$ and $y=4$.", "x=3$ and $y=4", "stated"),
        ("Answer:\n\\[\n5\n\\]", "5", "stated"),
        ("I think 12 is the answer.", "12", "stated"),
        ("The answer is 3. No, the answer is 4.", "4", "stated"),
        (r"\boxed{3}. Therefore the answer is 5.", "5", "stated"),  # what follows "Therefore" is looked at first
        (r"\boxed{3}. Therefore we are done.", "3", "boxed"),  # and hides nothing
        ("a 9 b. Therefore, x is $7$ metres", "7", "formula"),
        ("we get $a$ and then $b+1$ there", "b+1", "formula"),
        ("First 3, then 4 and we have -1,234.5 left", "-1,234.5", "number"),
        ("about 50 % of them", "50 %", "number"),
        ("12-5", "12-5", "bare"),
        (r"\frac{1}{2}", r"\frac{1}{2}", "bare"),
        ("Monday", "Monday", "bare"),
        ("She has 5", "5", "number"),
    ],
)
def test_answers_are_found_in_their_order(reply: str, text: str, how: str) -> None:
    found = final_answer(reply)
    assert found is not None
    assert (found.text, found.how) == (text, how)


@pytest.mark.parametrize("reply", ["", " \n", r"\boxed{", "$$", "I do not know what to say here, " * 9])
def test_a_reply_without_an_answer_has_none(reply: str) -> None:
    assert final_answer(reply) is None


HOSTILE = (
    r"\boxed{", "{", "}", "$", "####", "answer is ", " is the answer", "1", "1,", "-", "Therefore", "a ", "\\", "\n",
    "# Answer", r"\(", r"\[",
)  # fmt: skip


@given(st.text(alphabet="\\{}$#boxed answer is:\n1,.-") | st.lists(st.sampled_from(HOSTILE)).map("".join))
def test_any_reply_is_read(reply: str) -> None:
    found = final_answer(reply)
    assert found is None or found.text in reply


@pytest.mark.parametrize("part", HOSTILE)
def test_long_replies_are_read_in_time_linear_in_them(part: str) -> None:
    began = time.process_time()
    reply = (part * MAX_CHARS)[:MAX_CHARS]
    final_answer(reply)
    number_in(reply)
    assert time.process_time() - began < 2


def test_where_a_reference_is() -> None:
    told = item("Because. #### 7", answer=7, aliases=["seven"], tests="assert f() == 7", test_setup="x = 1")
    assert reference_of(told) == Reference(("7", "seven"), "Because. #### 7", (), ("assert f() == 7",), "x = 1")
    assert reference_of(item("gold")).answers == ()
    assert reference_of(item(choices=["a", "b"])).choices == (("A", "a"), ("B", "b"))
    assert reference_of(item(choices={"1": "a"})).choices == (("1", "a"),)
    assert reference_of(Example((), "s", {})) == Reference()
    assert question_of(item("gold")) == (Message("user", "q"),)
    assert question_of(item()) == (Message("user", "q"),)
    assert question_of(Example((Message("system", "s"), Message("assistant", "a")), "s", {})) == ()


@pytest.mark.parametrize("meta", [{"answer": ["7"]}, {"answer": True}, {"aliases": 3}, {"tests": [["assert f()"]]}])
def test_meta_of_a_wrong_type_is_named(meta: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"meta '{next(iter(meta))}' must"):
        reference_of(item(**meta))


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Paris", True), ("  paris.\n", True), ('"PARIS"', True), ("Ｐａｒｉｓ", True), ("The answer is Paris.", True),
        (r"\boxed{Paris}", True), ("City of Light", True), ("city  of\nlight", True),
        ("Lyon", False), ("Paris or Lyon", False), ("The answer is Lyon, not Paris.", False), ("Par is", False),
    ],
)  # fmt: skip
def test_exact(reply: str, right: bool) -> None:
    about = item("Lyon", answer="Paris", aliases=["City of Light"])
    assert judge(Exact(), reply, about).right == right


def test_exact_reads_the_gold_reply_as_any_reply() -> None:
    assert judge(Exact(), "49", item("trace ...\nFinal answer: 49")).right
    assert judge(Exact(), "trace\nFinal answer: 49", item("49")).right
    assert judge(Exact(), "x", item("")).reason == "no_reference"
    assert judge(Exact(), " ", item("x")).reason == "no_answer"
    assert judge(Exact(), "x" * (MAX_CHARS + 1), item("x")).reason == "too_long"


@given(st.text(min_size=1))
def test_exact_accepts_the_answer_itself(text: str) -> None:
    verdict = judge(Exact(), text, item(answer=text))
    assert verdict.right or not text.strip()


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("B", "B"), ("b.", "B"), ("(B)", "B"), ("**B**", "B"), ("B) Paris", "B"), ("B: because", "B"), ("Paris", "B"),
        ("The answer is (B).", "B"), ("The answer is option B", "B"), (r"\boxed{B}", "B"), (r"\boxed{\text{(B)}}", "B"),
        ("Answer: B", "B"), ("the correct choice B is best", "B"), ("A or B", ""), ("", ""), ("(A) and (B)", ""),
        ("Berlin", "C"), ("A", "A"), ("A capital is a city", ""), ("E", ""), ("I say nothing", ""),
    ],
)  # fmt: skip
def test_choices(reply: str, label: str) -> None:
    about = item(choices=["Lyon", "Paris", "Berlin"], answer="B")
    verdict = judge(Choice(), reply, about)
    assert verdict.answer == label
    assert verdict.right == (label == "B")


def test_two_options_are_ambiguous_and_none_is_no_answer() -> None:
    about = item(choices=["Lyon", "Paris"], answer="B")
    assert judge(Choice(), "The answer is (A) or (B)", about).reason == "ambiguous"
    assert judge(Choice(), "The answer is unclear", about).reason == "no_answer"


@pytest.mark.parametrize("answer", ["B", "b", "Paris", " paris ", 1])
def test_the_right_option_is_named_by_label_text_or_number(answer: Any) -> None:
    assert judge(Choice(), "B", item(choices=["Lyon", "Paris"], answer=answer)).right
    assert judge(Choice(), "A", item(choices=["Lyon", "Paris"], answer=answer)).reason == "wrong"


@pytest.mark.parametrize("meta", [{}, {"choices": ["a", "b"]}, {"choices": ["a", "b"], "answer": 2}, {"answer": "A"}])
def test_an_item_without_a_right_option_has_no_reference(meta: dict[str, Any]) -> None:
    assert judge(Choice(), "A", item(**meta)).reason == "no_reference"


@pytest.mark.parametrize(
    ("text", "value", "percent"),
    [
        ("18", 18, False), ("-3", -3, False), ("−3", -3, False), ("1,234,567.5", Fraction("1234567.5"), False),
        (".5", Fraction(1, 2), False), ("1/2", Fraction(1, 2), False), (r"\frac{1}{2}", Fraction(1, 2), False),
        (r"-\dfrac12", Fraction(-1, 2), False), ("1 1/2", Fraction(3, 2), False), (r"2\frac14", Fraction(9, 4), False),
        ("50%", 50, True), (r"50\%", 50, True), ("50 percent", 50, True), ("$5", 5, False), (r"\$1{,}000", 1000, False),
        ("3e8", 3 * 10**8, False), (r"3 \times 10^8", 3 * 10**8, False), (r"3\cdot10^{-2}", Fraction(3, 100), False),
        ("x = 7", 7, False), ("2 + 3 = 5", 5, False), ("5 apples", 5, False), (r"5\text{ cm}", 5, False),
        ("5 cm^2", 5, False), (r"90^\circ", 90, False), ("about 5", 5, False),
    ],
)  # fmt: skip
def test_numbers_are_read(text: str, value: Any, percent: bool) -> None:
    found = number_in(text)
    assert found is not None
    assert (found.value, found.percent) == (value, percent)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "five",
        "1 + 1",
        "2^{10}",
        "10^{10}",
        "2*3",
        "10**10**10",
        "5!",
        "5 million",
        "1,2,3",
        "(1,2)",
        "[0, 1)",
        "3 or 4",
        "12:30",
        "1/0",
        r"\frac{1}{0}",
        "3+4i",
        r"\sqrt{2}",
        "x^2+1",
    ],
)
def test_what_is_no_single_number_is_none(text: str) -> None:
    assert number_in(text) is None


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("The answer is 18.0.", "18", True), ("18", "18.0000000001", True), ("18", "18.00001", False),
        ("0.5", "1/2", True), ("50%", "1/2", True), ("50%", "50", True), ("50%", "0.5%", False), ("1/3", "0.33", False),
        ("1.5", "15", False), ("1e-9", "2e-9", False), ("-5", "5", False), ("#### 1,000", "1000", True),
    ],
)  # fmt: skip
def test_numeric(reply: str, gold: str, right: bool) -> None:
    assert judge(Numeric(), reply, item(answer=gold)).right == right


def test_numeric_says_why_not() -> None:
    assert judge(Numeric(), "no idea", item(answer="5")).reason == "no_answer"
    assert judge(Numeric(), "5", item(answer="five")).reason == "no_reference"
    assert judge(Numeric(), "6", item("6 + 1 = 7\n#### 7")).reason == "wrong"
    assert judge(Numeric(), "7", item("6 + 1 = 7\n#### 7")).right


@given(st.fractions(max_denominator=10**6))
def test_a_number_equals_itself_in_any_spelling(number: Fraction) -> None:
    for spelling in (str(number), rf"\frac{{{number.numerator}}}{{{number.denominator}}}", rf"\boxed{{{number}}}"):
        assert judge(Numeric(), spelling, item(answer=str(number))).right


def test_plain_folds_what_does_not_count() -> None:
    assert plain("  The\n  End. ") == "the end"
    assert plain("“x”") == "“x”"


@pytest.mark.parametrize("reply", ["The answer is 3700 370000.", "3700 370000", "The answer is 37 47"])
def test_two_numbers_side_by_side_are_no_answer(reply: str) -> None:
    asked = Example((Message("user", "How much?"),), "s", {"answer": "3700" if "3700" in reply else "37"})
    [verdict] = Numeric().verify([(reply, asked)])
    assert not verdict.right
