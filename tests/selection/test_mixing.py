"""Shares by size, whole numbers that add up, and the method that draws by them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import method, permuted, problem

from selection.mixing import capped_shares, counts_of, grouped_shares, in_proportion, largest_remainder, poured
from selection.problem import Problem
from selection.proportional import Proportional
from warehouse.errors import InputError

SHARES = st.lists(st.just(0.0) | st.floats(1e-3, 10), min_size=1, max_size=7).filter(lambda shares: sum(shares) > 1e-3)
OPT_IML = {"crossfit": 4, "exmix": 2, "flan": 20, "niv2": 25, "promptsource": 45, "t5": 2, "unifiedskg": 2}


def choose(world, seed=0, **params):
    return Proportional(**params)(world, np.random.default_rng(seed))


def test_a_cap_limits_how_much_a_large_source_weighs():
    assert capped_shares(np.array([1000, 3000, 30000]), 3000) == pytest.approx([1 / 7, 3 / 7, 3 / 7], abs=1e-15)
    assert capped_shares(np.array([10, 30]), 100) == pytest.approx([0.25, 0.75])


def test_temperature_brings_shares_together():
    assert capped_shares(np.array([100, 400]), 400, 2.0) == pytest.approx([1 / 3, 2 / 3])
    assert capped_shares(np.array([1, 9999]), 10**6, 1e9) == pytest.approx([0.5, 0.5], abs=1e-6)


def test_group_shares_override_sizes_and_sizes_rule_inside():
    sizes, group = np.array([100, 300, 5000, 7]), np.array([0, 0, 1, 2])
    shares = grouped_shares(sizes, group, np.array([1.0, 2.0, 1.0]), cap=300)
    assert shares == pytest.approx([1 / 16, 3 / 16, 1 / 2, 1 / 4])


def test_published_benchmark_proportions_sum_to_100_and_become_counts():
    shares = np.array(list(OPT_IML.values()), float)
    assert shares.sum() == 100
    assert largest_remainder(shares, 1000).tolist() == [40, 20, 200, 250, 450, 20, 20]
    assert grouped_shares(np.full(7, 10), np.arange(7), shares, 4096) == pytest.approx(shares / 100)


def test_a_group_with_a_share_needs_rows():
    with pytest.raises(InputError, match=r"group 1 has a share of 2 but no rows"):
        grouped_shares(np.array([5]), np.array([0]), np.array([1.0, 2.0]), 10)


def test_rounding_down_would_lose_a_row():
    assert largest_remainder(np.array([0.3, 0.1, 0.05]), 100).tolist() == [67, 22, 11]


@given(SHARES, st.integers(0, 500))
@settings(max_examples=200, deadline=None)
def test_counts_sum_and_stay_within_one_of_their_quota(shares, total):
    shares = np.array(shares)
    counts = largest_remainder(shares, total)
    assert counts.sum() == total
    assert np.abs(counts - shares / shares.sum() * total).max() < 1 + 1e-6
    assert not counts[shares == 0].any()


@given(SHARES, st.data())
@settings(max_examples=200, deadline=None)
def test_poured_counts_fill_like_water(shares, data):
    shares = np.array(shares)
    capacity = np.array(data.draw(st.lists(st.integers(0, 40), min_size=len(shares), max_size=len(shares))))
    total = data.draw(st.integers(0, int(capacity.sum())))
    counts = poured(shares, capacity, total)
    assert counts.sum() == total
    assert np.all((counts >= 0) & (counts <= capacity))
    still = (counts < capacity) & (shares > 0)
    for one, other in itertools.permutations(np.flatnonzero(still), 2):  # those with room left share by their shares
        assert counts[one] / shares[one] <= (counts[other] + 1) / shares[other] + 1e-6 + 1 / shares[one]
    if still.any():
        assert not counts[shares == 0].any()


def test_a_full_group_leaves_its_rest_to_the_others():
    assert poured(np.array([0.3, 0.1, 0.05]), np.array([10, 1000, 1000]), 100).tolist() == [10, 60, 30]
    assert poured(np.array([1.0, 0.0]), np.array([3, 5]), 6).tolist() == [3, 3]


def test_an_exhausted_source_is_redistributed_or_repeated_as_asked():
    shares, sizes = np.array([0.5, 0.25, 0.25]), np.array([10, 100, 100])
    assert counts_of(shares, sizes, 100, "redistribute").tolist() == [10, 45, 45]
    assert counts_of(shares, sizes, 100, "repeat").tolist() == [50, 25, 25]
    with pytest.raises(InputError, match="210"):
        counts_of(shares, sizes, 211, "redistribute")
    with pytest.raises(InputError, match="no row to repeat"):
        counts_of(shares, np.array([0, 1, 1]), 5, "repeat")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_beginning_is_about_in_proportion(shares, seed):
    shares = np.array(shares, float)
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(shares)), 200))
    order = in_proportion(shares, group, rng.permutation(len(shares)))
    assert sorted(order.tolist()) == list(range(len(group)))
    for n in (1, 5, 17, 100):
        counts = np.bincount(group[order[:n]], minlength=len(shares))
        # divisors: no group could give a row to another and both be nearer to their share
        late, early = (counts - 0.5) / shares, (counts + 0.5) / shares
        assert late.max() <= early.min() + 1e-9


def test_a_group_keeps_its_order_and_one_without_a_share_comes_last():
    group = np.array([0, 1, 0, 1, 0, 1])
    assert in_proportion(np.array([0.0, 1.0]), group, [0, 1]).tolist() == [1, 3, 5, 0, 2, 4]


def test_the_method_follows_capped_shares_and_a_small_budget_begins_a_large_one():
    sources = np.repeat(["a", "b", "c"], [100, 300, 3000])
    world = Problem(
        budget=140, keys=np.random.default_rng(1).permutation(3400).astype(np.uint64), groups={"source": sources}
    )
    answer = choose(world, cap=300)
    assert answer.diagnostics["per_source"] == {"a": 20, "b": 60, "c": 60}
    assert answer.diagnostics["shares"] == pytest.approx({"a": 1 / 7, "b": 3 / 7, "c": 3 / 7})
    small = choose(Problem(budget=30, keys=world.keys, groups=world.groups), cap=300)
    assert small.rows.tolist() == answer.rows[:30].tolist()
    assert choose(world, seed=1, cap=300).rows.tolist() != answer.rows.tolist()


@pytest.mark.parametrize("budget", [1, 23, 60])
def test_any_budget_is_met_whatever_the_sources_hold_and_however_they_are_stored(budget):
    world = problem(budget)
    order = np.random.default_rng(9).permutation(60)
    ours, theirs = choose(world, cap=1), choose(permuted(world, order), cap=1)
    assert len(set(ours.rows.tolist())) == budget
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert ours.reasons == theirs.reasons


@pytest.mark.parametrize(("params", "told"), [({"cap": 0}, "cap is 0"), ({"temperature": 0.0}, "temperature is 0")])
def test_what_cannot_be_is_refused(params, told):
    with pytest.raises(InputError, match=told):
        Proportional(**params)


def of_benchmarks(budget):
    """A pool whose sources are the parts of seven benchmarks, two each, and the published shares of the seven."""
    sizes = {f"{name}_{part}": size for name in OPT_IML for part, size in (("long", 300), ("short", 100))}
    sources = np.repeat(list(sizes), list(sizes.values()))
    groups = {name: {"share": share, "sources": [f"{name}_long", f"{name}_short"]} for name, share in OPT_IML.items()}
    keys = np.random.default_rng(4).permutation(len(sources)).astype(np.uint64)
    return Problem(budget=budget, keys=keys, groups={"source": sources}), groups


def drawn(world, seed=0, **params):
    return method("proportional", **params)(world, np.random.default_rng(seed))


def test_a_recipe_gives_the_published_shares_to_benchmarks_and_sizes_rule_inside_each():
    world, groups = of_benchmarks(400)
    answer = drawn(world, groups=groups)
    assert answer.diagnostics["per_group"] == {name: 4 * share for name, share in OPT_IML.items()}
    assert answer.diagnostics["group_shares"] == pytest.approx({name: share / 100 for name, share in OPT_IML.items()})
    assert answer.diagnostics["per_source"]["t5_long"] == 6
    assert answer.diagnostics["per_source"]["promptsource_short"] == 45
    assert answer.diagnostics["shares"]["flan_long"] == pytest.approx(0.15)
    capped = drawn(world, groups=groups, cap=100)
    assert capped.diagnostics["per_source"]["promptsource_short"] == 90
    told = dict(part.split("=") for part in answer.reasons[0].split())
    assert told["source"].startswith(told["group"])
    assert float(told["share"]) == pytest.approx(answer.diagnostics["shares"][told["source"]])


def test_a_source_that_runs_out_leaves_its_rows_to_its_own_group():
    sources = np.repeat(["a", "b", "c"], [5, 200, 200])
    world = Problem(budget=100, keys=np.arange(405, dtype=np.uint64), groups={"source": sources})
    groups = {"x": {"share": 3, "sources": ["a", "b"]}, "y": {"share": 1, "sources": ["c"]}}
    answer = drawn(world, groups=groups, cap=1)
    assert answer.diagnostics["per_source"] == {"a": 5, "b": 70, "c": 25}
    assert answer.diagnostics["used_up"] == 1


def test_a_group_without_a_share_comes_after_all_others():
    world, groups = of_benchmarks(2800)
    answer = drawn(world, groups={**groups, "t5": {**groups["t5"], "share": 0}})
    assert ["group=t5 " in reason for reason in answer.reasons] == [False] * 2400 + [True] * 400


@pytest.mark.parametrize("budget", [1, 23, 60])
def test_one_group_of_all_sources_changes_nothing(budget):
    world = problem(budget)
    one = {"all": {"share": 0.3, "sources": ["alpaca", "dolly", "flan", "math"]}}
    alone, grouped = drawn(world), drawn(world, groups=one)
    assert grouped.rows.tolist() == alone.rows.tolist()
    assert [reason.removeprefix("group=all ") for reason in grouped.reasons] == list(alone.reasons)
    assert grouped.diagnostics["per_group"] == {"all": budget}
    assert grouped.diagnostics["group_shares"] == {"all": 1.0}


def test_grouped_answers_keep_the_laws():
    world, groups = of_benchmarks(150)
    order = np.random.default_rng(9).permutation(world.n)
    ours, theirs = drawn(world, groups=groups), drawn(permuted(world, order), groups=groups)
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert ours.reasons == theirs.reasons
    small = drawn(of_benchmarks(40)[0], groups=groups)
    assert small.rows.tolist() == ours.rows[:40].tolist()
    whole = drawn(of_benchmarks(2800)[0], groups=groups)
    assert sorted(whole.rows.tolist()) == list(range(2800))


X = {"share": 1, "sources": ["alpaca", "dolly"]}
Y = {"share": 2.5, "sources": ["flan", "math"]}


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["x"], "groups must be a mapping, found"),
        ({}, "none of 0 groups has a share above 0"),
        ({"x": 3}, "group 'x' is 3; give a name, and under it share and sources"),
        ({1: X, "y": Y}, "group 1 is"),
        ({"x": {"share": 1}, "y": Y}, "group 'x' is"),
        ({"x": {**X, "cap": 5}, "y": Y}, "group 'x' is"),
        ({"x": {**X, "share": -0.1}, "y": Y}, "group 'x' has the share -0.1"),
        ({"x": {**X, "share": True}, "y": Y}, "has the share True"),
        ({"x": {**X, "share": float("nan")}, "y": Y}, "has the share nan"),
        ({"x": {**X, "share": 0}, "y": {**Y, "share": 0}}, "none of 2 groups has a share above 0"),
        ({"x": {**X, "sources": []}, "y": Y}, r"group 'x' has the sources \[\]"),
        ({"x": {**X, "sources": "alpaca"}, "y": Y}, "has the sources 'alpaca'"),
        ({"x": {**X, "sources": ["alpaca", 5]}, "y": Y}, "has the sources"),
        ({"x": X, "y": {**Y, "sources": ["flan", "math", "dolly"]}}, "source dolly is named more than once"),
        ({"x": X}, "no group has the source flan, math; .* sources: alpaca, dolly, flan, math"),
        ({"x": X, "y": Y, "z": {"share": 1, "sources": ["t0"]}}, "no candidate has the source t0 that a group names"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, told):
    with pytest.raises(InputError, match=told):
        drawn(problem(5), groups=groups)


def test_rows_without_a_source_are_refused():
    with pytest.raises(InputError, match="no source"):
        choose(Problem(budget=1, keys=np.arange(3, dtype=np.uint64)))


def test_shares_need_one_above_zero():
    with pytest.raises(InputError, match="one must be above"):
        largest_remainder(np.zeros(3), 5)
    with pytest.raises(InputError, match="none below 0"):
        capped_shares(np.array([0, 0]), 5)
