"""The methods without turns: random, balanced random, length, top-k; and lexical's choice of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import method, problem, ranking, score_matrix

from selection.balanced_random import take_turns
from selection.problem import Problem
from selection.trigrams import trigrams
from warehouse.errors import InputError

RNG = np.random.default_rng(0)


def seeded(name, world, seed, **params):
    return method(name, **params)(world, np.random.default_rng(seed))


def shares(sizes, budget):
    """The sizes of equal shares: one row at a time goes to the group that has least and still has rows."""
    counts = dict.fromkeys(sizes, 0)
    for _ in range(budget):
        open_groups = [group for group in sizes if counts[group] < sizes[group]]
        counts[min(open_groups, key=lambda group: counts[group])] += 1
    return sorted(counts.values())


@pytest.mark.parametrize("name", ["random", "balanced_random"])
def test_a_smaller_budget_is_the_beginning_of_a_larger(name):
    small, large = seeded(name, problem(9), 1), seeded(name, problem(31), 1)
    assert small.rows.tolist() == large.rows[:9].tolist()


@pytest.mark.parametrize("name", ["random", "balanced_random"])
def test_other_seeds_draw_other_rows(name):
    assert seeded(name, problem(20), 1).rows.tolist() != seeded(name, problem(20), 2).rows.tolist()


def test_random_draws_every_row_about_equally_often():
    world = problem(6)
    counts = np.bincount(np.concatenate([seeded("random", world, seed).rows for seed in range(2000)]), minlength=60)
    assert abs(counts - 200).max() < 5 * np.sqrt(200 * 0.9)


@pytest.mark.parametrize("budget", [1, 3, 4, 11, 30, 55, 60])
def test_balanced_random_fills_sources_like_water(budget):
    world = problem(budget)
    names, sizes = np.unique(world.groups["source"], return_counts=True)
    answer = seeded("balanced_random", world, 5)
    expected = shares(dict(zip(names, sizes.tolist(), strict=True)), budget)
    assert sorted(answer.diagnostics["per_source"].values()) == expected
    assert answer.reasons[0].split()[0] == "round=1"
    assert all(
        reason.endswith(str(world.groups["source"][row]))
        for row, reason in zip(answer.rows, answer.reasons, strict=True)
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
@settings(max_examples=80, deadline=None)
def test_every_beginning_of_the_turns_is_balanced(labels, data):
    group, n = np.array(labels), data.draw(st.integers(1, len(labels)))
    rows, _ = take_turns(np.arange(len(group)), group, np.random.default_rng(0).permutation(5), n)
    sizes = {label: labels.count(label) for label in set(labels)}
    taken = group[rows].tolist()
    assert sorted(taken.count(label) for label in sizes) == shares(sizes, n)


def test_which_source_gets_the_odd_row_is_drawn():
    world = problem(1)
    assert len({seeded("balanced_random", world, seed).reasons[0] for seed in range(40)}) == 4


def test_rows_inside_a_source_are_drawn_at_random():
    world = problem(4)
    assert len({tuple(seeded("balanced_random", world, seed).rows) for seed in range(20)}) > 15


def test_balanced_random_needs_sources():
    with pytest.raises(InputError, match="have no source"):
        method("balanced_random")(Problem(budget=1, keys=np.arange(3, dtype=np.uint64)), RNG)


def test_length_takes_the_longest():
    world = problem(10)
    answer = method("length")(world, RNG)
    assert answer.rows.tolist() == ranking([world.candidates["length"]], world.keys)[0][:10]
    assert answer.scores.tolist() == world.candidates["length"][answer.rows].tolist()
    assert answer.reasons[0] == f"length={world.candidates['length'].max()} unit=tokens"


@pytest.mark.parametrize("tasks", [None, [0, 1, 1, 1, 1], [0, 2, 1, 1, 0]])
@pytest.mark.parametrize(("aggregate", "of"), [("mean", np.mean), ("max", np.max)])
def test_top_k_ranks_by_the_mean_over_tasks(tasks, aggregate, of):
    world = problem(12, tasks=tasks, seed=4)
    scores = score_matrix(world)
    per_task = [of(scores[world.target_task == task], axis=0) for task in np.unique(world.target_task)]
    expected = np.mean(per_task, axis=0)
    answer = method("top_k", aggregate=aggregate)(world, RNG)
    assert answer.rows.tolist() == ranking([expected], world.keys)[0][:12]
    assert answer.scores == pytest.approx(expected[answer.rows], abs=1e-7)
    nearest = scores.argmax(axis=0)[answer.rows]
    assert [reason.split()[0] for reason in answer.reasons] == [f"target={target}" for target in nearest]


def test_top_k_weighs_tasks_not_targets():
    """Nine targets of one task point along x, one of another along y: the diagonal is best, not x."""
    world = Problem(
        budget=1,
        keys=np.arange(3, dtype=np.uint64),
        candidates={"representation": np.array([[1, 0], [0, 1], [1, 1]], np.float32)},
        targets={"representation": np.array([[1, 0]] * 9 + [[0, 1]], np.float32)},
        target_task=np.array([0] * 9 + [1]),
    )
    assert method("top_k")(world, RNG).rows.tolist() == [2]
    assert method("top_k")(world, RNG).scores == pytest.approx([np.sqrt(0.5)])


def test_lexical_picks_rows_that_share_words_with_their_target():
    pool = ["Sort these numbers: 3 1 2", "What is the capital of France?", "Write a poem about rain", "Sortiere 5 4 9"]
    targets = ["Sort the numbers 9, 8 and 7", "Name the capital of Italy"]
    world = Problem(
        budget=2,
        keys=np.arange(4, dtype=np.uint64),
        candidates={"trigrams": trigrams(pool)},
        targets={"trigrams": trigrams(targets)},
        target_task=np.zeros(2, np.int64),
    )
    answer = method("lexical")(world, RNG)
    assert answer.rows.tolist() == [0, 1]
    assert answer.reasons == ("target=0 task=0 round=1", "target=1 task=0 round=1")
    world.targets["trigrams"] = trigrams(["Sort", "  "])
    with pytest.raises(InputError, match="1 targets have length 0"):
        method("lexical")(world, RNG)
