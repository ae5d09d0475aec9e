"""Clusters are exact and the same in any blocks and order; rows are given in turn, to the quota at every length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_worlds import permuted

from selection.cosine import cosines, unit_rows
from selection.k_means import Clusters, KMeansQuota, clustered, first_centres, moved, nearest_centre
from selection.problem import InProcess, Problem
from warehouse.errors import InputError
from warehouse.records import Spec

SPEC = Spec("representation", {})


def world(budget, vectors, block_rows=16_384, seed=0):
    n = len(vectors)
    keys = np.random.default_rng(seed).permutation(10 * n)[:n].astype(np.uint64)
    return Problem(budget, keys, {"representation": np.asarray(vectors, np.float32)}, reducer=InProcess(block_rows))


def choose(problem, seed=0, **params):
    return KMeansQuota(SPEC, **params)(problem, np.random.default_rng(seed))


def separate(sizes, spread=0.05, d=8, seed=0):
    """Clusters of these sizes around the axes, and the cluster of each row."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return np.eye(d)[cluster] + spread * rng.standard_normal((len(cluster), d)), cluster


def grid(vectors):
    return unit_rows(np.asarray(vectors, np.float32)).values


def found_in(problem, clusters, iterations=20, seed=0):
    rng = np.random.default_rng(seed)
    return clustered(problem, "representation", rng.permutation(problem.by_key), clusters, iterations, rng)


def plain_k_means(values, centres, iterations):
    """Lloyd's rounds over the whole matrix."""
    for _ in range(iterations):
        nearest = cosines(centres, values).argmax(axis=0)
        sums = np.stack([values[nearest == at].sum(axis=0) for at in range(len(centres))])
        units = unit_rows(sums)
        centres = np.where(units.zero[:, None], centres, units.values)
    return cosines(centres, values).argmax(axis=0), centres


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 12), st.sampled_from([2, 8, 384]))
@settings(max_examples=60, deadline=None)
def test_the_nearest_centre_is_that_of_the_full_matrix(seed, n, k, d):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    centres = np.concatenate([rows[rng.integers(0, n, k)], rng.standard_normal((k, d))])  # some twice, so ties
    values, theirs = grid(rows), grid(centres)
    nearest, cosine = nearest_centre(values, theirs)
    exact = cosines(theirs, values)
    assert nearest.tolist() == exact.argmax(axis=0).tolist()
    assert cosine.tolist() == exact.max(axis=0).tolist()


@pytest.mark.parametrize("block_rows", [7, 16_384])
def test_clusters_are_those_of_plain_k_means(block_rows):
    problem = world(1, np.random.default_rng(1).standard_normal((150, 6)), block_rows)
    start = found_in(problem, 9, iterations=0)
    for iterations in (1, 3, 50):
        found = found_in(problem, 9, iterations)
        values = grid(problem.candidates["representation"])
        cluster, centres = plain_k_means(values, start.centres, iterations)
        assert found.cluster.tolist() == cluster.tolist()
        assert np.array_equal(found.centres, centres)
        assert found.cosine.tolist() == cosines(centres, values)[cluster, np.arange(150)].tolist()
    assert found.rested
    assert found.rounds < 50


def test_rounds_bring_rows_nearer_to_their_centres():
    problem = world(1, np.random.default_rng(2).standard_normal((300, 6)))
    objective = [found_in(problem, 12, iterations).cosine.sum() for iterations in range(8)]
    assert (np.diff(objective) >= -1e-6).all()
    assert objective[-1] > objective[0] + 1


def test_separate_clusters_are_found():
    vectors, cluster = separate([40, 40, 15, 5])
    found = found_in(world(1, vectors), 4)
    assert len({(int(ours), int(theirs)) for ours, theirs in zip(found.cluster, cluster, strict=True)}) == 4


