"""What every entry of the table of methods must obey. A new method is covered by being in the table."""

import json

import numpy as np
import pytest
from selection_worlds import every_method, method, permuted, problem

from selection.cosine import unit_rows
from selection.problem import InProcess
from warehouse.records import Spec, canonical

DIRECTIONS = {"higher is better", "lower is better", "none"}
SMALL = {
    "lexical": {"dims": 512},
    "dsir": {"dims": 512},
    "paser": {"dims": 512},
    "private_mean": {"epsilon": 1e6},
    "private_kernel": {"epsilon": 1e6},
    "private_clusters": {"epsilon": 1e6},
}
"""What the small world needs: buckets as many as its signals have, noise that five targets do not drown in."""

DRAWN = {"tsds", "dsir"}
"""Methods that draw rows by their scores, by default."""

TURNS = {"rds_plus", "lexical", "k_means", "replay", "k_center", "private_clusters", "grape", "dsir"}
"""Methods whose lists, groups or sampling take turns, so that a later row may have a better score."""

CASES = [pytest.param(name, params, id=f"{name}-{params}") for name, params in every_method()]
pytestmark = pytest.mark.parametrize(("name", "params"), CASES)


def choose(name, params, world, seed=3):
    return method(name, **SMALL.get(name, {}), **params)(world, np.random.default_rng(seed))


def same(first, second):
    return (
        np.array_equal(first.rows, second.rows)
        and np.array_equal(first.scores, second.scores)
        and first.reasons == second.reasons
        and first.diagnostics == second.diagnostics
    )


@pytest.mark.parametrize("budget", [1, 2, 13, 59, 60])
def test_exactly_the_budget_and_no_row_twice(name, params, budget):
    answer = choose(name, params, problem(budget))
    assert len(answer.rows) == budget == len(set(answer.rows.tolist()))
    assert set(answer.rows.tolist()) <= set(range(60))
    assert np.all(answer.weights == 1)


def test_a_budget_of_the_whole_pool_returns_every_row_once(name, params):
    assert sorted(choose(name, params, problem(60)).rows.tolist()) == list(range(60))


def test_the_same_seed_gives_the_same_answer(name, params):
    assert same(choose(name, params, problem(20)), choose(name, params, problem(20)))


@pytest.mark.parametrize("seed", range(4))
def test_a_permuted_pool_gives_the_permuted_answer(name, params, seed):
    world = problem(23, seed=seed, tasks=[0, 1, 0, 1, 2], distinct=20)
    order = np.random.default_rng(seed).permutation(60)
    ours, theirs = choose(name, params, world), choose(name, params, permuted(world, order))
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert np.array_equal(ours.scores, theirs.scores)
    assert ours.reasons == theirs.reasons
    assert ours.diagnostics == theirs.diagnostics


@pytest.mark.parametrize("block_rows", [1, 2, 7, 59, 60, 61])
@pytest.mark.parametrize("tasks", [None, [0, 1, 2, 0, 1]])
def test_blocks_change_nothing(name, params, block_rows, tasks):
    whole = problem(23, tasks=tasks, distinct=40)
    blocked = problem(23, tasks=tasks, distinct=40, block_rows=block_rows)
    assert blocked.reducer == InProcess(block_rows)
    assert same(choose(name, params, whole), choose(name, params, blocked))


def test_equal_rows_come_in_the_order_of_their_keys(name, params):
    world = problem(60, distinct=1)
    for signal, values in world.candidates.items():
        world.candidates[signal] = values[np.zeros(60, int)]
    world.groups["instruction"][:] = 0
    answer = choose(name, params, world)
    if answer.diagnostics["direction"] != "none" and not params.get("reverse") and name not in DRAWN:
        assert np.array_equal(answer.rows, np.argsort(world.keys))
        assert len(set(answer.scores.tolist())) <= len(unit_rows(world.targets["representation"]).finite)


def test_what_is_read_is_named_by_specs(name, params):
    reads = method(name, **params).reads
    assert all(isinstance(spec, Spec) and spec.key for spec in reads.values())
    assert problem(1).candidates.keys() >= reads.keys()


def test_scores_have_a_direction_and_follow_it(name, params):
    answer = choose(name, params, problem(20))
    assert answer.diagnostics["direction"] in DIRECTIONS
    if answer.diagnostics["direction"] == "none":
        assert np.all(answer.scores == 0)
    else:
        best, worst = (max, min) if answer.diagnostics["direction"].startswith("higher") else (min, max)
        judged = [s for s, why in zip(answer.scores, answer.reasons, strict=True) if "filled=" not in why]
        assert answer.scores[0] == best(judged) or name in TURNS
        assert answer.diagnostics["cut_off"] == worst(judged)


def test_diagnostics_and_reasons_can_be_stored(name, params):
    answer = choose(name, params, problem(20, tasks=[0, 0, 1, 1, 1]))
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics
    assert all("=" in part for reason in answer.reasons for part in reason.split(" "))
