"""Confidence of refusal-aware models: the formula by worked numbers, and what the report says of known cases."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.refusal import (
    Confidence,
    answer_confidence,
    confidence,
    refusal_confidence,
    refusal_report,
    sure_probability,
)
from models.canned import CannedModel
from models.converse import converse
from models.protocol import Completion, Measures, Prompt, Usage, Want
from warehouse.records import Message, Messages

QUESTION = (Message("user", "Where is the Louvre?"),)


class Sure(CannedModel):
    """Says "Paris", in two tokens of probability 1/2 and 1/8; "sure" is three times as likely as "unsure"."""

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        self.prompts.extend(prompts)
        return [Completion("Paris", "stop", Usage(4, 2)) for _ in prompts]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        endings = {"I am sure.": [0.03], "I am unsure.": [0.1, 0.1], "Paris": [0.001]}  # "unsure" is two tokens
        said = [row[-1].content for row in rows]
        found = [
            np.log([0.5, 0.125, *next(end for words, end in endings.items() if text.endswith(words))]) for text in said
        ]
        logprobs = [each.astype(np.float32) for each in found]
        return Measures(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_), response_logprobs=logprobs)


class Gone(CannedModel):
    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        return [Completion("", "error", Usage(0, 0), failure="unreachable") for _ in prompts]


def asked(model: CannedModel) -> Confidence:
    return converse([confidence("tuned", Prompt(QUESTION, temperature=0.7))], {"tuned": model})[0]


def test_confidence_is_half_of_the_answer_s_and_half_of_the_sureness_of_whole_endings() -> None:
    model = Sure({})
    found = asked(model)
    assert found.answer == "Paris"
    assert found.answer_confidence == pytest.approx(0.25)  # sqrt(1/2 * 1/8), whatever its end token has
    assert found.sure_probability == pytest.approx(0.75)  # 0.03 against 0.01
    assert found.value == pytest.approx(0.5)
    assert [(prompt.temperature, prompt.stop) for prompt in model.prompts] == [(0.0, ("Are you sure you accurately",))]


def test_a_model_that_fails_is_a_value() -> None:
    found = asked(Gone({}))
    assert (found.answer, found.answer_confidence, found.sure_probability) == ("", 0.0, 0.0)
    assert found.told["failure"] == "unreachable"


def test_an_answer_of_no_token_has_no_confidence() -> None:
    assert answer_confidence(()) == 0.0
    assert refusal_confidence(0.0, 1.0) == 0.5


@settings(deadline=None)
@given(st.floats(-800, 0), st.floats(-800, 0))
def test_sureness_is_a_probability_and_turns_around(sure: float, unsure: float) -> None:
    a, b = np.array([sure], np.float32), np.array([unsure], np.float32)
    assert 0 <= sure_probability(a, b) <= 1
    assert sure_probability(a, b) + sure_probability(b, a) == pytest.approx(1)


def test_a_model_that_knows_what_it_knows() -> None:
    right = np.array([True] * 6 + [False] * 4)
    sure = np.linspace(0.95, 0.05, 10)
    report = refusal_report(right, sure, sure, np.random.default_rng(0))
    assert report.average_precision is not None
    assert report.accuracy_answered is not None
    assert (report.average_precision.value, report.accuracy.value) == (1.0, 0.6)
    assert (report.willingness.value, report.accuracy_answered.value) == (0.5, 1.0)
    assert report.accuracy_answered.low < 1
    assert report.accuracy_answered.n == 5


def test_average_precision_by_hand() -> None:
    right, conf = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.6])
    report = refusal_report(right, conf, conf, np.random.default_rng(0))
    assert report.average_precision is not None
    assert report.average_precision.value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert report.average_precision.low < 0.8 < report.average_precision.high


def test_what_no_item_gives_is_none() -> None:
    report = refusal_report(np.zeros(5, np.bool_), np.full(5, 0.4), np.full(5, 0.4), np.random.default_rng(0))
    assert report.average_precision is None
    assert report.accuracy_answered is None
    assert (report.accuracy.value, report.willingness.value) == (0.0, 0.0)
    with pytest.raises(ValueError, match="do not fit"):
        refusal_report(np.zeros(5, np.bool_), np.zeros(4), np.zeros(5), np.random.default_rng(0))
