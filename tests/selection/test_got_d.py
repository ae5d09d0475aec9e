"""GOT-D against POT's duals and against worked pools, and the three ways its solver goes about a pool."""

import pickle

import numpy as np
import ot
import pytest
from selection_worlds import permuted, problem

from selection import got_d
from selection.cosine import GRID, unit_rows
from selection.got_d import GotD, Pairing, Streamed, by_turns, masses, reading, solve
from selection.problem import InProcess, Problem
from selection.survey import survey
from selection.targets import targets_of
from selection.transport import calibrated, transport
from warehouse.errors import InputError
from warehouse.records import Spec

SPEC = Spec("representation", {"model": "m"})
RNG = np.random.default_rng(0)


def choose(world, **params):
    return GotD(SPEC, **params)(world, RNG)


def pairing(world, weights="targets"):
    targets = targets_of(world, "representation")
    return Pairing(world, "representation", np.asarray(targets.values), masses(targets, weights))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def costs(world):
    candidates, targets = unit(world.candidates["representation"]), unit(world.targets["representation"])
    return np.square(targets[:, None].astype(np.float64) - candidates).sum(axis=2)


def even(k):
    return np.full(k, 1 / k)


def of(pool, targets, budget, **more):
    pool, targets = np.asarray(pool, np.float32), np.asarray(targets, np.float32)
    return Problem(
        budget=budget,
        keys=np.arange(len(pool), dtype=np.uint64),
        candidates={"representation": pool},
        targets={"representation": targets},
        target_task=np.zeros(len(targets), np.int64),
        **more,
    )


def cats_and_dogs(rng, n=600):
    """Two kinds of rows that have nothing in common, one in a hundred of the second; the targets are half and half."""
    kinds = np.eye(8, dtype=np.float32)[[0, 4]]
    is_dog = np.arange(n) % 100 == 7
    pool = kinds[is_dog.astype(int)] + 0.1 * rng.standard_normal((n, 8))
    targets = kinds[np.arange(20) % 2] + 0.1 * rng.standard_normal((20, 8))
    return pool, targets, np.flatnonzero(is_dog)


def test_scores_are_the_calibrated_duals_of_the_pool():
    world = problem(60)
    answer, matrix = choose(world), costs(world)
    epsilon = answer.diagnostics["epsilon"]
    assert answer.diagnostics["mean_cost"] == pytest.approx(matrix.mean(), rel=1e-6)
    assert epsilon == pytest.approx(0.05 * matrix.mean(), rel=1e-6)
    log = ot.sinkhorn(even(5), even(60), matrix, epsilon, "sinkhorn_log", stopThr=1e-12, numItermax=20_000, log=True)[1]
    g = np.empty(60)
    g[answer.rows] = answer.scores
    assert g == pytest.approx(calibrated(epsilon * log["log_v"]), abs=1e-6)
    assert answer.scores.sum() == pytest.approx(0, abs=1e-9)
    assert np.all(np.diff(answer.scores) >= 0)


def test_diagnostics_are_those_of_the_plan():
    world = problem(13)
    facts, matrix = choose(world).diagnostics, costs(world)
    duals = transport(matrix, even(5), even(60), facts["epsilon"])
    shares = np.exp((duals.f[:, None] + duals.g - matrix) / facts["epsilon"]) / 300
    assert facts["transport_cost"] == pytest.approx((shares * matrix).sum(), rel=1e-6)
    sizes = shares.sum(axis=1) ** 2 / np.square(shares).sum(axis=1)
    assert facts["effective_sample_size"]["least"] == pytest.approx(sizes.min(), rel=1e-4)
    assert facts["effective_sample_size"]["median"] == pytest.approx(np.median(sizes), rel=1e-4)
    assert facts["marginal_error"] < 1e-7
    assert facts["converged"] is True
    assert facts["way"] == "exact"
    assert (facts["overlap_rows"], facts["overlap_of"]) == (13, 60)


def test_overlaps_are_with_what_the_other_ways_choose():
    world = problem(13, n=200, m=6, d=4)
    answer, matrix = choose(world), costs(world)
    ours, shared = set(answer.rows.tolist()), answer.diagnostics["overlap"]
    half = choose(world, epsilon=0.025)
    nearest = np.argsort(matrix.min(axis=0))[:13]
    assert shared["half_epsilon"] == pytest.approx(len(ours & set(half.rows.tolist())) / 13, abs=1 / 13)
    assert shared["nearest"] == len(ours & set(nearest.tolist())) / 13
    assert shared["turns"] == len(ours & set(by_turns(matrix.T, 13).tolist())) / 13


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 0.001])
def test_the_rare_kind_that_the_targets_want_comes_first(epsilon):
    pool, targets, dogs = cats_and_dogs(RNG)
    answer = choose(of(pool, targets, len(dogs)), epsilon=epsilon)
    assert set(answer.rows.tolist()) == set(dogs.tolist())
    assert answer.scores.max() < 0


