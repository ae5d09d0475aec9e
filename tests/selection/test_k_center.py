"""Farthest first equals one pass over the pool per row, to the last tie, and covers within twice the least radius."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import permuted

from selection.cosine import cosines, unit_rows
from selection.k_center import KCenter, farthest_first
from selection.problem import InProcess, Problem
from warehouse.errors import InputError
from warehouse.records import Spec

NONE = np.zeros(0, np.int64)


def world(budget, vectors, block_rows=16_384, seed=0):
    n = len(vectors)
    keys = np.random.default_rng(seed).permutation(10 * n)[:n].astype(np.uint64)
    return Problem(budget, keys, {"representation": np.asarray(vectors, np.float32)}, reducer=InProcess(block_rows))


def choose(problem):
    return KCenter(Spec("representation", {}))(problem, np.random.default_rng(0))


def crowded(rng, n, d=5, centres=6, spread=0.3):
    vectors = rng.standard_normal((centres, d))[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, d))
    vectors[n // 2 :: 4] = vectors[rng.integers(0, n, len(vectors[n // 2 :: 4]))]
    return vectors.astype(np.float32)


def by_angles(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def exact(problem):
    values = unit_rows(problem.candidates["representation"]).values
    return cosines(values, values)


def one_pass_per_row(similar, keys, start, k, barred=()):
    rows, nearest = [start], similar[start].copy()
    while len(rows) < min(k, len(keys) - len(barred)):
        left = [row for row in range(len(keys)) if row not in rows and row not in barred]
        row = min(left, key=lambda row: (nearest[row], keys[row], row))
        rows.append(row)
        nearest = np.maximum(nearest, similar[row])
    return rows


def test_five_points_on_a_line():
    # 0, 1, 5, 9 and 10 nine degrees apart: equal steps of the angle, and the farther the less the cosine
    problem = world(3, by_angles(0, 9, 45, 81, 90))
    rows, found = farthest_first(problem, "representation", 0, 4, NONE)
    assert rows.tolist()[:3] == [0, 4, 2]
    assert np.degrees(np.arccos(found[3])) == pytest.approx(9, abs=1e-4)  # the radius, 1 step
    assert np.degrees(np.arccos(found[1:3])) == pytest.approx([90, 45], abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.integers(1, 80))
@settings(max_examples=80, deadline=None)
def test_rows_are_those_of_one_pass_over_the_pool_per_row(seed, n, k, front_rows):
    rng = np.random.default_rng(seed)
    problem = world(1, crowded(rng, n), seed=seed)
    barred = np.sort(rng.choice(n, n // 5, replace=False))
    start = int(np.setdiff1d(np.arange(n), barred)[0])
    rows, found = farthest_first(problem, "representation", start, k, barred, front_rows)
    similar = exact(problem)
    assert rows.tolist() == one_pass_per_row(similar, problem.keys, start, k, barred.tolist())
    assert found.tolist() == [-1.0, *(similar[row, rows[:at]].max() for at, row in enumerate(rows) if at)]


def test_many_rows_and_centres():
    problem = world(1, crowded(np.random.default_rng(1), 3000, d=24, centres=40))
    rows, _ = farthest_first(problem, "representation", 17, 300, NONE)
    values = unit_rows(problem.candidates["representation"]).values
    nearest, at = np.full(3000, -2.0), 17
    for row in rows:
        assert row == at
        nearest = np.maximum(nearest, cosines(values[row : row + 1], values)[0])
        nearest[row] = 3
        tied = np.flatnonzero(nearest == nearest.min())
        at = tied[np.argmin(problem.keys[tied])]


def test_the_first_row_is_the_one_nearest_the_mean():
    assert choose(world(1, by_angles(0, 60, 70, 120))).rows.tolist() == [1]


@pytest.mark.parametrize("seed", range(4))
def test_the_radius_is_at_most_twice_the_least_possible(seed):
    vectors = by_angles(*np.random.default_rng(seed).uniform(0, 170, 11))
    problem = world(3, vectors)
    angles = np.arccos(np.clip(exact(problem), -1, 1))
    answer = choose(problem)
    radius = angles[:, answer.rows].min(axis=1).max()
    least = min(angles[:, list(rows)].min(axis=1).max() for rows in combinations(range(11), 3))
    assert radius <= 2 * least + 1e-6
    assert 1 - np.cos(radius) == pytest.approx(answer.diagnostics["radius"], abs=1e-6)


def test_scores_are_distances_and_fall():
    answer = choose(world(30, crowded(np.random.default_rng(2), 60)))
    assert answer.scores[0] == 2
    assert (np.diff(answer.scores) <= 0).all()
    assert answer.diagnostics["cut_off"] == answer.scores[-1] >= answer.diagnostics["radius"]
    assert answer.reasons[0] == "distance=2"


def test_a_smaller_budget_is_a_beginning_of_a_larger_one():
    vectors = crowded(np.random.default_rng(3), 50)
    whole = choose(world(50, vectors)).rows.tolist()
    assert sorted(whole) == list(range(50))
    for budget in (1, 7, 31):
        assert choose(world(budget, vectors)).rows.tolist() == whole[:budget]


@pytest.mark.parametrize("block_rows", [1, 7, 60])
def test_blocks_and_the_order_of_the_pool_change_nothing(block_rows):
    vectors = crowded(np.random.default_rng(4), 60)
    vectors[7] = 0
    first, second = choose(world(25, vectors)), choose(world(25, vectors, block_rows))
    assert first.rows.tolist() == second.rows.tolist()
    order = np.random.default_rng(1).permutation(60)
    stored = choose(permuted(world(25, vectors), order))
    assert order[stored.rows].tolist() == first.rows.tolist()
    assert (stored.reasons, stored.diagnostics) == (first.reasons, first.diagnostics)


def test_rows_of_length_0_come_last_and_are_counted():
    vectors = np.eye(6, dtype=np.float32)
    vectors[[1, 4]] = 0
    problem = world(5, vectors)
    answer = choose(problem)
    assert set(answer.rows[:4].tolist()) == {0, 2, 3, 5}
    assert answer.rows[4] == min((1, 4), key=lambda row: problem.keys[row])
    assert answer.reasons[4] == "filled=no_direction"
    assert answer.diagnostics["filled"] == {"no_direction": 1}
    assert answer.diagnostics["radius"] == 0


def test_a_pool_without_any_direction_or_with_one_comes_in_the_order_of_its_keys():
    for vectors in (np.zeros((9, 3)), np.ones((9, 3)), np.array([[1, 0], [-1, 0]])):
        problem = world(len(vectors), vectors)
        assert choose(problem).rows.tolist() == np.argsort(problem.keys).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad):
    vectors = np.eye(6)
    vectors[[2, 4], 1] = bad
    with pytest.raises(InputError, match=r"2 of 6 candidate vectors.*row 2"):
        choose(world(1, vectors))
