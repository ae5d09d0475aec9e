"""PASER: the graph and its clusters, phrases, budgets, and the order of rows."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from selection_worlds import permuted

from selection import spectral
from selection.concepts import LONGEST, STOP_WORDS, bucket, concepts, phrases, spec
from selection.mixing import poured
from selection.paser import Paser, Passed, cluster_means, consistent, efficiency, late
from selection.problem import InProcess, Problem
from selection.spectral import affinity, clusters, distinct, eigengap, k_means, leading, nearest_neighbours
from warehouse.errors import InputError
from warehouse.records import Spec, canonical

SPECS = (Spec("instructions"), Spec("degradation"), Spec("length"))
DIMS = 64


def around(angle, n, rng, spread=0.05):
    """n unit vectors in 4 dimensions about a direction in the plane of the first two."""
    angles = np.radians(angle) + spread * rng.standard_normal(n)
    points = np.stack([np.cos(angles), np.sin(angles), *(spread * rng.standard_normal((2, n)))], axis=1)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def world(budget=20, sizes=(30, 30, 30), hurt=(0.3, 0.1, 0.05), seed=0, block_rows=16_384, vectors=None):
    """Prompts in as many directions as there are sizes, each hurt by about as much as said."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    if vectors is None:
        vectors = np.vstack([around(70 * at, size, rng) for at, size in enumerate(sizes)])
    kind = np.repeat(np.arange(len(sizes)), sizes)
    about = csr_matrix((rng.random((n, DIMS)) < 0.03).astype(np.float32))
    order = rng.permutation(n)
    return Problem(
        budget=budget,
        keys=rng.permutation(10 * n)[:n].astype(np.uint64),
        candidates={
            "instructions": vectors[order],
            "degradation": (np.array(hurt)[kind] * rng.uniform(0.8, 1.2, n)).astype(np.float32)[order],
            "length": rng.integers(5, 500, n)[order],
            "concepts": about[order],
        },
        groups={"source": kind[order]},
        reducer=InProcess(block_rows),
    )


def choose(problem, seed=0, **params):
    return Paser(*SPECS, dims=DIMS, **params)(problem, np.random.default_rng(seed))


def agree(found, kind):
    """Whether two labellings are the same but for names."""
    pairs = set(zip(found.tolist(), kind.tolist(), strict=True))
    return len(pairs) == len(set(found.tolist())) == len(set(kind.tolist()))


# the graph


@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_neighbours_are_those_of_brute_force_whatever_the_blocks(v, k, seed):
    vectors = np.random.default_rng(seed).standard_normal((v, 5)).astype(np.float32)
    k = min(k, v - 1)
    rows = np.random.default_rng(seed).permutation(v)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectral, "QUERIES", 7)
        patch.setattr(spectral, "BLOCK", max(k, 9))
        places, cosines = nearest_neighbours(vectors, rows, k)
    units = vectors[rows].astype(float) / np.linalg.norm(vectors[rows].astype(float), axis=1, keepdims=True)
    every = units @ units.T
    np.fill_diagonal(every, -2)
    assert cosines == pytest.approx(np.sort(every, axis=1)[:, ::-1][:, :k], abs=1e-5)
    assert np.take_along_axis(every, places, axis=1) == pytest.approx(cosines, abs=1e-5)


def test_equal_cosines_are_taken_from_the_front():
    vectors = np.ones((20, 3), np.float32)
    places, _ = nearest_neighbours(vectors, np.arange(20), 3)
    assert places[10].tolist() == [0, 1, 2]
    assert places[1].tolist() == [0, 2, 3]


def test_affinity_is_symmetric_with_leading_eigenvalue_one():
    vectors = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    graph = affinity(*nearest_neighbours(vectors, np.arange(50), 6)).toarray()
    assert graph == pytest.approx(graph.T)
    assert np.linalg.eigvalsh(graph)[-1] == pytest.approx(1)
    # squared distances 2, 2 and 1: σ² = 2; one neighbour each, the graph is 0 - 1 - 2
    three = affinity(np.array([[1], [2], [1]]), np.array([[0.0], [0.0], [0.5]]))
    weak, strong = np.exp(-2 / 4), np.exp(-1 / 4)
    assert three[0, 1] == pytest.approx(weak / np.sqrt(weak * (weak + strong)))
    assert affinity(np.array([[1], [0]]), np.ones((2, 1))).toarray().tolist() == [[0, 1], [1, 0]]


