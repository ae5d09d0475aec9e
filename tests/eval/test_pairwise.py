"""Judged pairs: both places, what counts as a win, and answers that cannot be read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.assess import Assessment, assess
from eval.pairwise import Pairwise, compared, letter_of
from models.canned import CannedModel
from models.protocol import Completion, Prompt, Usage
from warehouse.errors import InputError
from warehouse.records import Example, Message

ROWS = tuple(Example((Message("user", f"Question {n}?"), Message("assistant", f"gold {n}")), "made") for n in range(4))


def said(text: str, reason: str = "stop") -> Completion:
    return Completion(text, reason, Usage(1, 1))


def judged(verdicts: list[str], system: str = "") -> tuple[Assessment, CannedModel]:
    judge = CannedModel(verdicts)
    models = {"tuned": CannedModel(lambda _: "ours"), "judge": judge}
    return assess(Pairwise(ROWS, system=system), models, "key", np.random.default_rng(0)), judge


def places(prompt: Prompt) -> tuple[str, str]:
    text = prompt.messages[0].content
    return tuple(  # type: ignore[return-value]
        text.split(f"BEGIN REPLY {place}\n")[1].split(f"\nEND REPLY {place}")[0] for place in "AB"
    )


def test_both_places_are_asked_and_a_win_needs_both() -> None:
    found, judge = judged(["A", "B", "A", "A", "B", "A", "C", "B"])  # won, depends on the place, lost, half
    assert [places(prompt) for prompt in judge.prompts[:2]] == [("ours", "gold 0"), ("gold 0", "ours")]
    assert [row.value for row in found.items if row.metric == "win_rate"] == [1.0, 0.5, 0.0, 0.5]
    assert [row.value for row in found.items if row.metric == "position_bias"] == [0.0, 1.0, 0.0, 1.0]
    assert found.report.metrics["win_rate"].value == 0.5
    assert found.report.metrics["position_bias"].value == 0.5
    assert found.report.metrics["undecided"].value == 0.0
    assert "nll" in found.report.metrics
    assert {prompt.temperature for prompt in judge.prompts} == {0.0}


def test_answers_that_cannot_be_read_are_counted() -> None:
    found, _ = judged(["A", "B", "It is A", "B", "maybe", "none", "C", "C"])
    assert [row.value for row in found.items if row.metric == "undecided"] == [0.0, 1.0, 1.0, 0.0]
    assert [row.value for row in found.items if row.metric == "win_rate"] == [1.0, 0.5, 0.5, 0.5]
    assert json.loads(next(row for row in found.items if row.value == 1.0 and row.metric == "undecided").detail) == {
        "heard": ["It is A", "B"],
        "verdicts": ["", "B"],
    }


def test_the_judge_reads_the_conversation_and_nothing_given_before_it() -> None:
    _, judge = judged(["C"] * 8, system="You are ours.")
    assert "user: Question 0?" in judge.prompts[0].messages[0].content
    assert "You are ours." not in judge.prompts[0].messages[0].content


@pytest.mark.parametrize(
    ("text", "letter"),
    [("A", "A"), (" **B**.", "B"), ("[[C]]", "C"), ("(A)", "A"), ("a", ""), ("AB", ""), ("A is better", ""), ("", "")],
)
def test_letters(text: str, letter: str) -> None:
    assert letter_of(said(text)) == letter
    assert letter_of(said(text, "length")) == ""


@given(st.sampled_from("ABC"), st.sampled_from("ABC"))
def test_turning_the_places_turns_the_verdict(first: str, second: str) -> None:
    ours, theirs = compared(said(first), said(second)).values, compared(said(second), said(first)).values
    assert ours["win_rate"] + theirs["win_rate"] == 1.0
    assert (
        ours["position_bias"]
        == theirs["position_bias"]
        == float((first, second) not in {("A", "B"), ("B", "A"), ("C", "C")})
    )


def test_a_judge_that_does_not_answer_stops_the_evaluation() -> None:
    lost = Completion("", "error", Usage(0, 0), failure="unreachable", detail="no route")
    assert compared(lost, said("A")).detail["failure"] == "unreachable"

    class Gone(CannedModel):
        def complete(self, prompts: object) -> list[Completion]:
            return [lost for _ in prompts]  # type: ignore[attr-defined]

    with pytest.raises(InputError, match=r"got no answer .* the judge: no route"):
        assess(
            Pairwise(ROWS), {"tuned": CannedModel(lambda _: "x"), "judge": Gone([])}, "key", np.random.default_rng(0)
        )


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown template 'pairwise.v9'; known: pairwise.v1"):
        Pairwise(ROWS, template="pairwise.v9")
