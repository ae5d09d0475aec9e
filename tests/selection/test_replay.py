"""Replay: which earlier tasks are trained again, and which of their rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import permuted

from selection.problem import InProcess, Problem
from selection.replay import Replay, directions, in_waves, task_scores
from warehouse.errors import InputError
from warehouse.records import Spec

SPECS = (Spec("representation"), Spec("instructions"))
POLICIES = ("diverse", "similar", "support", "data_diverse")
AXES = {"same": (1, 0, 0), "near": (0.8, 0.6, 0), "far": (0, 1, 0), "other": (0, 0, 1)}


def world(budget=6, per_source=4, seed=0, block_rows=16_384):
    """Four sources whose prompts lie about four directions, and whole rows about the opposite order of them."""
    rng = np.random.default_rng(seed)
    names = np.repeat(list(AXES), per_source)
    prompts = np.array([AXES[name] for name in names], np.float32)
    rows = np.array([list(AXES.values())[3 - list(AXES).index(name)] for name in names], np.float32)
    order = rng.permutation(len(names))
    targets = np.array([[1, 0, 0], [1, 0.1, 0], [1, -0.1, 0]], np.float32)
    return Problem(
        budget=budget,
        keys=rng.permutation(1000)[: len(names)].astype(np.uint64),
        candidates={"instructions": prompts[order], "representation": rows[order]},
        targets={"instructions": targets, "representation": targets},
        target_task=np.zeros(3, np.int64),
        groups={"source": names[order]},
        reducer=InProcess(block_rows),
    )


def choose(problem, policy="diverse", tasks=2, seed=0):
    return Replay(*SPECS, policy, tasks)(problem, np.random.default_rng(seed))


def test_diverse_is_unlike_the_new_task():
    previous, current = np.eye(2), np.array([[1.0, 0.0]])
    assert task_scores(previous, current, "diverse").tolist() == [0, 1]
    assert task_scores(previous, current, "similar").tolist() == [1, 0]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_scores_are_means_of_cosines(t, m, seed):
    rng = np.random.default_rng(seed)
    previous, current = rng.standard_normal((t, 4)), rng.standard_normal((m, 4))
    previous /= np.linalg.norm(previous, axis=1, keepdims=True)
    current /= np.linalg.norm(current, axis=1, keepdims=True)
    means = [np.mean([p @ c for c in current]) for p in previous]
    assert task_scores(previous, current, "similar") == pytest.approx(np.array(means))
    assert task_scores(previous, current, "diverse") == pytest.approx(1 - np.array(means))
    among = [np.mean([p @ q for q in previous]) for p in previous]
    assert task_scores(previous, current, "support") == pytest.approx(np.array(among))


@pytest.mark.parametrize(
    ("policy", "tasks"),
    [
        ("diverse", ["far", "other"]),
        ("similar", ["same", "near"]),
        ("support", ["near", "same"]),
        ("data_diverse", ["near", "same"]),
    ],
)
def test_each_policy_opens_its_sources(policy, tasks):
    answer = choose(world(), policy)
    assert answer.diagnostics["tasks"] == tasks
    assert {name for name, count in answer.diagnostics["per_source"].items() if count} == set(tasks)
    assert [answer.diagnostics["per_source"][name] for name in tasks] == [3, 3]
    assert answer.diagnostics["filled"] == 0


def test_only_the_signal_of_the_policy_is_read():
    assert [list(Replay(*SPECS, policy).reads) for policy in ("diverse", "data_diverse")] == [
        ["instructions"],
        ["representation"],
    ]


def test_when_the_chosen_sources_are_used_up_the_next_is_opened_and_said():
    answer = choose(world(budget=16))
    assert sorted(answer.rows.tolist()) == list(range(16))
    assert answer.diagnostics["filled"] == 8
    late = [reason for reason in answer.reasons if reason.endswith("filled=next_task")]
    assert answer.reasons[8:] == tuple(late)
    assert [reason.split()[0] for reason in late] == ["source=near"] * 4 + ["source=same"] * 4


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("budget", [1, 7, 16])
def test_storage_and_blocks_change_nothing_and_small_budgets_begin_large_ones(policy, budget):
    problem = world(budget)
    order = np.random.default_rng(3).permutation(16)
    ours, theirs = choose(problem, policy), choose(permuted(problem, order), policy)
    assert len(set(ours.rows.tolist())) == budget
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert ours.reasons == theirs.reasons
    assert ours.diagnostics == theirs.diagnostics
    assert choose(world(budget, block_rows=3), policy).diagnostics == ours.diagnostics
    assert choose(world(16), policy).rows[:budget].tolist() == ours.rows.tolist()


def test_rows_of_a_source_are_drawn():
    assert len({tuple(choose(world(4), seed=seed).rows) for seed in range(10)}) > 3


def test_a_source_s_direction_is_the_mean_of_its_unit_vectors():
    problem, group = world(seed=2), np.random.default_rng(2).integers(0, 3, 16)
    vectors = problem.candidates["instructions"].astype(float)
    means = np.stack([vectors[group == each].sum(axis=0) for each in range(3)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert directions(problem, "instructions", group, 3) / 2**26 == pytest.approx(expected, abs=1e-7)


def test_a_source_of_zero_vectors_is_neither_like_nor_unlike():
    problem = world()
    problem.candidates["instructions"][problem.groups["source"] == "far"] = 0
    scores = choose(problem, "similar").diagnostics["task_scores"]
    assert scores["far"] == 0
    assert all(np.isfinite(list(scores.values())))


def test_waves_take_turns_first_and_then_go_group_by_group():
    rows, rounds = in_waves(np.arange(6), np.array([2, 0, 0, 1, 2, 0]), 2, 6)
    assert rows.tolist() == [1, 3, 2, 5, 0, 4]
    assert rounds.tolist() == [1, 1, 2, 3, 1, 2]


def test_what_cannot_be_is_refused():
    problem = world()
    problem.candidates["instructions"][3, 0] = np.nan
    with pytest.raises(InputError, match="1 of 16 vectors in 'instructions'"):
        choose(problem)
    with pytest.raises(InputError, match="0 tasks"):
        Replay(*SPECS, "diverse", 0)
    bare = world()
    with pytest.raises(InputError, match="no source"):
        choose(Problem(1, bare.keys, bare.candidates, bare.targets, bare.target_task))
    with pytest.raises(InputError, match="no target"):
        choose(Problem(1, bare.keys, bare.candidates, groups=bare.groups))
