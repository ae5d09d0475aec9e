"""What synthesizers share that ask for replies: which replies are lost, which seeds are of use, and random streams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.protocol import Completion, Failure, Usage
from synthesis.attempts import LOST, asked_instead, gold_of, lost, streams, unusable
from warehouse.records import Example, Message


def reply(text: str = "Yes.", finish: str = "stop", truncated: bool = False, failure: Failure = "") -> Completion:
    return Completion(text, finish, Usage(1, 1), (), truncated, failure)


@pytest.mark.parametrize(
    ("given_reply", "whole", "partial"),
    [
        (reply(), "", ""),
        (reply(finish="length"), "cut_off", ""),
        (reply(" \n"), "empty", ""),
        (reply(truncated=True, finish="length"), "prompt_too_long", "prompt_too_long"),
        (reply("", "error", failure="unreachable"), "unreachable", "unreachable"),
        (reply("", "error", failure="filtered"), "filtered", "filtered"),
    ],
)
def test_why_a_reply_is_lost(given_reply: Completion, whole: str, partial: str) -> None:
    assert lost(given_reply) == whole
    assert lost(given_reply, whole=False) == partial
    assert {whole, partial} - {""} <= LOST


USER, SYSTEM, GOLD = Message("user", "Why?"), Message("system", "Be brief."), Message("assistant", "So.")


@pytest.mark.parametrize(
    ("messages", "reason", "gold"),
    [
        ((SYSTEM, USER, GOLD), "", "So."),
        ((USER,), "no_reply", ""),
        ((GOLD,), "no_question", "So."),
        ((SYSTEM, GOLD), "no_question", "So."),
        ((Message("user", " "), GOLD), "no_question", "So."),
        ((USER, Message("assistant", " ")), "no_reply", " "),
        ((USER, GOLD, USER), "no_reply", ""),
        ((), "no_question", ""),
    ],
)
def test_which_seeds_are_of_use(messages: tuple[Message, ...], reason: str, gold: str) -> None:
    seed = Example(messages, "s")
    assert unusable(seed) == reason
    assert gold_of(seed) == gold


def test_a_question_is_asked_in_other_words() -> None:
    assert asked_instead((SYSTEM, USER), "How?") == (SYSTEM, Message("user", "How?"))


@settings(deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=8), st.integers(0, 2**32))
def test_a_stream_is_its_seed_s_whatever_stands_beside_it(texts: list[str], root: int) -> None:
    seeds = [Example((Message("user", text), GOLD), "s") for text in texts]

    def firsts(chosen: list[Example]) -> dict[str, float]:
        drawn = streams(chosen, np.random.default_rng(root))
        return {seed.sample_id: float(rng.random()) for seed, rng in zip(chosen, drawn, strict=True)}

    whole = firsts(seeds)
    assert firsts(seeds[::-1]) == whole
    assert all(firsts([seed]) == {seed.sample_id: whole[seed.sample_id]} for seed in seeds)
    assert len(set(whole.values())) == len({seed.sample_id for seed in seeds})
