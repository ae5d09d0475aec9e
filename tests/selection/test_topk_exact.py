"""Ranked lists equal a full sort, whatever the blocks, the merges and the ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import problem, ranking, score_matrix

from selection import cosine
from selection.problem import InProcess, Problem
from selection.rds_plus import RdsPlus
from selection.targets import targets_of
from selection.topk import SCORE_BINS, STRIPS, Census, Lists, Top, best, cut, merge, ranked, top_lists
from warehouse.errors import InputError
from warehouse.records import Spec


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_best_equals_a_full_sort(data):
    n = data.draw(st.integers(1, 200))
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(0, data.draw(st.integers(1, 300)), n).astype(float)
    keys = rng.integers(0, data.draw(st.integers(1, 50)), n).astype(np.uint64)
    expected = ranking([scores], keys)[0][:k]
    assert ranked(scores, keys, k).tolist() == expected
    assert best(scores, keys, np.arange(n), k).tolist() == sorted(expected)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_searching_strips_first_finds_the_same_rows(k):
    rng = np.random.default_rng(k)
    scores = np.round(rng.standard_normal(2 * STRIPS * k + 77), 1)
    keys = rng.permutation(len(scores)).astype(np.uint64)
    assert ranked(scores, keys, k).tolist() == ranking([scores], keys)[0][:k]


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_merging_is_associative_and_commutative(seed, k, n):
    rng = np.random.default_rng(seed)

    def top(first):
        scores = rng.integers(0, 5, (2, n)).astype(float)
        keys = np.broadcast_to(rng.integers(0, 3, n).astype(np.uint64), (2, n))
        return cut(
            Top(
                k,
                scores,
                keys,
                np.broadcast_to(np.arange(first, first + n), (2, n)),
                Census(1, first, 2, np.ones(SCORE_BINS, np.int64)),
            )
        )

    def contents(merged):
        return [set(line) for line in merged.rows.tolist()], merged.census.broken, merged.census.zero

    a, b, c = top(0), top(n), top(2 * n)
    expected = contents(merge(merge(a, b), c))
    assert contents(merge(a, merge(b, c))) == expected == contents(merge(c, merge(b, a)))
    assert merge(merge(a, b), c).census.first_broken == 0 == merge(c, merge(b, a)).census.first_broken


@pytest.mark.parametrize("block_rows", [1, 3, 10, 64, 100])
@pytest.mark.parametrize("k", [1, 9, 97, 200])
def test_lists_over_blocks_equal_brute_force(block_rows, k):
    world = problem(1, n=97, m=6, tasks=[2, 0, 0, 1, 2, 2], block_rows=block_rows, distinct=30)
    targets = targets_of(world, "representation")
    full = score_matrix(world)
    per_task = np.stack([full[world.target_task == task].max(axis=0) for task in range(3)])
    top = top_lists(world, Lists("representation", targets.values, targets.starts), k)
    assert top.rows.tolist() == [line[:k] for line in ranking(per_task, world.keys)]
    assert np.array_equal(top.scores, np.take_along_axis(per_task, top.rows, axis=1))


def test_tiles_within_a_block_change_nothing(monkeypatch):
    world = problem(1, n=500, d=33)
    lists = Lists("representation", targets_of(world, "representation").values, np.arange(5))
    whole = top_lists(world, lists, 40)
    monkeypatch.setattr(cosine, "TILE_NUMBERS", 64 * 33)
    monkeypatch.setattr(cosine, "TILE_ROWS", 1)
    assert cosine.tile_rows(world.candidates["representation"]) == 64
    tiled = top_lists(world, lists, 40)
    assert np.array_equal(whole.rows, tiled.rows)
    assert np.array_equal(whole.scores, tiled.scores)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_memory_mapped_pool_is_read_as_it_lies(tmp_path, dtype):
    world = problem(20, n=200, block_rows=30)
    vectors = world.candidates["representation"].astype(dtype)
    np.save(tmp_path / "vectors.npy", vectors)
    lists = Lists("representation", targets_of(world, "representation").values, np.arange(5))
    answers = []
    for signal in (vectors, np.load(tmp_path / "vectors.npy", mmap_mode="r")):
        world.candidates["representation"] = signal
        answers.append(top_lists(world, lists, 20))
    assert isinstance(world.candidates["representation"], np.memmap)
    assert np.array_equal(answers[0].rows, answers[1].rows)


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_broken_vectors_are_counted_over_all_blocks(block_rows):
    world = problem(5, block_rows=block_rows)
    world.candidates["representation"][[41, 17, 59]] = np.nan
    with pytest.raises(InputError, match=r"3 of 60 candidate vectors in 'representation'.*row 17"):
        top_lists(world, Lists("representation", targets_of(world, "representation").values, np.arange(5)), 5)


def test_a_candidate_without_direction_scores_0_and_is_counted():
    vectors = np.array([[0, 0], [1, 1], [-1, 0]], np.float32)
    world = Problem(
        budget=3,
        keys=np.arange(3, dtype=np.uint64),
        candidates={"v": vectors},
        targets={"v": np.array([[1.0, 0.0]], np.float32)},
        target_task=np.zeros(1, np.int64),
    )
    top = top_lists(world, Lists("v", targets_of(world, "v").values, np.zeros(1, np.int64)), 3)
    assert top.rows.tolist() == [[1, 0, 2]]
    assert top.scores[0, 1] == 0
    assert top.census.zero == 1


def test_the_census_counts_every_rows_largest_score_whatever_the_blocks():
    rng = np.random.default_rng(3)
    candidates, targets = rng.normal(size=(500, 7)).astype(np.float32), rng.normal(size=(3, 7)).astype(np.float32)
    found = []
    for block_rows in (500, 17):
        problem = Problem(
            budget=5,
            keys=np.arange(500, dtype=np.uint64),
            candidates={"representation": candidates},
            targets={"representation": targets},
            target_task=np.zeros(3, np.int64),
            reducer=InProcess(block_rows),
        )
        answer = RdsPlus(Spec("representation"), "global_max")(problem, rng)
        found.append(answer.diagnostics["pool_scores"])
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (candidates, targets)]
    largest = (units[0] @ units[1].T).max(axis=1)
    assert found[0] == found[1]
    assert sum(found[0]["counts"]) == 500
    assert np.abs(np.histogram(largest, found[0]["edges"])[0] - found[0]["counts"]).sum() <= 4  # rows on an edge
