"""RDS+ against its algorithm written out over full lists, and its laws."""

import numpy as np
import pytest
from selection_worlds import method, problem, ranking, round_robin, score_matrix

from selection.by_turns import start_depth
from selection.round_robin import consume, retry
from warehouse.errors import InputError

RNG = np.random.default_rng(0)
WORKED = np.array([[0.9, 0.8, 0.7, 0.1], [0.95, 0.2, 0.6, 0.5]])


def per_list(world):
    """The score of every row in every list: per target for one task, else the largest of each task."""
    scores, tasks = score_matrix(world), np.unique(world.target_task)
    return scores if len(tasks) == 1 else np.stack([scores[world.target_task == task].max(axis=0) for task in tasks])


@pytest.mark.parametrize(("take", "expected"), [(retry, [0, 2, 1, 3]), (consume, [0, 1, 2, 3])])
def test_the_worked_matrix_under_both_policies(take, expected):
    rows = np.array(ranking(WORKED, np.arange(4)))
    turns = take(rows, 4)
    assert rows[turns.lists, turns.places].tolist() == expected
    assert rows[turns.lists, turns.places][:2].tolist() == expected[:2]


@pytest.mark.parametrize("policy", ["retry", "consume"])
@pytest.mark.parametrize("group", range(6))
def test_equals_the_algorithm_over_full_lists(policy, group):
    """300 random pools in all, half of them full of ties, one to four tasks, any budget."""
    rng = np.random.default_rng(group)
    for case in range(25):
        n, m = int(rng.integers(2, 50)), int(rng.integers(1, 8))
        tasks = rng.integers(0, rng.integers(1, 5), m)
        distinct = int(rng.integers(1, n + 1)) if case % 2 else None
        budget, block_rows = int(rng.integers(1, n + 1)), int(rng.integers(1, n + 3))
        world = problem(budget, n, m, 5, case, tasks, block_rows, distinct)
        scores = per_list(world)
        expected = round_robin(ranking(scores, world.keys), budget, policy)
        answer = method("rds_plus", policy=policy)(world, RNG)
        assert answer.rows.tolist() == [row for row, _ in expected]
        assert answer.scores.tolist() == [scores[line, row] for row, line in expected]


@pytest.mark.parametrize("seed", range(5))
def test_global_max_ranks_by_the_largest_cosine_with_any_target(seed):
    world = problem(15, seed=seed, tasks=[0, 1, 0, 2, 1], distinct=30)
    scores = score_matrix(world)
    answer = method("rds_plus", policy="global_max")(world, RNG)
    assert answer.rows.tolist() == ranking([scores.max(axis=0)], world.keys)[0][:15]
    nearest = scores.argmax(axis=0)[answer.rows]
    assert answer.reasons == tuple(f"target={t} task=task_{world.target_task[t]}" for t in nearest)


@pytest.mark.parametrize("rounds", [1, 3, 8])
def test_after_full_rounds_every_target_owns_as_many_rows(rounds):
    answer = method("rds_plus")(problem(5 * rounds, m=5), RNG)
    owners = [reason.split()[0] for reason in answer.reasons]
    assert {owner: owners.count(owner) for owner in set(owners)} == {f"target={t}": rounds for t in range(5)}
    assert answer.reasons[-1] == f"target=4 task=task_0 round={rounds}"


@pytest.mark.parametrize("policy", ["retry", "consume", "global_max"])
def test_a_target_in_the_pool_is_its_own_first_row_with_score_1(policy):
    world = problem(5, m=5)
    world.candidates["representation"][30:35] = 2 * world.targets["representation"]
    answer = method("rds_plus", policy=policy)(world, RNG)
    assert set(answer.rows.tolist()) == set(range(30, 35))
    assert answer.scores == pytest.approx(np.ones(5), abs=1e-7)


def test_reasons_name_the_nearest_target_of_the_task_that_chose():
    world = problem(20, m=7, tasks=[3, 1, 1, 3, 0, 1, 3])
    scores, answer = score_matrix(world), method("rds_plus")(world, RNG)
    for turn, (row, reason) in enumerate(zip(answer.rows, answer.reasons, strict=True)):
        task = (0, 1, 3)[turn % 3]
        its = np.flatnonzero(world.target_task == task)
        assert reason == f"target={its[scores[its, row].argmax()]} task=task_{task} round={turn // 3 + 1}"
        assert answer.scores[turn] == scores[its, row].max()


def test_diagnostics_say_what_was_done():
    world = problem(20, m=7, tasks=[1, 1, 1, 0, 0, 1, 0])
    facts = method("rds_plus")(world, RNG).diagnostics
    assert facts["policy"] == "retry"
    assert facts["targets"] == 7
    assert facts["picks_per_task"] == {"task 0": 10, "task 1": 10}
    assert facts["depth"] == 20
    assert facts["passed_by"] >= 0
    assert -1 <= facts["cut_off"] <= facts["mean_score"] <= 1


@pytest.mark.parametrize(("n", "lists", "depth"), [(1, 1, 1), (10, 1, 10), (10, 50, 1), (1000, 50, 80), (7, 3, 7)])
def test_lists_start_at_four_times_their_share(n, lists, depth):
    assert start_depth(n, lists) == depth


def test_the_depth_doubles_when_lists_run_out():
    world = problem(40, n=60, m=20)
    world.targets["representation"][:] = world.targets["representation"][
        0
    ]  # every list is the same: depth 40 is needed
    answer = method("rds_plus")(world, RNG)
    assert start_depth(40, 20) == 8
    assert answer.diagnostics["depth"] == 40
    assert answer.rows.tolist() == ranking(score_matrix(world)[:1], world.keys)[0][:40]


def test_no_targets_is_an_error():
    world = problem(5)
    world.targets.clear()
    with pytest.raises(InputError, match="no target was given"):
        method("rds_plus")(world, RNG)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinity, the first is target 2"), (0, "length 0")])
def test_targets_without_a_direction_are_an_error(value, message):
    world = problem(5)
    world.targets["representation"][2:4] = value
    with pytest.raises(InputError, match=f"2 targets .*{message}"):
        method("rds_plus")(world, RNG)
