"""Perplexity and IFD: which replies come first, and which are never judged."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reply_worlds import SPEC, obeys_the_laws, replies, world

from selection.histogram import histogram
from selection.ifd import Ifd, loss_ratio, perplexity_ratio
from selection.perplexity import Perplexity, from_median
from selection.problem import Problem
from warehouse.errors import InputError
from warehouse.records import canonical

RNG = np.random.default_rng(0)
NAN = float("nan")


def pool(budget, given, alone=None, tokens=None, cut=None):
    signals = {"response": replies(given, tokens, cut)}
    if alone is not None:
        signals["response_alone"] = replies(alone, tokens, cut)
    return Problem(budget=budget, keys=np.arange(len(given), dtype=np.uint64), candidates=signals)


@pytest.mark.parametrize(
    ("take", "rows"), [("top", [3, 1, 4, 2, 0]), ("low", [0, 2, 4, 1, 3]), ("mid", [4, 1, 2, 0, 3])]
)
def test_which_end_of_the_distribution(take, rows):
    answer = Perplexity(SPEC, take=take)(pool(5, [0.5, 3, 1, 9, 2]), RNG)
    assert answer.rows.tolist() == rows
    assert answer.diagnostics["direction"] == ("higher is better" if take == "top" else "lower is better")
    assert answer.diagnostics["cut_off"] == answer.scores[-1]
    assert answer.reasons[0].startswith("nll=")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_the_middle_is_a_window_round_the_median(values, budget):
    values, budget = np.array(values, float), min(budget, len(values))
    answer = Perplexity(SPEC, take="mid")(pool(budget, values), RNG)
    chosen = np.isin(np.arange(len(values)), answer.rows)
    ranks = np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])
    away = np.abs(ranks - (len(values) + 1) / 2)
    assert away[chosen].max() <= away[~chosen].min(initial=np.inf)
    assert from_median(values) == pytest.approx(away / len(values))


def test_equal_values_are_equally_far_from_the_middle():
    assert from_median(np.array([1.0, 1, 1, 5])).tolist() == [0.125, 0.125, 0.125, 0.375]
    assert from_median(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("take", ["top", "mid", "low"])
def test_rows_without_a_reply_and_cut_rows_come_last(take):
    made = pool(6, [NAN, 2, 9, 1, NAN, 0.01], cut=[0, 0, 1, 0, 0, 1])
    answer = Perplexity(SPEC, take=take)(made, RNG)
    assert sorted(answer.rows[:2].tolist()) == [1, 3]
    assert answer.rows[2:].tolist() == [2, 5, 0, 4]
    assert [reason.split()[-1] for reason in answer.reasons[2:]] == ["filled=cut"] * 2 + ["filled=no_reply"] * 2
    assert answer.scores[2:].tolist() == [0] * 4
    assert answer.diagnostics["filled"] == answer.diagnostics["not_judged"] == {"cut": 2, "no_reply": 2}
    two = Perplexity(SPEC, take=take)(replace(made, budget=2), RNG)
    assert two.diagnostics["filled"] == {"cut": 0, "no_reply": 0}
    assert two.diagnostics["not_judged"] == {"cut": 2, "no_reply": 2}


def test_a_pool_without_replies_has_an_answer():
    answer = Perplexity(SPEC)(pool(2, [NAN, NAN, NAN]), RNG)
    assert answer.rows.tolist() == [0, 1]
    assert answer.diagnostics["cut_off"] is None
    assert Ifd(SPEC, SPEC)(pool(3, [NAN] * 3, [NAN] * 3), RNG).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("signal", ["response", "response_alone"])
def test_a_reply_whose_loss_is_not_a_number_is_an_error(signal):
    made = pool(3, [1, 1, 1, 1], [2, 2, 2, 2])
    made.candidates[signal][[1, 3], 0] = [np.nan, np.inf]
    with pytest.raises(InputError, match=f"2 of 4 rows have a reply whose '{signal}' is NaN .* the first is row 1"):
        Ifd(SPEC, SPEC)(made, RNG)


def test_the_worked_ratios():
    given, alone = np.array([1.2, 0, 1]), np.array([2.0, 0, 4])
    assert loss_ratio(given, alone) == pytest.approx([0.6, NAN, 0.25], nan_ok=True)
    assert perplexity_ratio(given, alone) == pytest.approx([0.449329, 1, np.exp(-3)], abs=1e-6)


def test_the_highest_ratio_below_1_comes_first():
    made = pool(7, [1.2, 1.9, 0.2, 4.0, 2.2, 0.0, NAN], [2.0, 2.0, 2.0, 2.0, 2.0, 0.0, NAN])
    answer = Ifd(SPEC, SPEC)(made, RNG)
    assert answer.rows.tolist() == [1, 0, 2, 4, 3, 6, 5]
    assert answer.scores == pytest.approx([0.95, 0.6, 0.1, 1.1, 2, 0, 0])
    assert [reason.split("filled=")[1:] for reason in answer.reasons[2:]] == [
        [],
        ["ifd_1_or_more"],
        ["ifd_1_or_more"],
        ["no_reply"],
        ["no_ratio"],
    ]
    assert answer.diagnostics["not_kept"] == {"ifd_1_or_more": 2, "cut": 0, "no_reply": 1, "no_ratio": 1}
    assert answer.diagnostics["cut_off"] == pytest.approx(0.1)


def test_the_two_policies_order_otherwise():
    made = pool(2, [0.9, 4.0], [1.0, 5.0])
    assert Ifd(SPEC, SPEC)(made, RNG).rows.tolist() == [0, 1]
    assert Ifd(SPEC, SPEC, policy="perplexity_ratio")(made, RNG).rows.tolist() == [0, 1]
    made = pool(2, [0.1, 4.0], [0.5, 5.0])
    assert Ifd(SPEC, SPEC)(made, RNG).rows.tolist() == [1, 0]
    assert Ifd(SPEC, SPEC, policy="perplexity_ratio")(made, RNG).rows.tolist() == [0, 1]


def test_a_ratio_beyond_all_numbers_is_no_ratio():
    answer = Ifd(SPEC, SPEC, policy="perplexity_ratio")(pool(2, [2000, 1.0], [1.0, 2.0]), RNG)
    assert answer.reasons[1].endswith("filled=no_ratio")


METHODS = [Perplexity(SPEC, take=take) for take in ("top", "mid", "low")] + [
    Ifd(SPEC, SPEC, policy=policy) for policy in ("loss_ratio", "perplexity_ratio")
]


@pytest.mark.parametrize("method", METHODS)
def test_the_laws(method):
    answer = obeys_the_laws(method)
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics
    made = world(60)
    for signal in ("response", "response_alone"):
        made.candidates[signal][:] = [1, 5, 0]
    assert method(made, RNG).rows.tolist() == np.argsort(made.keys).tolist()


def test_parameters_are_checked():
    with pytest.raises(InputError, match="take is 'highest'"):
        Perplexity(SPEC, take="highest")
    with pytest.raises(InputError, match="policy is 'ratio'"):
        Ifd(SPEC, SPEC, policy="ratio")


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_histogram_counts_every_number(values):
    found = histogram(np.array(values))
    assert sum(found["counts"]) == len(values)
    assert len(found["edges"]) == len(found["counts"]) + 1