def test_contrast_takes_the_other_end():
    """With the bad examples as targets, the rows whose weight would bring the pool nearest to them come last."""
    pool, targets, dogs = cats_and_dogs(RNG)
    usual, contrast = choose(of(pool, targets, 600)), choose(of(pool, targets, 600), contrast=True)
    assert np.array_equal(contrast.rows, usual.rows[::-1])
    assert set(contrast.rows[-len(dogs) :].tolist()) == set(dogs.tolist())
    assert (usual.diagnostics["direction"], contrast.diagnostics["direction"]) == (
        "lower is better",
        "higher is better",
    )
    assert contrast.diagnostics["cut_off"] == contrast.scores.min()
    assert usual.diagnostics["cut_off"] == usual.scores.max()
    assert "turns" not in contrast.diagnostics["overlap"]


def test_every_task_may_weigh_the_same():
    world = problem(10, m=4, tasks=[0, 0, 0, 1])
    assert pairing(world).a.tolist() == [0.25] * 4
    assert pairing(world, "tasks").a == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    answer, matrix = choose(world, weights="tasks"), costs(world)
    g = transport(matrix, np.array([1, 1, 1, 3]) / 6, even(60), answer.diagnostics["epsilon"]).g
    assert answer.scores == pytest.approx(calibrated(g)[answer.rows], abs=1e-6)


def test_reasons_name_the_target_that_pays_most():
    world = problem(60, m=7, tasks=[3, 1, 1, 3, 0, 1, 3])
    answer, matrix = choose(world), costs(world)
    f = transport(matrix, even(7), even(60), answer.diagnostics["epsilon"]).f
    expected = (f[:, None] - matrix).argmax(axis=0)[answer.rows]
    assert answer.reasons == tuple(f"target={t} task=task_{world.target_task[t]}" for t in expected)


@pytest.mark.parametrize("seed", range(3))
def test_storing_the_pool_otherwise_changes_no_bit(seed):
    """Rows are known by their keys: scores and reasons follow them, whatever the order and the blocks."""
    world = problem(23, n=90, seed=seed, distinct=30)
    order = np.random.default_rng(seed).permutation(90)
    ours, theirs = choose(world), choose(permuted(world, order))
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert np.array_equal(ours.scores, theirs.scores)
    assert ours.reasons == theirs.reasons
    assert ours.diagnostics == theirs.diagnostics
    blocked = choose(problem(23, n=90, seed=seed, distinct=30, block_rows=7))
    assert np.array_equal(blocked.rows, ours.rows)
    assert np.array_equal(blocked.scores, ours.scores)
    assert blocked.diagnostics == ours.diagnostics


@pytest.fixture
def large(monkeypatch):
    """A pool that is treated as a large one: solved in float32 from the prices of a sample."""
    monkeypatch.setattr(got_d, "EXACT_NUMBERS", 0)
    monkeypatch.setattr(got_d, "SAMPLE_NUMBERS", 400 * 12)
    monkeypatch.setattr(got_d, "KEPT_SAMPLE_NUMBERS", 400 * 12)
    monkeypatch.setattr(got_d, "LEAST_SAMPLE", 400)
    monkeypatch.setattr(got_d, "REMEMBERED", 1000 * 12)  # the costs of the sample, not those of the pool
    return problem(150, n=3000, m=12, d=10, block_rows=700)


@pytest.mark.parametrize("epsilon", [0.05, 0.01])
def test_kept_and_streamed_shares_and_float64_agree(large, epsilon):
    """On prices, each row's by 1e-4 of their largest, and on the rows chosen, but for near ties."""
    world = pairing(large)
    absolute = epsilon * world.mean_cost(survey(large, "representation"))
    exact = calibrated(transport(costs(large), even(12), even(3000), absolute).g)
    for memory, way in ((2 * 12 * 3000, "kept"), (2 * 12 * 3000 - 1, "streamed")):
        solution = solve(world, absolute, memory)
        assert solution.way == way
        assert solution.end.converged
        values = calibrated(reading(world, solution.end.h, absolute).g)
        assert np.abs(values - exact).max() < 1e-4 * np.abs(exact).max()
    answers = [choose(large, epsilon=epsilon, memory_mb=memory) for memory in (0, 1)]
    assert [answer.diagnostics["way"] for answer in answers] == ["streamed", "kept"]
    best = np.argsort(exact)[:150]
    for answer in answers:
        assert len(np.intersect1d(answer.rows, best)) >= 148
        assert answer.diagnostics["marginal_error"] < 1e-4
        assert answer.diagnostics["overlap_of"] < 3000


def test_kept_shares_do_not_see_the_order_of_the_rows(large):
    order = np.random.default_rng(0).permutation(3000)
    ours, theirs = choose(large), choose(permuted(large, order))
    assert ours.diagnostics["way"] == "kept"
    assert np.array_equal(ours.rows, order[theirs.rows])
    assert np.array_equal(ours.scores, theirs.scores)


