"""One call for all verifiers, and the judge."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.canned import CannedModel
from models.converse import converse
from models.protocol import Completion, Failure, Prompt, Usage, Verdict
from models.verify.answer import MAX_CHARS
from models.verify.checked import (
    ALL_REASONS,
    checked,
    judge_roles,
    reasons_of,
    told_of,
    unusable,
    verifier_roles,
)
from models.verify.judge import JUDGE_REASONS, TEMPLATE
from models.verify.table import VERIFIERS
from warehouse.errors import InputError
from warehouse.records import Example, Message


def item(**meta: Any) -> Example:
    return Example((Message("user", "Capital of France?"),), "s", meta)


PARIS = item(answer="Paris", aliases=["City of Light"])


def ask(verifier: str, reply: Completion | str, about: Example = PARIS, judge: Any = None) -> Verdict:
    verifiers = {verifier: VERIFIERS[verifier]()} if verifier in VERIFIERS else {}
    models = {"judge": judge} if judge else {}
    [verdict] = converse([checked(verifier, reply, about)], models, verifiers=verifiers)
    assert verdict.right == (not verdict.reason)
    assert verdict.reason in {"", *reasons_of(verifier)} <= {"", *ALL_REASONS}
    return verdict


def says(text: str, **fields: Any) -> Any:
    class Says(CannedModel):
        def complete(self, prompts: Any) -> list[Completion]:
            self.prompts += prompts
            return [Completion(text, **({"finish_reason": "stop", "usage": Usage(1, 1)} | fields)) for _ in prompts]

    return Says({})


def test_a_verifier_is_asked_by_its_name() -> None:
    assert ask("exact", "paris").right
    assert ask("exact", Completion("paris", "stop", Usage(1, 1))).right
    assert ask("exact", "lyon").reason == "wrong"
    assert ask("numeric", "5", item(answer=5)).right
    assert ask("choice", "A", item(choices=["x", "y"], answer=0)).right


@pytest.mark.parametrize("verifier", ["exact", "judge"])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"failure": failure}, failure) for failure in get_args(Failure) if failure]
    + [({"finish_reason": "length"}, "cut_off"), ({"truncated": True}, "prompt_too_long")],
)
def test_what_is_no_whole_reply_is_not_right_and_nobody_is_asked(
    verifier: str, fields: dict[str, Any], reason: str
) -> None:
    reply = Completion(**({"text": "paris", "finish_reason": "stop", "usage": Usage(1, 1), "detail": "d"} | fields))
    [verdict] = converse([checked(verifier, reply, PARIS)], {})  # a question to anybody would be an error
    assert verdict == Verdict(False, "", reason, "d")


def test_the_judge_is_told_the_question_the_answers_and_the_reply() -> None:
    judge = says("Yes.")
    assert ask("judge", " It is Paris. ", judge=judge) == Verdict(True, "It is Paris.")
    [prompt] = judge.prompts
    text = prompt.messages[0].content
    assert "Capital of France?" in text
    assert "one of the correct answers" in text
    assert "Correct answer: Paris\n" in text
    assert "Correct answer: City of Light\n" in text
    assert "BEGIN REPLY\nIt is Paris.\nEND REPLY" in text
    assert prompt.temperature == 0
    gold = Example((*PARIS.messages, Message("assistant", "Paris, of course")), "s")
    assert ask("judge", "x", gold, judge).right
    assert "Correct answer: Paris, of course\n" in judge.prompts[-1].messages[0].content
    assert judge.prompts[-1].messages[0].content.count("Capital of France?") == 1


@pytest.mark.parametrize("said", ["yes", "Yes", "YES.", " yes\n", '"yes"', "**Yes**", "yes!"])
def test_yes_is_yes(said: str) -> None:
    assert ask("judge", "x", judge=says(said)).right


@pytest.mark.parametrize(
    ("said", "reason"),
    [("no", "wrong"), ("No.", "wrong"), ("*NO*", "wrong")]
    + [
        (said, "judge_unclear") for said in ("", "yes and no", "yesno", "Yes, it is", "y", "true", "yes\nno", "ja", "1")
    ],
)
def test_anything_else_is_not(said: str, reason: str) -> None:
    assert ask("judge", "x", judge=says(said)).reason == reason


@given(st.text())
def test_any_judgement_is_read_or_unclear(said: str) -> None:
    verdict = ask("judge", "x", judge=says(said))
    assert (
        verdict.right == (said.strip(" \t\n\r\"'*`().!\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0").lower() == "yes")
        or verdict.reason
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"finish_reason": "length"}, "judge_unclear"),
        ({"failure": "over_budget"}, "over_budget"),
        ({"truncated": True}, "judge_prompt_too_long"),
    ],
)
def test_a_judge_that_fails_is_no_judgement(fields: dict[str, Any], reason: str) -> None:
    assert ask("judge", "x", judge=says("yes", **fields)).reason == reason


def test_the_judge_is_not_asked_what_it_cannot_answer() -> None:
    assert ask("judge", "x", item()).reason == "no_reference"
    assert ask("judge", " ").reason == "no_answer"
    assert ask("judge", "x" * (MAX_CHARS + 1)).reason == "too_long"


def test_roles_and_what_is_told() -> None:
    assert (verifier_roles("math"), judge_roles("math"), told_of("math")) == (("math",), (), "")
    assert (verifier_roles("judge"), judge_roles("judge"), told_of("judge")) == ((), ("judge",), TEMPLATE.key)
    assert JUDGE_REASONS <= reasons_of("judge") <= ALL_REASONS
    assert len({VERIFIERS[name]().fingerprint for name in VERIFIERS}) == len(VERIFIERS)


def test_an_unknown_verifier_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown verifier 'tarot'; known verifiers: exact, numeric, math, .*judge"):
        converse([checked("tarot", "x", PARIS)], {})
    with pytest.raises(InputError, match="tarot"):
        reasons_of("tarot")


@pytest.mark.parametrize(
    ("verifier", "meta", "why"),
    [
        ("exact", {"answer": "x"}, ""), ("exact", {}, "no_reference"), ("exact", {"answer": " "}, "no_reference"),
        ("numeric", {"answer": "7"}, ""), ("numeric", {"answer": "seven"}, "no_reference"),
        ("math", {"answer": "x^2"}, ""), ("math", {}, "no_reference"),
        ("judge", {"answer": "x"}, ""), ("judge", {}, "no_reference"),
        ("choice", {"answer": "A", "choices": ["x"]}, ""), ("choice", {"answer": "A"}, "no_reference"),
        ("unit_test", {"tests": ["assert 1"]}, ""), ("unit_test", {"answer": "x"}, "no_reference"),
    ],
)  # fmt: skip
def test_items_that_no_reply_can_be_checked_against(verifier: str, meta: dict[str, Any], why: str) -> None:
    assert unusable(verifier, item(**meta)) == why
    unasked = Example((Message("assistant", "x"),), "s", meta)
    assert unusable(verifier, unasked) == "no_question"


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_every_verifier_gives_a_verdict_on_anything(verifier: str) -> None:
    items = [item(answer="1", choices=["1", "2"], tests="assert True"), item()]
    replies = ["1", "", "\x00", "é" * 10, "\ud800"]
    asked = [(reply, about) for about in items for reply in replies]
    verdicts = VERIFIERS[verifier]().verify(asked)
    assert len(verdicts) == len(asked)
    assert {v.reason for v in verdicts} <= {"", *VERIFIERS[verifier].reasons}
    assert not any(v.right for v in verdicts[len(replies) :])


def test_prompt_of_the_judge_is_short_to_answer() -> None:
    judge = says("no")
    ask("judge", "x", judge=judge)
    assert isinstance(judge.prompts[0], Prompt)
    assert judge.prompts[0].max_tokens <= 16