def test_lanczos_agrees_with_the_whole_spectrum(monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
    graph = affinity(*nearest_neighbours(vectors, np.arange(400), 10))
    values, found = leading(graph, 6, np.random.default_rng(1))
    assert values == pytest.approx(np.linalg.eigvalsh(graph.toarray())[::-1][:6], abs=1e-8)
    assert graph @ found == pytest.approx(found * values, abs=1e-7)
    again = leading(graph, 6, np.random.default_rng(1))
    assert np.array_equal(found, again[1])


def test_the_eigengap_counts_what_stands_before_it():
    assert eigengap(np.array([1, 0.99, 0.98, 0.3, 0.1]), 4) == 3
    assert eigengap(np.array([1, 0.99, 0.9, 0.3, 0.1]), 2) == 2
    assert eigengap(np.array([1.0, 0.2, 0.1]), 2) == 1
    assert eigengap(np.array([1.0]), 5) == 1


def test_two_gaussians_and_a_bridge_are_two_clusters():
    rng = np.random.default_rng(0)
    bridge = np.vstack([around(angle, 1, rng, 0.0) for angle in np.linspace(10, 80, 8)])
    vectors = np.vstack([around(0, 150, rng), around(90, 150, rng), bridge])
    problem = world(1, (150, 150, 8), vectors=vectors)
    found = clusters(problem, "instructions", 15, None, 10, np.random.default_rng(0))
    assert found.count == 2
    ends = problem.groups["source"] < 2
    assert agree(found.of[ends], problem.groups["source"][ends])
    angle = np.degrees(np.arctan2(*problem.candidates["instructions"][~ends][:, 1::-1].T))
    near = np.sort(found.of[~ends][np.argsort(angle)])
    assert found.of[~ends][np.argsort(angle)].tolist() in (near.tolist(), near[::-1].tolist())


@pytest.mark.parametrize("size", [30, 200])
def test_separate_groups_are_found_by_either_solver(size):
    problem = world(1, (size, size, size))
    found = clusters(problem, "instructions", 10, None, 8, np.random.default_rng(0))
    assert found.count == 3
    assert agree(found.of, problem.groups["source"])
    assert found.eigenvalues[0] == pytest.approx(1)


def test_copies_are_one_vertex_and_zero_vectors_a_cluster_of_their_own():
    problem = world(1)
    vectors = problem.candidates["instructions"]
    vectors[:10] = 3 * vectors[10]
    vectors[20:25] = 0
    rows, of, zero = distinct(problem, "instructions")
    assert zero == 5
    assert len(rows) == 90 - 10 - 5
    assert len(set(of[:11].tolist())) == 1
    assert set(of[20:25].tolist()) == {-1}
    found = clusters(problem, "instructions", 10, None, 8, np.random.default_rng(0))
    assert found.count == 4
    assert set(found.of[20:25].tolist()) == {3} == set(np.flatnonzero(np.bincount(found.of) == 5).tolist())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_vertices_are_the_distinct_vectors_by_key(kinds):
    points = np.array([[1, 2, 0.5], [2, 1, 0.5], [0, 0, 0], [-1, 2, 0.5]], np.float32)[kinds]
    keys = np.random.default_rng(len(kinds)).permutation(100)[: len(kinds)].astype(np.uint64)
    rows, of, zero = distinct(Problem(1, keys, {"x": points}, reducer=InProcess(4)), "x")
    firsts = {
        kind: min(np.flatnonzero(np.array(kinds) == kind), key=lambda at: keys[at]) for kind in kinds if kind != 2
    }
    assert rows.tolist() == sorted(firsts.values(), key=lambda at: keys[at])
    assert [int(rows[at]) if at >= 0 else None for at in of] == [firsts.get(kind) for kind in kinds]
    assert zero == kinds.count(2)


def test_k_means_keeps_far_points_apart_and_may_leave_clusters_empty():
    rng = np.random.default_rng(0)
    points = np.vstack([centre + 0.01 * rng.standard_normal((20, 2)) for centre in ((0, 0), (5, 0), (0, 5))])
    assert agree(k_means(points, 3, rng), np.repeat(np.arange(3), 20))
    assert set(k_means(np.ones((6, 2)), 3, rng).tolist()) == {0}


# phrases


def test_phrases_are_runs_between_stop_words_and_punctuation():
    text = "Compatibility of systems of linear constraints over the set of natural numbers."
    assert phrases(text) == ["linear constraints", "natural numbers", "compatibility", "systems", "set"]


def test_words_of_long_phrases_score_more():
    # degree / frequency: sorting 3 / 2, algorithm 2, list 1
    assert phrases("list; sorting algorithm; sorting") == ["sorting algorithm", "sorting", "list"]


@pytest.mark.parametrize("text", ["", "  ...  ", "the of and", "12 34, 56"])
def test_texts_without_a_phrase(text):
    assert phrases(text) == []


def test_case_and_forms_of_letters_fold_and_lines_end_phrases():
    assert phrases("Gröẞe\nﬁnal") == ["grösse", "final"]
    assert phrases("don’t panic") == ["panic"]
    assert phrases(" ".join("bcdefgh"[: LONGEST + 1])) == []
    assert len(phrases(". ".join(f"word{at}x" for at in range(40)))) == 12
    assert "the" in STOP_WORDS


def test_concepts_are_buckets_of_phrases_and_never_move():
    rows = concepts(["Sort a list. Sort a list.", "", "natural numbers"], 1 << 20)
    assert rows.shape == (3, 1 << 20)
    assert rows[0].indices.tolist() == sorted(bucket(phrase, 1 << 20) for phrase in ("sort", "list"))
    assert rows.data.tolist() == [1] * 3
    assert rows[1].nnz == 0
    assert bucket("natural numbers", 1 << 20) == 230_600
    assert spec(8).key != spec(9).key
    with pytest.raises(InputError, match="dims is 0"):
        concepts(["x"], 0)
    assert concepts([], 8).shape == (0, 8)


# budgets and order


def test_efficiency_is_per_log_of_cost_and_defined_for_tiny_rows():
    hurt, tokens = np.full(5, 0.6), np.array([0, 1, 2, 10, 100])
    assert efficiency(hurt, tokens) == pytest.approx([0.6, 0.6, 0.6 / np.log(4), 0.6 / np.log(100), 0.6 / np.log(1e4)])
    assert np.all(np.diff(efficiency(np.full(500, 1.0), np.arange(500))) <= 0)


def test_budgets_follow_degradation_and_flow_on():
    hurt = cluster_means(np.array([0.2, 0.4, 0.1, 0.05]), np.array([0, 0, 1, 2]), 4)
    assert hurt == pytest.approx([0.3, 0.1, 0.05, 0])
    assert poured(hurt[:3], np.array([999, 999, 999]), 100).tolist() == [67, 22, 11]
    assert poured(hurt, np.array([7, 999, 999, 5]), 100).tolist() == [7, 62, 31, 0]


def test_rows_that_join_known_concepts_anew_are_put_off():
    about = csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]))
    passed = consistent(np.arange(6), np.zeros(6, np.int64), np.array([6]), about)
    assert passed.put_off.tolist() == [2]
    assert passed.taken.tolist() == [0, 1, 3, 4, 5]
    assert consistent(np.arange(6), np.zeros(6, np.int64), np.array([6]), None).taken.tolist() == list(range(6))
    full = consistent(np.arange(6), np.array([0, 0, 0, 1, 1, 1]), np.array([1, 2]), None)
    assert full.taken.tolist() == [0, 3, 4]


