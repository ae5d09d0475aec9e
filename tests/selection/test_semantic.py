"""Near-duplicates and neighbours by vectors equal their definitions, whatever the blocks, the threads and the ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.cosine import cosines, unit_rows
from selection.semantic import near_duplicates, neighbours, resembling
from warehouse.errors import InputError


def crowded(rng, n, d=8, centres=6, spread=0.2):
    """(n, d) float32 around a few centres, some of them copies of others, one of them without length."""
    vectors = rng.standard_normal((centres, d))[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, d))
    vectors *= rng.uniform(0.1, 10, (n, 1))
    vectors[n // 2 :: 5] = vectors[rng.integers(0, n, len(vectors[n // 2 :: 5]))]
    vectors[n // 3] = 0
    return vectors.astype(np.float32)


def exact(first, second):
    return cosines(unit_rows(first).values, unit_rows(second).values)


def greedy(vectors, rows, threshold):
    """The definition, a row at a time over the full matrix."""
    similar = exact(vectors, vectors)
    kept, found = [], []
    for i in range(len(rows)):
        near = [j for j in kept if similar[i, j] >= threshold]
        if near:
            found.append((rows[i], rows[near[0]], min(similar[i, near[0]], 1.0)))
        else:
            kept.append(i)
    return found


def triples(pairs):
    return list(zip(pairs.rows.tolist(), pairs.others.tolist(), pairs.similarities.tolist(), strict=True))


class OnlySlices:
    """Vectors that can only be sliced."""

    def __init__(self, vectors):
        self._vectors = vectors
        self.shape = vectors.shape

    def __len__(self):
        return len(self._vectors)

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self._vectors[rows]


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.sampled_from([0.3, 0.7, 0.95]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_near_duplicates_are_those_of_the_definition(seed, n, threshold, block_rows):
    rng = np.random.default_rng(seed)
    vectors, rows = crowded(rng, n), np.sort(rng.choice(3 * n, n, replace=False))
    found = near_duplicates(OnlySlices(vectors), rows, threshold, block_rows=block_rows, threads=2)
    assert triples(found) == greedy(vectors, rows, threshold)


def test_blocks_and_threads_change_nothing():
    vectors, rows = crowded(np.random.default_rng(1), 700, d=40, centres=90), np.arange(700)
    answers = [
        triples(near_duplicates(vectors, rows, 0.9, block_rows=block_rows, threads=threads))
        for block_rows, threads in ((2048, 1), (64, 1), (64, 2), (61, 3))
    ]
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert 100 < len(answers[0]) < 690


def test_rows_that_stay_are_no_near_duplicates_and_each_drop_has_a_witness_that_stays():
    vectors, rows = crowded(np.random.default_rng(2), 400), np.arange(400)
    found = near_duplicates(vectors, rows, 0.9)
    stay = np.setdiff1d(rows, found.rows)
    assert exact(vectors[stay], vectors[stay])[np.triu_indices(len(stay), 1)].max() < 0.9
    assert np.isin(found.others, stay).all()
    assert (found.others < found.rows).all()
    assert (found.similarities >= 0.9).all()


def test_a_chain_drops_only_what_is_near_a_row_that_stays():
    angles = np.radians([0, 10, 20, 30])  # each is 10 degrees from the next; 15 degrees are near
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = near_duplicates(vectors, np.array([3, 5, 8, 9]), float(np.cos(np.radians(15))))
    assert found.rows.tolist() == [5, 9]
    assert found.others.tolist() == [3, 8]
    assert found.similarities == pytest.approx(np.cos(np.radians([10, 10])), abs=1e-6)


@pytest.mark.parametrize("block_rows", [7, 300])
def test_a_threshold_that_is_a_cosine_of_the_data_is_decided_to_the_last_bit(block_rows):
    vectors, rows = crowded(np.random.default_rng(3), 300, d=384, centres=300), np.arange(300)
    similar = exact(vectors, vectors)[0]
    for row in np.argsort(-similar)[5:15]:
        threshold = float(similar[row])
        witnesses = [
            dict(zip(found.rows.tolist(), found.others.tolist(), strict=True)).get(int(row))
            for edge in (threshold, float(np.nextafter(threshold, 1)))
            if (found := near_duplicates(vectors, rows, edge, block_rows=block_rows))
        ]
        assert witnesses[0] == 0 != witnesses[1]


def test_copies_are_dropped_for_the_first_and_vectors_without_length_stay():
    vectors = np.zeros((9, 384), np.float32)
    vectors[[1, 4, 6]] = np.random.default_rng(0).standard_normal(384)
    found = near_duplicates(vectors, np.arange(9), 0.9999)
    assert (found.rows.tolist(), found.others.tolist()) == ([4, 6], [1, 1])
    assert found.similarities == pytest.approx([1, 1], abs=1e-6)
    assert (found.similarities <= 1).all()


def test_nothing_is_found_in_nothing():
    nothing, few = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
    empty, three = np.zeros(0, np.int64), np.arange(3)
    assert triples(near_duplicates(nothing, empty, 0.9)) == []
    for rows, vectors, others in ((empty, nothing, few), (three, few, nothing)):
        assert triples(resembling(vectors, rows, others, 0.9)) == []
        assert triples(neighbours(vectors, rows, others, 2)) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused_by_the_name_of_their_row(bad):
    vectors, rows = np.ones((50, 4), np.float32), 10 * np.arange(50)
    vectors[:, 0] = np.arange(50)
    broken = vectors.copy()
    broken[33, 2] = bad
    with pytest.raises(InputError, match="row 330 "):
        near_duplicates(broken, rows, 0.999999, block_rows=8)
    with pytest.raises(InputError, match="row 330 "):
        resembling(broken, rows, vectors, 0.9)
    with pytest.raises(InputError, match="vector 33 of the other set"):
        resembling(vectors, rows, broken, 0.9)
    with pytest.raises(InputError, match="vector 33 of the other set"):
        neighbours(vectors, rows, broken, 2)


@pytest.mark.parametrize("threshold", [-0.5, 0, 1, 1.5, float("nan")])
def test_thresholds_without_a_meaning_are_refused(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        near_duplicates(np.ones((2, 2), np.float32), np.arange(2), threshold)


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_resembling_rows_and_neighbours_are_those_of_the_full_matrix(seed, n, m, block_rows):
    rng = np.random.default_rng(seed)
    vectors, rows = crowded(rng, n), np.sort(rng.choice(3 * n, n, replace=False))
    others = vectors[rng.integers(0, n, m)] + 0.1 * rng.standard_normal((m, 8)).astype(np.float32)
    others[m // 2] = others[0]  # ties
    similar = np.minimum(exact(vectors, others), 1.0)
    best = [(rows[i], int(line.argmax()), line.max()) for i, line in enumerate(similar) if line.max() >= 0.8]
    assert triples(resembling(OnlySlices(vectors), rows, others, 0.8, block_rows=block_rows)) == best
    k = min(4, n)
    order = [sorted(range(n), key=lambda i: (-exact(vectors, others)[i, j], i))[:k] for j in range(m)]
    nearest = [(rows[i], j, similar[i, j]) for j, line in enumerate(order) for i in line]
    assert triples(neighbours(OnlySlices(vectors), rows, others, 4)) == nearest


def test_a_row_exactly_as_similar_as_asked_is_found():
    vectors, rows = crowded(np.random.default_rng(4), 30), np.arange(30)
    nearest = float(exact(vectors[1:2], vectors[5:6])[0, 0])
    assert 1 in resembling(vectors, rows, vectors[5:6], nearest).rows
    assert 1 not in resembling(vectors, rows, vectors[5:6], float(np.nextafter(nearest, 1))).rows