def test_streamed_blocks_change_little(large):
    """Sums of float32 over other blocks round otherwise: prices agree to that, rows but for near ties."""
    other = Problem(
        large.budget, large.keys, large.candidates, large.targets, large.target_task, reducer=InProcess(block_rows=311)
    )
    ours, theirs = choose(large, memory_mb=0), choose(other, memory_mb=0)
    assert len(np.intersect1d(ours.rows, theirs.rows)) >= 148
    assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def test_a_streamed_pass_is_the_kept_one(large):
    world = pairing(large)
    kernel = world.kernel(large.by_key, np.empty((3000, 12)))
    kernel.use(0.1)
    h = np.linspace(-2, 2, 12)
    streamed, kept = Streamed(world, 0.1, kernel).at(h), kernel.at(h)
    assert streamed.usage == pytest.approx(kept.usage, abs=1e-6)
    assert streamed.softmin == pytest.approx(kept.softmin, rel=1e-6)


class PickledBlocks:
    """Runs each block as another process would: the work and its answer travel as bytes."""

    def __call__(self, candidates, n, per_block, merge):
        work = pickle.loads(pickle.dumps(per_block))
        answers = [pickle.loads(pickle.dumps(work(block))) for block in InProcess(700).blocks(candidates, n)]
        total = answers[0]
        for answer in answers[1:]:
            total = merge(total, answer)
        return total


def test_blocks_may_be_worked_on_elsewhere(large):
    other = Problem(
        large.budget, large.keys, large.candidates, large.targets, large.target_task, reducer=PickledBlocks()
    )
    ours, theirs = choose(large, memory_mb=0), choose(other, memory_mb=0)
    assert np.array_equal(ours.rows, theirs.rows)


@pytest.mark.parametrize("contrast", [False, True])
def test_copies_everywhere_come_in_the_order_of_their_keys(contrast):
    world = problem(60, distinct=1)
    answer = choose(world, contrast=contrast)
    assert np.array_equal(answer.rows, np.argsort(world.keys))
    assert answer.scores == pytest.approx(np.zeros(60), abs=1e-12)


def test_a_pool_that_equals_its_only_target():
    answer = choose(of(np.ones((5, 3)), np.ones((1, 3)), 5))
    assert answer.rows.tolist() == [0, 1, 2, 3, 4]
    assert answer.scores == pytest.approx(np.zeros(5), abs=1e-6)
    assert answer.diagnostics["mean_cost"] == 0
    assert answer.diagnostics["epsilon"] == 0.05


def test_one_target_ranks_by_the_distance_to_it():
    world = problem(60, m=1)
    assert np.array_equal(choose(world).rows, np.argsort(costs(world)[0]))


def test_one_row():
    answer = choose(of(np.ones((1, 3)), np.eye(3), 1))
    assert (answer.rows.tolist(), answer.scores.tolist()) == ([0], [0.0])


def test_more_targets_than_rows():
    world = problem(4, n=4, m=30)
    answer = choose(world)
    g = transport(costs(world), even(30), even(4), answer.diagnostics["epsilon"]).g
    assert answer.scores == pytest.approx(np.sort(calibrated(g)), abs=1e-6)


def test_rows_of_length_0_are_as_far_as_a_right_angle_from_everything():
    world = problem(60)
    world.candidates["representation"][[4, 9]] = 0
    answer = choose(world)
    assert answer.diagnostics["rows_of_length_0"] == 2
    matrix = 2 - 2 * unit_rows(world.targets["representation"]).values @ (
        unit_rows(world.candidates["representation"]).values.T / GRID**2
    )
    g = transport(matrix, even(5), even(60), answer.diagnostics["epsilon"]).g
    assert answer.scores == pytest.approx(calibrated(g)[answer.rows], abs=1e-6)


def test_rows_that_are_no_numbers_are_an_error():
    world = problem(5, block_rows=8)
    world.candidates["representation"][[21, 22, 50]] = np.nan
    with pytest.raises(InputError, match=r"3 of 60 candidate vectors .* the first is row 21"):
        choose(world)


@pytest.mark.parametrize("params", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"epsilon": 1e-6}, {"epsilon": 11.0}])
def test_an_epsilon_out_of_range_is_an_error(params):
    with pytest.raises(InputError, match=r"give 0.001 to 10"):
        GotD(SPEC, **params)


def test_memory_below_0_is_an_error():
    with pytest.raises(InputError, match="memory_mb is -1"):
        GotD(SPEC, memory_mb=-1)


def test_turns_take_the_nearest_left():
    matrix = np.array([[0.1, 0.2], [0.2, 0.1], [0.3, 0.15], [0.9, 0.9]])
    assert by_turns(matrix, 3).tolist() == [0, 1, 2]
    assert by_turns(np.repeat(matrix[:, :1], 2, axis=1), 4).tolist() == [0, 1, 2, 3]