def test_each_cluster_is_filled_from_what_it_put_off():
    passed = Passed(taken=np.array([0, 1]), put_off=np.array([2, 3, 4, 5, 6]))
    cluster = np.array([0, 1, 0, 0, 1, 0, 1])
    assert late(passed, cluster, np.array([2, 3])).tolist() == [2, 4, 6]
    assert late(passed, cluster, np.array([4, 1])).tolist() == [2, 3, 5]


def test_the_hurt_cluster_gets_most_and_its_best_rows_come_first():
    problem = world(45)
    answer = choose(problem, consistency=False)
    kinds = problem.groups["source"][answer.rows]
    told = answer.diagnostics["clusters"]
    assert sorted(each["budget"] for each in told) == sorted(np.bincount(kinds, minlength=3).tolist())
    shares = np.array([each["degradation"] for each in told])
    quotas = shares / shares.sum() * 45
    assert np.abs(quotas - [each["budget"] for each in told]).max() < 1
    assert np.bincount(kinds).argmax() == 0
    assert np.all(np.diff(answer.scores) <= 0)
    for kind in range(3):
        inside = np.flatnonzero(problem.groups["source"] == kind)
        scores = efficiency(problem.candidates["degradation"].astype(float), problem.candidates["length"])[inside]
        best = inside[np.argsort(-scores)][: (kinds == kind).sum()]
        assert set(best.tolist()) == set(answer.rows[kinds == kind].tolist())


