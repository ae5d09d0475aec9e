"""Cosines are right, and no block, tile, thread, order or storage type changes a bit of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from selection import cosine
from selection.cosine import GRID, cosines, unit_rows


def pair(n=300, m=7, d=129, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((m, d)).astype(np.float32)


def scores(targets, rows):
    return cosines(unit_rows(targets).values, unit_rows(rows).values)


@pytest.mark.parametrize("d", [1, 2, 17, 384, 1023])
def test_agrees_with_plain_cosines_within_the_stated_bound(d):
    rows, targets = pair(d=d)
    plain = [x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in (rows, targets)]
    assert np.abs(scores(targets, rows) - plain[1] @ plain[0].T).max() <= np.sqrt(d) / GRID


@pytest.mark.parametrize("d", [1, 3, 17, 129, 768])
@pytest.mark.parametrize("step", [1, 2, 5, 64, 299])
def test_rows_scored_together_or_apart_have_the_same_bits(d, step):
    rows, targets = pair(d=d)
    parts = [scores(targets, rows[at : at + step]) for at in range(0, len(rows), step)]
    assert np.array_equal(np.concatenate(parts, axis=1), scores(targets, rows))


def test_threads_and_the_library_s_own_order_of_addition_change_nothing():
    rows, targets = pair(n=3000, m=50, d=1001)
    with threadpool_limits(1):
        alone = scores(targets, rows)
    with threadpool_limits(2):
        together = scores(targets, rows)
    one_by_one = np.array([[np.sum(t * r) for r in unit_rows(rows[:40]).values] for t in unit_rows(targets).values])
    assert np.array_equal(alone, together)
    assert np.array_equal(alone[:, :40], one_by_one / GRID**2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_permuting_rows_targets_or_coordinates_permutes_the_scores(seed, n, m):
    rows, targets = pair(n, m, 33, seed)
    rng = np.random.default_rng(seed)
    by_row, by_target, by_column = rng.permutation(n), rng.permutation(m), rng.permutation(33)
    units, aims = unit_rows(rows).values, unit_rows(targets).values
    plain = cosines(aims, units)
    assert np.array_equal(scores(targets[by_target], rows[by_row]), plain[by_target][:, by_row])
    assert np.array_equal(cosines(aims[:, by_column], units[:, by_column]), plain)


def test_copies_of_a_row_score_alike_wherever_they_stand():
    rows, targets = pair(n=1000)
    copies = np.random.default_rng(1).permutation(1000)[:50]
    rows[copies] = rows[0]
    assert len({tuple(column) for column in scores(targets, rows)[:, copies].T}) == 1


def test_sparse_rows_score_as_their_dense_copies():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 3, (40, 50)).astype(np.float32) * (rng.random((40, 50)) < 0.2)
    dense[3] = 0
    assert np.array_equal(scores(csr_matrix(dense[:9]), csr_matrix(dense)), scores(dense[:9], dense))
    assert np.array_equal(unit_rows(csr_matrix(dense)).zero, unit_rows(dense).zero)


def test_many_sparse_targets_are_taken_in_slabs(monkeypatch):
    rows, targets = pair(n=20, m=11, d=30)
    whole = scores(csr_matrix(targets), csr_matrix(rows))
    monkeypatch.setattr(cosine, "TARGETS_AT_ONCE", 4)
    assert np.array_equal(scores(csr_matrix(targets), csr_matrix(rows)), whole)


def test_a_sparse_row_with_repeated_or_unsorted_columns_is_the_row_it_means():
    odd = csr_matrix((np.array([1.0, 2.0, 2.0]), np.array([4, 0, 4]), np.array([0, 3])), shape=(1, 5))
    assert np.array_equal(unit_rows(odd).values.toarray(), unit_rows(np.array([[2.0, 0, 0, 0, 3.0]])).values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_storage_type_and_length_of_the_vector_do_not_matter(dtype):
    rows = np.array([[3, 4], [-0.75, 1], [6, 8]], dtype)
    assert unit_rows(rows).values[0].tolist() == [round(0.6 * GRID), round(0.8 * GRID)]
    assert np.array_equal(unit_rows(rows).values[0], unit_rows(rows).values[2])


def test_rows_of_length_0_score_0_and_broken_rows_are_marked():
    rows = np.array([[0, 0], [np.nan, 1], [np.inf, 1], [1e-38, 0], [3e38, 3e38]], np.float32)
    units = unit_rows(rows)
    assert units.zero.tolist() == [True, False, False, False, False]
    assert units.finite.tolist() == [True, False, False, True, True]
    assert np.all(cosines(unit_rows(np.ones((1, 2))).values, units.values)[0, :3] == 0)
