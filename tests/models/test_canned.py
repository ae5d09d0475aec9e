"""Prepared replies, and measures that are a function of the row."""

import numpy as np
import pytest
from model_rows import ROWS, said

from models.canned import CannedEncoder, CannedModel
from models.protocol import Encoder, LanguageModel, Prompt, Want
from warehouse.errors import InputError

ASK, AGAIN = Prompt(said("ask")), Prompt(said("again"))


def test_it_answers_to_the_protocols() -> None:
    model: LanguageModel = CannedModel({})
    encoder: Encoder = CannedEncoder()
    assert model.fingerprint != encoder.fingerprint


def test_three_ways_to_prepare_replies() -> None:
    for replies in ({"ask": "one", "again": "two"}, ["one", "two"], lambda p: "one" if p == ASK else "two"):
        model = CannedModel(replies)
        assert [r.text for r in model.complete([ASK, AGAIN])] == ["one", "two"]
        assert model.prompts == [ASK, AGAIN]


def test_what_was_not_prepared_is_an_error() -> None:
    with pytest.raises(InputError, match="'ask'; prepared: 'known'"):
        CannedModel({"known": ""}).complete([ASK])
    with pytest.raises(InputError, match="used up"):
        CannedModel(["one"]).complete([ASK, ASK])


def test_stop_strings_and_limits_hold() -> None:
    [reply] = CannedModel(["a b c d"]).complete([Prompt(said("x"), max_tokens=2)])
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens, len(reply.logprobs)) == (
        "a b",
        "length",
        2,
        2,
    )
    [reply] = CannedModel(["a b\n\nc"]).complete([Prompt(said("x"), stop=("\n\n",))])
    assert (reply.text, reply.finish_reason) == ("a b", "stop")


def test_measures_are_a_function_of_the_row_alone() -> None:
    model, wants = CannedModel({}), frozenset(Want)
    forwards, backwards = model.measure(ROWS, wants, (1, 2)), model.measure(ROWS[::-1], wants, (1, 2))
    assert np.array_equal(forwards.representation, backwards.representation[::-1])
    assert np.array_equal(forwards.choice_logits, backwards.choice_logits[::-1])
    assert all(map(np.array_equal, forwards.response_logprobs, backwards.response_logprobs[::-1]))
    assert np.linalg.norm(forwards.representation, axis=1) == pytest.approx(1)
    assert forwards.choice_logits.shape == (len(ROWS), 2)
    assert all((logprobs <= 0).all() for logprobs in forwards.response_logprobs)
    assert model.measure([], wants, (1,)).representation.shape == (0, 16)


def test_fingerprints_follow_the_replies() -> None:
    prints = {CannedModel(r).fingerprint for r in ({"a": "b"}, {"a": "c"}, ["a"], str)}
    assert len(prints) == 4
