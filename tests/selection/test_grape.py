"""GRAPE: of the replies to an instruction the likeliest, and what keeps a reply out; and the share of repetition."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reply_worlds import SPEC, obeys_the_laws, replies, world

from selection.grape import Grape, turns_of
from selection.problem import Problem
from selection.repetition import TEXTS_AT_ONCE, repetition, spec
from warehouse.errors import InputError
from warehouse.records import canonical

RNG = np.random.default_rng(0)
NAN = float("nan")
METHOD = Grape(SPEC, SPEC)


def pool(budget, nll, instruction, *, tokens=None, cut=None, keys=None, repeated=None):
    n = len(nll)
    return Problem(
        budget=budget,
        keys=np.asarray(range(n) if keys is None else keys, np.uint64),
        candidates={
            "response": replies(nll, tokens, cut),
            "repetition": np.zeros(n, np.float32) if repeated is None else np.asarray(repeated, np.float32),
        },
        groups={"instruction": np.asarray(instruction, np.int64)},
    )


def test_the_worked_choice():
    """A = [-1, -1, -1], B = [-.5, -1.2], C = [-.2, -2.2, -.2, -.2]: means -1, -.85, -.7, so C."""
    logprobs = [[-1, -1, -1], [-0.5, -1.2], [-0.2, -2.2, -0.2, -0.2]]
    made = pool(1, [-np.mean(each) for each in logprobs], [4, 4, 4], tokens=[3, 2, 4])
    answer = METHOD(made, RNG)
    assert answer.rows.tolist() == [2]
    assert answer.scores == pytest.approx([-0.7])
    assert np.exp(-answer.scores) == pytest.approx([2.014], abs=1e-3)
    assert answer.reasons == ("instruction=4 replies=3 logprob=-0.7 tokens=4 round=1",)
    assert METHOD(replace(made, budget=3), RNG).rows.tolist() == [2, 1, 0]
    assert Grape(SPEC, SPEC, order="reverse")(replace(made, budget=3), RNG).rows.tolist() == [0, 1, 2]


def test_rounds_take_one_reply_of_every_instruction():
    made = pool(12, [1, 2, 3, 1.5, 2.5, 3.5, 1.2, 2.2, 3.2, 1.1, 2.1, 3.1], np.repeat([7, 8, 9, 10], 3))
    answer = METHOD(made, RNG)
    assert [sorted(part) for part in answer.rows.reshape(3, 4).tolist()] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    turns = [(part // 3).tolist() for part in answer.rows.reshape(3, 4)]
    assert turns[0] == turns[1] == turns[2]
    assert len({tuple(METHOD(made, np.random.default_rng(seed)).rows[:4].tolist()) for seed in range(40)}) > 10


def test_ties_go_to_the_shorter_then_to_the_lower_key():
    made = pool(4, [1, 1, 1, 1], [0] * 4, tokens=[9, 5, 5, 7], keys=[1, 4, 3, 2])
    assert METHOD(made, RNG).rows.tolist() == [2, 1, 3, 0]


def test_a_copy_of_a_reply_is_no_choice():
    """Rows 0 and 1 are the same reply: it counts once, and instruction 0 has a single reply then."""
    made = pool(5, [1, 1, 5, 4, 3], [0, 0, 1, 1, 1], keys=[8, 8, 1, 2, 3])
    answer = METHOD(made, RNG)
    assert answer.rows.tolist() == [4, 3, 2, 0, 1]
    assert answer.reasons[3].endswith("round=1 filled=only_reply")
    assert answer.reasons[4].endswith("filled=duplicate")
    assert answer.diagnostics["filled"]["only_reply"] == answer.diagnostics["filled"]["duplicate"] == 1
    assert answer.diagnostics["instructions_with_a_choice"] == 1


def test_single_replies_pass_through_where_asked():
    made = pool(2, [9, 1, 2], [0, 1, 1])
    assert sorted(Grape(SPEC, SPEC, only_choices=False)(made, RNG).rows.tolist()) == [0, 1]
    assert METHOD(made, RNG).rows.tolist() == [1, 2]


def test_guards_keep_replies_out_of_the_ranking():
    made = pool(
        8,
        [0.1, 0.1, 0.1, 0.1, NAN, 2, 3, 0.1],
        [0] * 8,
        tokens=[1, 99, 10, 10, 0, 10, 10, 0],
        cut=[0, 0, 0, 1, 0, 0, 0, 1],
        repeated=[0, 0, 0.9, 0, 0, 0.5, 0, 0],
    )
    answer = Grape(SPEC, SPEC, min_tokens=2, max_tokens=50, max_repetition=0.5)(made, RNG)
    assert answer.rows.tolist() == [5, 6, 1, 0, 2, 3, 7, 4]
    assert [reason.split("filled=")[1] for reason in answer.reasons[2:]] == [
        *("long", "short", "repetitive", "cut", "cut", "no_reply")
    ]
    expected = {"duplicate": 0, "long": 1, "short": 1, "repetitive": 1, "cut": 2, "no_reply": 1}
    assert answer.diagnostics["not_ranked"] == expected
    assert answer.diagnostics["filled"] == {"only_reply": 0, **expected}
    assert answer.scores[2:].tolist() == [0] * 6
    assert answer.diagnostics["cut_off"] == -3
    nothing = Grape(SPEC, SPEC, min_tokens=200, max_tokens=300)(replace(made, budget=1), RNG)
    assert nothing.diagnostics["cut_off"] is None


def test_random_takes_any_reply():
    made = pool(1, [1, 2, 3], [0, 0, 0])
    method = Grape(SPEC, SPEC, order="random")
    answers = [method(made, np.random.default_rng(seed)) for seed in range(60)]
    assert min(Counter(int(answer.rows[0]) for answer in answers).values()) > 8
    assert answers[0].diagnostics["direction"] == "none"
    assert answers[0].scores.tolist() == [0]


@pytest.mark.parametrize("only_choices", [True, False])
@pytest.mark.parametrize("order", ["best", "reverse", "random"])
def test_the_laws(order, only_choices):
    answer = obeys_the_laws(Grape(SPEC, SPEC, order=order, only_choices=only_choices))
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics


def test_the_number_of_an_instruction_changes_no_turn():
    made = world(30)
    names = np.random.default_rng(3).permutation(20)[made.groups["instruction"]]
    other = replace(made, groups={**made.groups, "instruction": names})
    ours, theirs = (METHOD(each, np.random.default_rng(1)) for each in (made, other))
    assert ours.rows.tolist() == theirs.rows.tolist()


def test_turns_are_a_permutation():
    group, keys = np.array([0, 1, 1, 2]), np.array([7, 9, 3, 5], np.uint64)
    turns = turns_of(group, keys, np.random.default_rng(0))
    assert sorted(turns) == [0, 1, 2]
    assert turns[[1, 2, 0]].tolist() == np.random.default_rng(0).permutation(3).tolist()


def test_what_is_missing_or_broken_is_an_error():
    made = pool(1, [1, 2], [0, 0])
    with pytest.raises(InputError, match="the pool's rows have none"):
        METHOD(replace(made, groups={}), RNG)
    made.candidates["repetition"][1] = np.nan
    with pytest.raises(InputError, match=r"1 of 2 rows have a share of repetition that is NaN .* the first is row 1"):
        METHOD(made, RNG)
    for wrong in ({"order": "worst"}, {"max_repetition": 2.0}, {"min_tokens": 0}, {"min_tokens": 9, "max_tokens": 8}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Grape(SPEC, SPEC, **wrong)


def share(text):
    """The share in Python's own words, for text of ASCII letters and spaces."""
    words = text.lower().split()
    runs = [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@given(st.lists(st.lists(st.sampled_from(["a", "B", "b", "word"]), max_size=30), max_size=8))
@settings(max_examples=80, deadline=None)
def test_the_share_of_repetition(texts):
    joined = [" ".join(words) for words in texts]
    found = repetition(joined)
    assert found.dtype == np.float32
    assert found == pytest.approx([share(text) for text in joined], abs=1e-6)


def test_repetition_of_known_replies():
    chinese = "今天天气很好" * 4
    found = repetition(["a b c d a b c d", "", "one two three", "a b c d, a b c d!", chinese, "\ud800"])
    assert found == pytest.approx([0.2, 0, 0, 0.2, 15 / 21, 0])
    assert repetition([]).shape == (0,)
    assert spec().params == {"words": 4, "version": 1}


def test_a_reply_does_not_depend_on_its_neighbours():
    texts = [f"{number % 7} a b a b a b a b" for number in range(TEXTS_AT_ONCE + 2)]
    assert repetition(texts)[-3:].tolist() == [repetition([text])[0] for text in texts[-3:]]
