"""Budgets in tokens, caps and floors over any method: the walk's laws, against a slow reference, and its errors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import method, permuted, problem

from selection.limits import Limits, _running, choose
from warehouse.errors import InputError


def world(seed=0, n=60):
    question = problem(n, n=n, seed=seed)
    return replace(question, costs=np.random.default_rng(seed).integers(1, 50, n))


def slowly(answer, question, limits):
    """Walk the whole order of the method, row by row."""
    costs = np.ones(question.n) if limits.unit == "rows" else question.costs
    sources = question.groups["source"]
    names = sorted(set(sources))
    cap = dict(zip(names, limits.amounts(limits.caps, np.array(names), np.inf), strict=True))
    floor = dict(zip(names, limits.amounts(limits.floors, np.array(names), 0), strict=True))
    spent, owed, free = dict.fromkeys(names, 0.0), [], []
    for place, row in enumerate(answer.rows):
        before, spent[sources[row]] = spent[sources[row]], spent[sources[row]] + costs[row]
        if spent[sources[row]] > cap[sources[row]]:
            continue
        (owed if before < floor[sources[row]] else free).append(place)
    fits = np.cumsum([costs[answer.rows[place]] for place in owed]) <= limits.budget
    free, owed = (
        sorted(free + [p for p, fit in zip(owed, fits, strict=True) if not fit]),
        list(np.array(owed, int)[fits]),
    )
    left, taken = limits.budget - sum(costs[answer.rows[place]] for place in owed), list(owed)
    for place in free:
        left -= costs[answer.rows[place]]
        if left < 0:
            break
        taken.append(place)
    return answer.rows[sorted(taken)].tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 50),
    unit=st.sampled_from(["rows", "tokens"]),
    share=st.floats(0.05, 0.6),
    cap=st.sampled_from([None, 0.4, 0.7]),
    floor=st.sampled_from([None, 0.02, 0.05]),
    name=st.sampled_from(["random", "length", "rds_plus"]),
)
def test_it_is_the_walk_down_the_whole_order(seed, unit, share, cap, floor, name):
    question = world(seed)
    total = question.n if unit == "rows" else int(question.costs.sum())
    caps, floors = ({"*": cap} if cap else {}), ({"alpaca": floor} if floor else {})
    limits = Limits(max(1, int(share * total)), unit, caps, floors)
    try:
        answer = choose(method(name), question, limits, seed=1)
    except InputError:
        return
    whole = method(name)(replace(question, budget=question.n), np.random.default_rng(1))
    assert answer.rows.tolist() == slowly(whole, question, limits)


def test_rows_alone_are_the_method_itself():
    question = world()
    plain = method("rds_plus")(replace(question, budget=13), np.random.default_rng(0))
    assert choose(method("rds_plus"), question, Limits(13), seed=0).rows.tolist() == plain.rows.tolist()


def test_a_budget_in_tokens_is_filled_but_for_less_than_a_row():
    question = world()
    answer = choose(method("length"), question, Limits(400, "tokens"), seed=0)
    spent = question.costs[answer.rows].sum()
    assert 400 - question.costs.max() < spent <= 400
    assert answer.diagnostics["limits"]["spent"] == spent
    assert answer.diagnostics["direction"] == "higher is better"


def test_what_is_said_of_the_answer_is_true_of_the_rows_taken():
    question = world()
    answer = choose(method("length"), question, Limits(10, caps={"alpaca": 2}), seed=0)
    assert answer.diagnostics["cut_off"] == answer.scores[-1] == answer.scores.min()
    assert answer.diagnostics["mean_score"] == pytest.approx(answer.scores.mean())
    assert "order" in answer.diagnostics["asked"]


def test_floors_never_spend_more_than_the_budget():
    question = replace(world(), costs=np.full(60, 60))
    answer = choose(method("length"), question, Limits(100, "tokens", floors={"alpaca": 0.5, "dolly": 0.5}), seed=0)
    assert question.costs[answer.rows].sum() <= 100


def test_no_source_gives_more_than_its_cap_nor_less_than_its_floor():
    question = world()
    limits = Limits(26, caps={"*": 0.7, "dolly": 4}, floors={"flan": 2, "dolly": 0.1})
    sources = question.groups["source"][choose(method("length"), question, limits, seed=0).rows]
    counts = {name: int((sources == name).sum()) for name in set(question.groups["source"])}
    assert sum(counts.values()) == 26
    assert max(counts.values()) <= 18
    assert counts["dolly"] <= 4
    assert counts["flan"] >= 2
    assert counts["dolly"] in (3, 4)


def test_a_permuted_pool_gives_the_permuted_answer():
    question = world()
    order = np.random.default_rng(3).permutation(60)
    moved = replace(permuted(question, order), costs=question.costs[order])
    limits = Limits(300, "tokens", {"*": 0.5}, {"flan": 0.05})
    ours, theirs = (choose(method("rds_plus"), each, limits, seed=0) for each in (question, moved))
    assert ours.rows.tolist() == order[theirs.rows].tolist()


def test_running_totals():
    running = _running(np.array([3.0, 1, 4, 1, 5]), np.array([1, 0, 1, 0, 1]))
    assert running.tolist() == [3, 1, 7, 2, 12]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(10, caps={"*": 1}), "within the caps"),
        (Limits(10, floors={"alpaca": 11}), "floors sum to 11 rows, more than the budget of 10"),
        (Limits(50, floors={"math": 50}), "the floor of math is 50 rows, but its candidates have [0-9]+"),
        (Limits(10, caps={"wiki": 3}), "no source wiki among the candidates; sources: alpaca, dolly, flan, math"),
        (Limits(10_000, "tokens"), "the budget is 10,000 tokens, but the candidates have"),
        (Limits(1, "tokens"), "longer than the budget of 1 tokens"),
    ],
)
def test_limits_that_cannot_be_met_are_said(limits, message):
    question = replace(world(), costs=np.full(60, 7))
    with pytest.raises(InputError, match=message):
        choose(method("length"), question, limits, seed=0)


def test_negative_limits_are_said():
    with pytest.raises(InputError, match=r"caps` must be amounts of 0 or more"):
        Limits(5, caps={"a": -1})