def test_a_centre_without_rows_stays_where_it_is():
    vectors = np.repeat(np.eye(3), 5, axis=0)
    found = found_in(world(1, vectors), 9)
    assert found.count == 3  # no more different directions to start from
    centres = grid([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    sums = np.array([[3, 0, 4], [0, 0, 0], [0, -7, 0]])
    assert np.array_equal(moved(centres, sums), grid([[3, 0, 4], [1, 0, 0], [0, -1, 0]]))


def test_first_centres_are_different_rows_and_far_ones_are_likelier():
    rows = grid(np.concatenate([np.tile([1, 0, 0], (50, 1)), np.tile([1, 0.2, 0], (49, 1)), [[0, 0, 1]]]))
    drawn = [first_centres(rows, 2, np.random.default_rng(seed)) for seed in range(200)]
    far = np.mean([centres[1].tolist() == rows[99].tolist() for centres in drawn])
    away = 1 - cosines(rows[:1], rows)[0]
    assert far == pytest.approx(away[99] / away.sum(), abs=0.1)
    assert len(first_centres(rows, 10, np.random.default_rng(0))) == 3


def taken(answer, cluster, k):
    return np.bincount(cluster[answer.rows[:k]], minlength=cluster.max() + 1).tolist()


def test_quotas_in_proportion_at_every_length():
    vectors, cluster = separate([50, 30, 20])
    answer = choose(world(100, vectors), clusters=3)
    for k, counts in ((10, [5, 3, 2]), (20, [10, 6, 4]), (50, [25, 15, 10]), (100, [50, 30, 20])):
        assert taken(answer, cluster, k) == counts


def test_equal_quotas_leave_what_a_small_cluster_lacks_to_the_others():
    vectors, cluster = separate([50, 30, 4])
    answer = choose(world(84, vectors), clusters=3, quota="equal")
    for k, counts in ((3, [1, 1, 1]), (12, [4, 4, 4]), (20, [8, 8, 4]), (64, [30, 30, 4]), (84, [50, 30, 4])):
        assert taken(answer, cluster, k) == counts
    assert choose(world(20, vectors), clusters=3, quota="equal").diagnostics["used_up"] == 1


@pytest.mark.parametrize(("within", "sign", "direction"), [("nearest", -1, "higher"), ("farthest", 1, "lower")])
def test_rows_of_a_cluster_by_their_cosine_with_its_centre(within, sign, direction):
    vectors, cluster = separate([40, 20, 10])
    answer = choose(world(70, vectors), clusters=3, within=within)
    assert answer.diagnostics["direction"] == f"{direction} is better"
    assert answer.diagnostics["cut_off"] == (answer.scores.min() if sign < 0 else answer.scores.max())
    for number in range(3):
        own = answer.scores[cluster[answer.rows] == number]
        assert (sign * np.diff(own) >= 0).all()
        assert len(set(own.tolist())) > 5


def test_random_rows_of_a_cluster_depend_on_the_seed_and_have_no_direction():
    vectors, cluster = separate([40, 20, 10])
    first, second = (choose(world(7, vectors), seed, clusters=3, within="random") for seed in (1, 2))
    assert first.diagnostics["direction"] == "none"
    assert (first.scores == 0).all()
    assert set(first.rows.tolist()) != set(second.rows.tolist())
    assert taken(first, cluster, 7) == taken(second, cluster, 7) == [4, 2, 1]


CHOICES = [
    {"within": within, "quota": quota}
    for within in ("nearest", "farthest", "random")
    for quota in ("proportional", "equal")
]


@pytest.mark.parametrize("params", CHOICES)
def test_blocks_and_the_order_of_the_pool_change_nothing(params):
    vectors = np.random.default_rng(3).standard_normal((60, 5))
    vectors[30::3] = vectors[:10]
    vectors[7] = 0
    first = choose(world(25, vectors), clusters=6, **params)
    for block_rows in (1, 7, 60):
        second = choose(world(25, vectors, block_rows), clusters=6, **params)
        assert (second.rows.tolist(), second.diagnostics) == (first.rows.tolist(), first.diagnostics)
    order = np.random.default_rng(1).permutation(60)
    stored = choose(permuted(world(25, vectors), order), clusters=6, **params)
    assert order[stored.rows].tolist() == first.rows.tolist()
    assert (stored.reasons, stored.diagnostics) == (first.reasons, first.diagnostics)


@pytest.mark.parametrize("params", CHOICES)
def test_a_smaller_budget_is_a_beginning_of_a_larger_one(params):
    vectors = np.random.default_rng(4).standard_normal((50, 5))
    whole = choose(world(50, vectors), clusters=7, **params).rows.tolist()
    assert sorted(whole) == list(range(50))
    for budget in (1, 8, 31):
        assert choose(world(budget, vectors), clusters=7, **params).rows.tolist() == whole[:budget]


def test_rows_of_length_0_come_last_and_are_counted():
    vectors = np.eye(6)
    vectors[[1, 4]] = 0
    problem = world(5, vectors)
    answer = choose(problem, clusters=2)
    assert set(answer.rows[:4].tolist()) == {0, 2, 3, 5}
    assert answer.rows[4] == min((1, 4), key=lambda row: problem.keys[row])
    assert answer.reasons[4] == "filled=no_direction"
    assert answer.diagnostics["filled"] == {"no_direction": 1}
    assert sum(answer.diagnostics["sizes"]) == 4


@pytest.mark.parametrize("clusters", [1, 5, 100])
def test_a_pool_of_one_direction_or_of_none_comes_in_the_order_of_its_keys(clusters):
    for vectors in (np.zeros((9, 3)), np.ones((9, 3)), np.ones((1, 3))):
        problem = world(len(vectors), vectors)
        assert choose(problem, clusters=clusters).rows.tolist() == np.argsort(problem.keys).tolist()


def test_bad_input_is_refused():
    for params in ({"clusters": 0}, {"iterations": -1}):
        with pytest.raises(InputError, match=next(iter(params))):
            KMeansQuota(SPEC, **params)
    vectors = np.eye(6)
    vectors[[2, 4], 1] = np.inf
    with pytest.raises(InputError, match=r"2 of 6 candidate vectors.*row 2"):
        choose(world(1, vectors))


def test_clusters_of_nothing_are_one_empty_cluster():
    problem = world(1, np.zeros((3, 4)))
    rng = np.random.default_rng(0)
    found = clustered(problem, "representation", np.zeros(0, np.int64), 5, 3, rng)
    assert isinstance(found, Clusters)
    assert (found.count, found.cluster.tolist(), found.rounds) == (1, [0, 0, 0], 0)
