"""S3FT: own answer, own paraphrase or gold, by worked examples; paraphrases are judged again and leaks rejected."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from attempt_worlds import Rows, SameText, Talker, accepted, asks, made, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Rejected
from models.protocol import Measures, Prompt, Verdict, Want
from synthesis.s3ft import S3FT, Attempt, best_of, leaks
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages

SELF = asks("What is 2 + 3?", "2 + 3 = 5")
PARAPHRASED = asks("What is 4 + 4?", "4 + 4 = 8")
GOLD = asks("What is 6 + 6?", "6 + 6 = 12")
LEAKY = asks("What is 7 + 7?", "7 + 7 = 14")
LONG = asks("What is 9 + 9?", "9 + 9 = 18")
SEEDS = [SELF, PARAPHRASED, GOLD, LEAKY, LONG]


def says(prompt: Prompt) -> str:
    asked = prompt.messages[-1].content
    shown = "Correct response:" in asked
    if "2 + 3" in asked:
        return "It makes 5"
    if "4 + 4" in asked:
        return "Twice four is 8" if shown else "It makes 9"
    if "6 + 6" in asked:
        return "Double six is 13" if shown else "It makes 11"  # other words, and another answer
    if "7 + 7" in asked:
        return "As the reference answer says, 14" if shown else "It makes 77"
    return "nine and nine is 18 " if shown else "<length>"


class Measured(Talker):
    """Mean log-probability of a reply: minus its number of characters, over ten."""

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        found = []
        for row in rows:
            said = [turn.content for turn in row if turn.role == "assistant"]
            found.append(
                np.concatenate([np.full(3, -len(text) / 10, np.float32) for text in said] or [np.zeros(0, np.float32)])
            )
        return Measures(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_), response_logprobs=found)


def rows_of(job: S3FT, seeds: list[Example], model: Talker | None = None, **more: Any) -> Rows:
    verifier = more.pop("verifier", None) or SameText()
    return made(job, seeds, {"learner": model or Measured(says)}, verifiers={"exact": verifier}, **more)


def test_own_answer_else_own_paraphrase_else_gold() -> None:
    rows = accepted(rows_of(S3FT("exact"), SEEDS))
    assert [(row.meta["source"], row.messages[-1].content) for row in rows] == [
        ("self", "It makes 5"),
        ("paraphrase", "Twice four is 8"),
        ("gold", "6 + 6 = 12"),
        ("gold", "7 + 7 = 14"),
        ("paraphrase", "nine and nine is 18"),
    ]
    assert [row.messages[:-1] for row in rows] == [seed.messages[:-1] for seed in SEEDS]
    assert [row.meta["parents"] for row in rows] == [[seed.sample_id] for seed in SEEDS]


def test_the_paraphrase_is_asked_for_only_where_the_own_answer_is_wrong_and_is_judged_again() -> None:
    model, verifier = Measured(says), SameText()
    rows_of(S3FT("exact"), [SELF, GOLD], model, verifier=verifier)
    assert [("Correct response:" in p.messages[-1].content, p.temperature) for p in model.prompts] == [
        (False, 0.0), (False, 0.0), (True, 0.0),
    ]  # fmt: skip
    assert "6 + 6 = 12" in model.prompts[2].messages[-1].content
    assert verifier.asked == ["It makes 5", "It makes 11", "Double six is 13"]


def test_every_attempt_is_kept_with_its_verdict() -> None:
    self_made, _, gold, leaky, long = (row.meta["attempts"] for row in accepted(rows_of(S3FT("exact"), SEEDS)))
    assert list(self_made) == ["self"]
    assert gold["self"] == [
        {"text": "It makes 11", "logprob": pytest.approx(-1.1), "right": False, "answer": "something else",
         "reason": "wrong"}
    ]  # fmt: skip
    assert gold["paraphrase"][0]["reason"] == "wrong"
    assert leaky["paraphrase"][0]["reason"] == "leak"
    assert long["self"][0]["reason"] == "cut_off"


def test_the_likelihoods_of_all_that_was_there_are_kept() -> None:
    rows = accepted(rows_of(S3FT("exact"), SEEDS))
    assert rows[0].meta["logprobs"] == pytest.approx({"self": -1.0, "gold": -0.9})
    assert rows[1].meta["logprobs"] == pytest.approx({"self": -1.0, "paraphrase": -1.5, "gold": -0.9})


def test_a_likelihood_is_that_of_the_last_reply_alone() -> None:
    talk = (Message("user", "Hi"), Message("assistant", "x" * 500), *SELF.messages)
    [row] = accepted(rows_of(S3FT("exact"), [Example(talk, "s")]))
    assert row.meta["logprobs"] == pytest.approx({"self": -1.0, "gold": -0.9})
    assert row.messages == (*talk[:-1], Message("assistant", "It makes 5"))


def test_without_likelihoods_no_local_model_is_needed() -> None:
    job = S3FT("exact", likelihoods=False)
    assert job.needs.scored == ()
    assert S3FT("exact").needs.scored == ("learner",)
    [row] = accepted(rows_of(job, [SELF], Talker(says)))
    assert row.meta["logprobs"]["self"] < 0  # the model's own figures
    assert "gold" not in row.meta["logprobs"]


def test_of_several_right_candidates_the_likeliest_is_taken() -> None:
    replies = ["wrong", "I think that it makes 5", "is 5", "no"]
    model = Measured(lambda prompt: replies[prompt.draw])
    [row] = accepted(rows_of(S3FT("exact", candidates=4), [SELF], model))
    assert row.messages[-1].content == "is 5"
    assert [each["right"] for each in row.meta["attempts"]["self"]] == [False, True, True, False]
    assert [(p.draw, p.temperature > 0) for p in model.prompts] == [(0, False), (1, True), (2, True), (3, True)]


def test_a_reply_that_failed_is_no_attempt_and_one_that_nobody_gave_is_waited_for() -> None:
    refused = Measured(lambda prompt: "<filtered>" if prompt.draw == 0 else "is 5")
    [row] = accepted(rows_of(S3FT("exact", candidates=2), [SELF], refused))
    assert len(row.meta["attempts"]["self"]) == 1
    down = Measured(lambda prompt: "<unreachable>" if prompt.draw == 1 else "is 5")
    assert reasons(rows_of(S3FT("exact", candidates=2), [SELF], down)) == {"unreachable": 1}
    [lost] = rows_of(S3FT("exact"), [SELF], Measured(lambda prompt: "<filtered>"))
    assert isinstance(lost, Rejected)
    assert (lost.reason, lost.detail) == ("filtered", "as told")


def test_a_paraphrase_that_fails_is_no_reason_to_take_the_gold_reply() -> None:
    model = Measured(lambda p: "<unreachable>" if "Correct response:" in p.messages[-1].content else "wrong")
    assert reasons(rows_of(S3FT("exact"), [SELF], model)) == {"unreachable": 1}


def test_every_seed_ends_in_one_row() -> None:
    odd = [Example((Message("user", "Why?"),), "s"), Example((Message("assistant", "So."),), "s"), SELF]
    assert reasons(rows_of(S3FT("exact"), odd)) == {"": 1, "no_reply": 1, "no_question": 1}


def test_a_seed_without_a_reference_is_not_asked_about() -> None:
    model = Measured(says)
    rows = made(S3FT("unit_test"), [SELF], {"learner": model}, verifiers={"unit_test": SameText()})
    assert reasons(rows) == {"no_reference": 1}
    assert not model.prompts


@pytest.mark.parametrize(
    ("text", "allowed", "leak"),
    [
        ("As the reference answer states, 4.", "", True),
        ("The Provided\nSolution says 4.", "", True),
        ("The answer given above is 4.", "", True),
        ("In my own words: 4.", "", True),
        ("The answer is 4.", "", False),
        ("Check the correct answer twice.", "What is the correct answer?", False),  # the question's own words
        ("Prefer the referenced answering machine.", "", False),
    ],
)
def test_what_speaks_of_the_response_that_was_shown(text: str, allowed: str, leak: bool) -> None:
    assert leaks(text, allowed) is leak


@settings(deadline=None, max_examples=30)
@given(st.permutations(SEEDS), st.integers(1, 3))
def test_the_order_of_the_seeds_and_the_wave_only_order_the_rows(seeds: list[Example], wave: int) -> None:
    def texts(rows: Rows) -> list[str]:
        return sorted(repr(row) for row in rows)

    job = S3FT("exact", candidates=2)
    assert texts(rows_of(job, seeds, wave=wave)) == texts(rows_of(job, SEEDS))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.none() | st.floats(-9, 0)), min_size=1, max_size=6))
def test_the_best_is_right_if_any_is_and_likeliest_among_its_like(drawn: list[tuple[bool, float | None]]) -> None:
    attempts = [Attempt(str(i), Verdict(right), logprob) for i, (right, logprob) in enumerate(drawn)]
    best = best_of(attempts)
    assert best.verdict.right == any(right for right, _ in drawn)
    alike = [p for right, p in drawn if right == best.verdict.right]
    assert (best.logprob if best.logprob is not None else -math.inf) == max(
        -math.inf if p is None else p for p in alike
    )


@pytest.mark.parametrize(
    "wrong",
    [{"verifier": "nobody"}, {"candidates": 0}, {"max_tokens": 0}, {"candidates": 2, "temperature": 0.0}],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        S3FT(**{"verifier": "exact", **wrong})


def test_a_judge_is_a_model_and_what_it_is_told_is_part_of_the_key() -> None:
    assert S3FT("judge").needs.models == ("learner", "judge")
    assert S3FT("judge").needs.verifiers == ()
    assert S3FT("judge").told != S3FT("exact").told
