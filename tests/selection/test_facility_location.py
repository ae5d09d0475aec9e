"""The lazy choice of covering rows is the greedy one to the last tie, and reaches 1 - 1/e of the best there is."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from selection_worlds import permuted

from selection.cosine import cosines, unit_rows
from selection.facility_location import (
    UNIT,
    FacilityLocation,
    FacilityLocationTargets,
    gains,
    greedy_cover,
    neighbour_graph,
)
from selection.problem import InProcess, Problem
from warehouse.errors import InputError
from warehouse.records import Spec

SPEC = Spec("representation", {})
WORKED = np.array([[1, 0.8, 0.1], [0.8, 1, 0.2], [0.1, 0.2, 1]])


def world(budget, vectors, targets=None, block_rows=16_384, seed=0):
    n = len(vectors)
    keys = np.random.default_rng(seed).permutation(10 * n)[:n].astype(np.uint64)
    return Problem(
        budget,
        keys,
        {"representation": np.asarray(vectors, np.float32)},
        {} if targets is None else {"representation": np.asarray(targets, np.float32)},
        np.zeros(0 if targets is None else len(targets), np.int64),
        reducer=InProcess(block_rows),
    )


def pool_wide(problem, neighbours=20):
    return FacilityLocation(SPEC, neighbours)(problem, np.random.default_rng(0))


def for_targets(problem, neighbours=1000):
    return FacilityLocationTargets(SPEC, neighbours)(problem, np.random.default_rng(0))


def exact(first, second):
    return cosines(unit_rows(np.asarray(first, np.float32)).values, unit_rows(np.asarray(second, np.float32)).values)


def whole(similar):
    """Similarities as whole numbers."""
    return np.rint(np.maximum(similar, 0) * UNIT)


def value(similar, rows):
    return similar[list(rows)].max(axis=0).sum() if len(rows) else 0.0


def greedy(similar, keys, k):
    """Every row's gain at every step, over the full matrix (n, m); (row, gain, round) each."""
    chosen, covered, number = [], np.zeros(similar.shape[1]), 1
    while len(chosen) < k:
        left = [row for row in range(len(similar)) if row not in {taken for taken, _, _ in chosen}]
        gain = {row: np.maximum(similar[row] - covered, 0).sum() for row in left}
        row = min(left, key=lambda row: (-gain[row], keys[row], row))
        if gain[row] > 0:
            chosen.append((row, gain[row], number))
            covered = np.maximum(covered, similar[row])
        elif any(similar[row].sum() > 0 for row in left):
            covered, number = np.zeros_like(covered), number + 1
        else:
            chosen += [(row, 0.0, 0) for row in sorted(left, key=lambda row: (keys[row], row))]
    return chosen[:k]


def cover(similar, keys, k, front_rows=512):
    return greedy_cover(csr_matrix(np.maximum(similar, 0)), keys, k, front_rows)


def triples(found):
    return list(zip(found.rows.tolist(), found.gains.tolist(), found.rounds.tolist(), strict=True))