def test_what_is_inconsistent_fills_the_end_and_is_counted():
    answer = choose(world(80))
    filled = ["filled=inconsistent" in reason for reason in answer.reasons]
    count = answer.diagnostics["filled"]["inconsistent"]
    assert 0 < count <= answer.diagnostics["inconsistent"]
    assert filled == [False] * (80 - count) + [True] * count
    budgets = sorted(each["budget"] for each in answer.diagnostics["clusters"])
    assert budgets == sorted(each["budget"] for each in choose(world(80), consistency=False).diagnostics["clusters"])


@pytest.mark.parametrize("budget", [1, 40, 85, 86, 90])
def test_rows_without_a_reply_come_last(budget):
    problem = world(budget)
    problem.candidates["degradation"][[3, 9, 27, 60, 88]] = np.nan
    answer = choose(problem)
    assert len(set(answer.rows.tolist())) == budget
    assert answer.diagnostics["no_reply"] == 5
    late = [row for row, reason in zip(answer.rows, answer.reasons, strict=True) if "filled=no_reply" in reason]
    assert len(late) == max(budget - 85, 0) == answer.diagnostics["filled"]["no_reply"]
    assert answer.rows[-len(late) :].tolist() == late or not late
    assert np.isfinite(answer.scores).all()
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics


@pytest.mark.parametrize("seed", range(3))
def test_storage_and_blocks_change_nothing(seed):
    problem = world(30, seed=seed)
    order = np.random.default_rng(seed).permutation(90)
    ours, theirs = choose(problem), choose(permuted(problem, order))
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert ours.reasons == theirs.reasons
    assert ours.diagnostics == theirs.diagnostics
    blocked = choose(world(30, seed=seed, block_rows=7))
    assert np.array_equal(blocked.rows, ours.rows)
    assert blocked.diagnostics == ours.diagnostics


@pytest.mark.parametrize(
    "change",
    [
        {"instructions": np.ones((90, 4), np.float32)},
        {"instructions": np.zeros((90, 4), np.float32)},
        {"degradation": np.zeros(90, np.float32)},
        {"degradation": np.full(90, 0.2, np.float32)},
        {"length": np.ones(90, np.int64)},
        {"concepts": csr_matrix(np.ones((90, DIMS), np.float32))},
        {"concepts": csr_matrix((90, DIMS), dtype=np.float32)},
    ],
)
@pytest.mark.parametrize("budget", [1, 90])
def test_signals_that_say_nothing_still_meet_the_budget(change, budget):
    problem = world(budget)
    problem.candidates.update(change)
    answer = choose(problem)
    assert len(set(answer.rows.tolist())) == budget


def test_equal_rows_come_by_key_and_one_row_is_enough():
    problem = world(90)
    problem.candidates.update(
        instructions=np.ones((90, 4), np.float32),
        degradation=np.full(90, 0.2),
        length=np.full(90, 7),
        concepts=csr_matrix(np.ones((90, DIMS), np.float32)),
    )
    assert np.array_equal(choose(problem).rows, np.argsort(problem.keys))
    assert choose(world(1, (1,), (0.1,))).rows.tolist() == [0]
    assert len(choose(world(2, (2,), (0.1,))).rows) == 2


@pytest.mark.parametrize(
    ("signal", "value", "told"),
    [
        ("instructions", np.nan, "1 of 90 vectors in 'instructions'"),
        ("degradation", np.inf, "1 degradations are infinite or below 0, the first is row 4"),
        ("degradation", -0.5, "row 4 with -0.5"),
        ("length", -1, "row 4 has -1"),
    ],
)
def test_what_cannot_be_is_refused(signal, value, told):
    problem = world()
    problem.candidates[signal][4] = value
    with pytest.raises(InputError, match=told):
        choose(problem)


def test_a_pool_without_replies_and_wrong_parameters_are_refused():
    problem = world()
    problem.candidates["degradation"][:] = np.nan
    with pytest.raises(InputError, match="none of 90 rows"):
        choose(problem)
    for params in ({"clusters": 0}, {"most": 0}, {"neighbours": 0}, {"dims": 0}):
        with pytest.raises(InputError, match=next(iter(params))):
            Paser(*SPECS, **params)


def test_a_given_number_of_clusters_is_kept():
    assert len(choose(world(), clusters=5).diagnostics["clusters"]) == 5
    assert "concepts" not in Paser(*SPECS, consistency=False).reads
