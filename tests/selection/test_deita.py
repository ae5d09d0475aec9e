"""DEITA's order and its Repr filter equal the scan of one row at a time, whatever the blocks, threads and ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import permuted

from selection.cosine import cosines, unit_rows
from selection.deita import Deita
from selection.packing import packing
from selection.problem import InProcess, Problem
from warehouse.errors import InputError
from warehouse.records import Spec

SPECS = (Spec("representation", {}), Spec("scores", {}))


def crowded(rng, n, d=8, centres=6, spread=0.3):
    """(n, d) float32 around a few centres, some of them copies of others, one of them without length."""
    vectors = rng.standard_normal((centres, d))[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, d))
    vectors[n // 2 :: 5] = vectors[rng.integers(0, n, len(vectors[n // 2 :: 5]))]
    vectors[n // 3] = 0
    return vectors.astype(np.float32)


def exact(vectors):
    values = unit_rows(vectors).values
    return cosines(values, values)


def scan(similar, order, at_most, most):
    """The definition: places in `order` of the kept rows, and how many rows were looked at."""
    kept = []
    for place, row in enumerate(order):
        if all(similar[row, order[other]] <= at_most for other in kept):
            kept.append(place)
        if len(kept) == most:
            return kept, place + 1
    return kept, len(order)


def world(budget, vectors, scores=None, block_rows=16_384, seed=0):
    rng = np.random.default_rng(seed)
    n = len(vectors)
    scores = rng.integers(1, 40, (n, 3)) if scores is None else np.asarray(scores)
    return Problem(
        budget=budget,
        keys=rng.permutation(10 * n)[:n].astype(np.uint64),
        candidates={"representation": vectors, "scores": scores.astype(np.float32)},
        reducer=InProcess(block_rows),
    )


def choose(problem, **params):
    return Deita(*SPECS, **params)(problem, np.random.default_rng(0))


def by_angles(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize("block_rows", [1, 2, 3, 4, 100])
def test_a_row_near_a_rejected_row_alone_is_kept_in_every_block(block_rows):
    found = packing(by_angles(0, 20, 40, 90), np.arange(4), 0.9, 4, block_rows=block_rows)
    assert found.places.tolist() == [0, 2, 3]
    assert found.scanned == 4


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 90),
    st.sampled_from([-0.5, 0.0, 0.3, 0.7, 0.95]),
    st.integers(1, 40),
    st.integers(1, 90),
)
@settings(max_examples=80, deadline=None)
def test_the_filter_is_the_scan_of_single_rows(seed, n, at_most, block_rows, most):
    rng = np.random.default_rng(seed)
    vectors, order = crowded(rng, n), rng.permutation(n)
    found = packing(vectors, order, at_most, most, block_rows=block_rows, threads=2)
    assert (found.places.tolist(), found.scanned) == scan(exact(vectors), order, at_most, most)


def test_blocks_threads_and_slabs_change_nothing():
    rng = np.random.default_rng(1)
    vectors = crowded(rng, 3000, d=40, centres=900, spread=0.15)
    order = rng.permutation(3000)
    answers = [
        packing(vectors, order, 0.9, 3000, block_rows=block_rows, threads=threads)
        for block_rows, threads in ((1024, 1), (1024, 2), (61, 3))
    ]
    assert answers[0].places.tolist() == answers[1].places.tolist() == answers[2].places.tolist()
    assert 512 < len(answers[0].places) < 2000
    assert answers[0].places.tolist() == scan(exact(vectors), order, 0.9, 3000)[0]


def test_kept_rows_are_a_packing_and_each_rejected_row_is_near_one_kept_before_it():
    vectors, order = crowded(np.random.default_rng(2), 400), np.arange(400)
    found = packing(vectors, order, 0.9, 400)
    similar = exact(vectors)
    kept = found.places
    assert similar[np.ix_(kept, kept)][np.triu_indices(len(kept), 1)].max() <= 0.9
    for place in np.setdiff1d(order, kept):
        assert similar[place, kept[kept < place]].max() > 0.9


@pytest.mark.parametrize("block_rows", [7, 300])
def test_a_threshold_that_is_a_cosine_of_the_data_is_decided_to_the_last_bit(block_rows):
    vectors = np.random.default_rng(3).standard_normal((300, 384)).astype(np.float32)
    similar = exact(vectors)[0]
    for row in np.argsort(-similar)[1:6].tolist():
        order = np.concatenate([[0], np.setdiff1d(np.arange(300), [0, row]), [row]])
        for edge, stays in ((float(similar[row]), True), (float(np.nextafter(similar[row], -1)), False)):
            kept = order[packing(vectors, order, edge, 300, block_rows=block_rows).places]
            near = [other for other in kept if other != row and exact(vectors[[other, row]])[0, 1] > edge]
            assert (row in kept) == (not near)
            assert (0 in near) != stays


def test_no_more_rows_are_looked_at_than_the_budget_needs():
    vectors = np.eye(64, dtype=np.float32)
    assert packing(vectors, np.arange(64), 0.9, 5).scanned == 5


def test_rows_come_by_their_scores_and_ties_by_key():
    problem = world(4, np.eye(6, dtype=np.float32), [[3, 1, 9], [5, 2, 1], [3, 3, 1], [9, 1, 1], [3, 5, 2], [1, 7, 8]])
    tied = sorted([0, 2, 4], key=lambda row: problem.keys[row])
    assert choose(problem).rows.tolist() == [3, 1, *tied[:2]]
    assert choose(problem, by="complexity").rows.tolist() == [5, 4, 2, 1]
    assert choose(problem, by="quality").rows.tolist()[:2] == [0, 5]
    assert choose(problem, by="quality").scores.tolist()[:2] == [9, 8]
    assert choose(problem).reasons[0] == "product=9 complexity=1 quality=1"


def test_too_few_unlike_rows_are_filled_up_with_the_best_rejected_ones():
    answer = choose(world(4, by_angles(0, 20, 40, 90, 91, 92), [[6 - i, 1, 1] for i in range(6)]))
    assert answer.rows.tolist() == [0, 2, 3, 1]
    assert [("filled=similar" in reason) for reason in answer.reasons] == [False, False, False, True]
    assert answer.diagnostics["filled"] == {"similar": 1}
    assert (answer.diagnostics["scanned"], answer.diagnostics["rejected"]) == (6, 3)
    assert answer.diagnostics["cut_off"] == 3


@pytest.mark.parametrize("threshold", [1, 1.0, 2])
def test_from_a_threshold_of_1_on_nothing_is_filtered(threshold):
    vectors = np.ones((9, 4), np.float32)
    answer = choose(world(5, vectors, [[i, 1, 1] for i in range(9)]), threshold=threshold)
    assert answer.rows.tolist() == [8, 7, 6, 5, 4]
    assert answer.diagnostics["filled"] == {"similar": 0}


def test_copies_collapse_to_one_and_rows_of_length_0_resemble_nothing():
    vectors = np.zeros((8, 4), np.float32)
    vectors[[0, 3, 5, 7]] = [1, 2, 3, 4]
    answer = choose(world(8, vectors, [[8 - i, 1, 1] for i in range(8)]))
    assert answer.rows.tolist() == [0, 1, 2, 4, 6, 3, 5, 7]
    assert answer.diagnostics["filled"] == {"similar": 3}
    assert answer.diagnostics["rows_of_length_0"] == 4


def test_a_smaller_budget_is_a_beginning_of_a_larger_one():
    vectors = crowded(np.random.default_rng(5), 80)
    whole = choose(world(80, vectors)).rows
    for budget in (1, 5, 30):
        assert choose(world(budget, vectors)).rows.tolist() == whole[:budget].tolist()


@pytest.mark.parametrize("block_rows", [1, 7, 80])
def test_blocks_and_the_order_of_the_pool_change_nothing(block_rows):
    vectors = crowded(np.random.default_rng(6), 80)
    first, second = choose(world(30, vectors)), choose(world(30, vectors, block_rows=block_rows))
    assert first.rows.tolist() == second.rows.tolist()
    problem = world(30, vectors)
    order = np.random.default_rng(1).permutation(80)
    stored = choose(permuted(problem, order))
    assert order[stored.rows].tolist() == first.rows.tolist()
    assert (stored.reasons, stored.diagnostics) == (first.reasons, first.diagnostics)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_its_number_and_first_row(bad):
    vectors, scores = np.eye(6, dtype=np.float32), np.ones((6, 3))
    broken = vectors.copy()
    broken[[2, 4], 1] = bad
    with pytest.raises(InputError, match=r"2 of 6 candidate vectors.*row 2"):
        choose(world(1, broken, scores))
    scores[3:, 0] = bad
    with pytest.raises(InputError, match=r"3 of 6 rows.*row 3"):
        choose(world(1, vectors, scores))


@pytest.mark.parametrize("threshold", [-1, -3, float("nan")])
def test_thresholds_without_a_meaning_are_refused(threshold):
    with pytest.raises(InputError, match="threshold"):
        Deita(*SPECS, threshold=threshold)