def crowded(rng, n, d=5, centres=6, spread=0.4):
    vectors = rng.standard_normal((centres, d))[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, d))
    vectors[n // 2 :: 4] = vectors[rng.integers(0, n, len(vectors[n // 2 :: 4]))]
    vectors[n // 3] = 0
    return vectors.astype(np.float32)


def test_the_worked_example():
    found = cover(whole(WORKED), np.arange(3, dtype=np.uint64), 2)
    assert found.rows.tolist() == [1, 2]
    assert found.gains / UNIT == pytest.approx([2.0, 0.8], abs=1e-8)
    assert found.gains.sum() / UNIT == pytest.approx(2.8, abs=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_the_lazy_choice_is_the_greedy_one(seed, n, m, front_rows):
    rng = np.random.default_rng(seed)
    similar = whole(rng.integers(-2, 4, (n, m)) / 4 if seed % 2 else rng.uniform(-1, 1, (n, m)))
    keys, k = rng.permutation(n).astype(np.uint64), int(rng.integers(1, n + 1))
    assert triples(cover(similar, keys, k, front_rows)) == greedy(similar, keys, k)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_value_is_monotone_and_its_gains_fall(seed):
    rng = np.random.default_rng(seed)
    similar = whole(rng.uniform(-1, 1, (9, 6)))
    small = rng.choice(8, 3, replace=False)
    large = np.union1d(small, rng.choice(8, 2, replace=False))
    gain = [gains(csr_matrix(similar), similar[rows].max(axis=0))[8] for rows in (small, large)]
    assert gain[0] >= gain[1] >= 0
    assert gain[0] == value(similar, [*small, 8]) - value(similar, small)
    found = cover(similar, np.arange(9, dtype=np.uint64), 9)
    first = found.gains[found.rounds == 1]
    assert (np.diff(first) <= 0).all()
    assert first.sum() == value(similar, range(9))


@pytest.mark.parametrize("seed", range(6))
def test_no_set_of_rows_is_better_than_the_bound_allows(seed):
    rng = np.random.default_rng(seed)
    similar = whole(rng.uniform(0, 1, (9, 7)) ** 3)
    best = max(value(similar, rows) for rows in combinations(range(9), 3))
    found = cover(similar, np.arange(9, dtype=np.uint64), 3)
    assert best >= found.gains.sum() >= (1 - 1 / np.e) * best


@pytest.mark.parametrize(("n", "neighbours"), [(1, 3), (5, 3), (40, 4), (40, 60), (1100, 2)])
def test_the_graph_holds_each_row_and_its_nearest_others(n, neighbours):
    vectors = crowded(np.random.default_rng(n), n)
    problem = world(1, vectors)
    graph = neighbour_graph(problem, "representation", neighbours).toarray()
    similar, expected = exact(vectors, vectors), np.zeros((n, n))
    for row in range(n):
        others = [other for other in range(n) if other != row]
        near = sorted(others, key=lambda other: (-similar[row, other], problem.keys[other], other))[:neighbours]
        expected[[*near, row], row] = whole(similar[row, [*near, row]])
    assert np.array_equal(graph, expected)


def test_the_pool_is_covered_as_by_the_full_graph():
    vectors = crowded(np.random.default_rng(3), 50)
    problem = world(50, vectors)
    answer = pool_wide(problem, neighbours=49)
    expected = greedy(whole(exact(vectors, vectors)), problem.keys, 50)
    assert answer.rows.tolist() == [row for row, _, _ in expected]
    assert (answer.scores * UNIT).tolist() == [gain for _, gain, _ in expected]
    assert answer.reasons[-1] == "filled=no_gain"
    assert answer.diagnostics["filled"] == {"no_gain": 1} == {"no_gain": answer.diagnostics["rows_of_length_0"]}


def test_one_row_of_every_cluster_comes_first():
    rng = np.random.default_rng(4)
    cluster = rng.integers(0, 6, 300)
    vectors = 3 * np.eye(8)[cluster] + 0.3 * rng.standard_normal((300, 8))
    answer = pool_wide(world(6, vectors), neighbours=80)
    assert sorted(cluster[answer.rows].tolist()) == [0, 1, 2, 3, 4, 5]


def test_the_targets_are_covered_as_by_the_full_matrix():
    rng = np.random.default_rng(5)
    vectors, targets = crowded(rng, 60), crowded(rng, 7, centres=3)[3:]
    problem = world(60, vectors, targets)
    answer = for_targets(problem)
    expected = greedy(whole(exact(vectors, targets)), problem.keys, 60)
    assert answer.rows.tolist() == [row for row, _, _ in expected]
    assert (answer.scores * UNIT).tolist() == [gain for _, gain, _ in expected]


def test_a_target_is_covered_by_its_nearest_rows_only():
    rng = np.random.default_rng(9)
    vectors, targets = crowded(rng, 60), rng.standard_normal((4, 5))
    problem = world(60, vectors, targets)
    similar = exact(vectors, targets)
    for column in similar.T:
        order = sorted(range(60), key=lambda row: (-column[row], problem.keys[row], row))
        column[order[6:]] = 0
    answer = for_targets(problem, neighbours=6)
    assert answer.rows.tolist() == [row for row, _, _ in greedy(whole(similar), problem.keys, 60)]
    assert answer.diagnostics["filled"]["no_gain"] == (whole(similar).sum(axis=1) == 0).sum() >= 36


def test_each_target_is_reached_before_a_second_row_for_any():
    targets = np.eye(4)
    vectors = np.concatenate([np.repeat(targets, 5, axis=0) + 0.01, -np.ones((3, 4))])
    answer = for_targets(world(23, vectors, targets))
    near = [reason.split()[0] for reason in answer.reasons]
    assert sorted(near[:4]) == ["target=0", "target=1", "target=2", "target=3"]
    assert answer.diagnostics["chosen_in_round_1"] == 4
    assert answer.diagnostics["rounds"] == 5
    assert answer.diagnostics["covered"] == pytest.approx(1, abs=1e-3)
    assert set(answer.rows[20:].tolist()) == {20, 21, 22}
    assert all(reason.endswith("filled=no_gain") for reason in answer.reasons[20:])
    assert answer.scores[20:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("choose", [pool_wide, for_targets])
@pytest.mark.parametrize("block_rows", [1, 7, 60])
def test_blocks_and_the_order_of_the_pool_change_nothing(choose, block_rows):
    rng = np.random.default_rng(6)
    vectors, targets = crowded(rng, 60), rng.standard_normal((4, 5))
    first, second = choose(world(25, vectors, targets)), choose(world(25, vectors, targets, block_rows))
    assert first.rows.tolist() == second.rows.tolist()
    order = np.random.default_rng(1).permutation(60)
    stored = choose(permuted(world(25, vectors, targets), order))
    assert order[stored.rows].tolist() == first.rows.tolist()
    assert (stored.reasons, stored.diagnostics) == (first.reasons, first.diagnostics)


@pytest.mark.parametrize("choose", [pool_wide, for_targets])
def test_a_smaller_budget_is_a_beginning_of_a_larger_one(choose):
    rng = np.random.default_rng(7)
    vectors, targets = crowded(rng, 50), rng.standard_normal((4, 5))
    whole_pool = choose(world(50, vectors, targets)).rows.tolist()
    assert sorted(whole_pool) == list(range(50))
    for budget in (1, 6, 31):
        assert choose(world(budget, vectors, targets)).rows.tolist() == whole_pool[:budget]


@pytest.mark.parametrize("choose", [pool_wide, for_targets])
def test_a_pool_of_one_direction_or_of_none_comes_in_the_order_of_its_keys(choose):
    for vectors in (np.zeros((9, 3)), np.ones((9, 3)), np.ones((1, 3))):
        problem = world(len(vectors), vectors, np.ones((1, 3)))
        assert choose(problem).rows.tolist() == np.argsort(problem.keys).tolist()


def test_more_targets_than_rows():
    targets = np.random.default_rng(8).standard_normal((30, 4))
    assert sorted(for_targets(world(5, np.eye(5, 4) + 0.1, targets)).rows.tolist()) == [0, 1, 2, 3, 4]


def test_bad_input_is_refused():
    vectors = np.eye(6)
    with pytest.raises(InputError, match="no target was given"):
        for_targets(world(1, vectors))
    with pytest.raises(InputError, match="neighbours"):
        FacilityLocation(SPEC, 0)
    with pytest.raises(InputError, match="neighbours"):
        FacilityLocationTargets(SPEC, 0)
    vectors[[2, 4], 1] = np.nan
    for choose in (pool_wide, for_targets):
        with pytest.raises(InputError, match=r"2 of 6 candidate vectors.*row 2"):
            choose(world(1, vectors, np.eye(6)))
