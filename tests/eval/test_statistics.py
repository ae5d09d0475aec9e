"""Worked numbers and laws of the statistics."""

import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from eval import statistics as stats
from warehouse.records import Estimate, Floats


def paired_example() -> tuple[np.ndarray, np.ndarray]:
    """200 items: 90 right by both, 22 by B alone, 8 by A alone."""
    a = np.r_[np.ones(90), np.zeros(22), np.ones(8), np.zeros(80)]
    b = np.r_[np.ones(90), np.ones(22), np.zeros(8), np.zeros(80)]
    return a, b


def test_paired_difference_of_two_runs() -> None:
    a, b = paired_example()
    found = stats.paired_bootstrap(b[None], a[None], np.random.default_rng(0))
    assert found.difference.value == pytest.approx(0.07)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.020, 0.125), abs=0.005)
    assert stats.standard_error(b - a) == pytest.approx(0.02700, abs=5e-6)
    assert math.hypot(stats.standard_error(a), stats.standard_error(b)) == pytest.approx(0.04994, abs=5e-6)
    assert found.p == pytest.approx(0.01612, abs=5e-6)
    assert found.test == "mcnemar"
    assert found.variance == pytest.approx(200 * 0.02700**2, rel=1e-3)
    assert found.verdict == "better"


def test_standard_error_of_a_share() -> None:
    assert stats.standard_error(np.r_[np.ones(27), np.zeros(73)]) == pytest.approx(0.0446196043, abs=1e-10)


def test_clustered_standard_error_is_twice_the_naive_one() -> None:
    values = np.repeat([1.0] * 20 + [0.0] * 20, 5)
    assert stats.standard_error(values) == pytest.approx(0.03544, abs=5e-6)
    clustered = stats.clustered_standard_error(values, np.repeat(np.arange(40), 5))
    assert clustered == pytest.approx(0.08006, abs=5e-6)
    assert clustered * math.sqrt(39 / 40) == pytest.approx(0.07906, abs=5e-6)


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 9)), min_size=2, max_size=30))
def test_items_of_their_own_are_clusters_of_one(items: list[tuple[float, int]]) -> None:
    values, weights = (np.array(column, float) for column in zip(*items, strict=True))
    own = np.arange(len(values))
    assert stats.clustered_standard_error(values, own) == pytest.approx(stats.standard_error(values), abs=1e-9)
    scaled = stats.clustered_standard_error(values, own, 3 * weights)
    assert scaled == pytest.approx(stats.clustered_standard_error(values, own, weights), abs=1e-9)


@pytest.mark.parametrize(
    ("variance", "effect", "items"),
    [(1 / 9, 0.01, 8721), (1 / 9, 0.02, 2181), (1 / 9, 0.03, 969), (1 / 9, 0.05, 349), (0.2, 0.03, 1745)],
)
def test_items_needed(variance: float, effect: float, items: int) -> None:
    assert stats.items_needed(variance, effect) == items
    assert stats.minimum_detectable_effect(math.sqrt(variance / items)) == pytest.approx(effect, rel=2e-3)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    assert all(p <= q <= min(1.0, p * len(p_values)) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))


@given(st.floats(-0.3, 0.3), st.integers(0, 99))
def test_p_is_below_5_percent_where_the_interval_leaves_out_0(shift: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(shift, 1, (2, 50))
    found = stats.paired_bootstrap(values, np.zeros((2, 50)), np.random.default_rng(0), draws=999)
    outside = not found.difference.low <= 0 <= found.difference.high
    assert found.test == "bootstrap"
    assert found.p <= 0.054 if outside else found.p >= 0.046


def test_p_of_draws_by_hand() -> None:
    assert stats.p_of_draws(np.r_[np.full(9, -1.0), np.full(990, 1.0)]) == pytest.approx(2 * 10 / 1000)
    assert stats.p_of_draws(np.ones(999)) == pytest.approx(2 / 1000)
    assert stats.p_of_draws(np.zeros(999)) == 1.0


def test_dependent_items_have_no_exact_p() -> None:
    a, b = paired_example()
    pairs = np.repeat(np.arange(100), 2)
    found = stats.paired_bootstrap(a[None], b[None], np.random.default_rng(0), clusters=pairs)
    assert found.test == "bootstrap"


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric_and_a_probability(only_a: int, only_b: int) -> None:
    assert 0 < stats.mcnemar(only_a, only_b) <= 1
    assert stats.mcnemar(only_a, only_b) == stats.mcnemar(only_b, only_a)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(0, 5))
def test_bootstrap_holds_the_mean_and_repeats(values: list[float], seed: int) -> None:
    first = stats.bootstrap(values, np.random.default_rng(seed), draws=200)
    assert first == stats.bootstrap(values, np.random.default_rng(seed), draws=200)
    assert first.value == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-6 <= first.low <= first.value <= first.high <= max(values) + 1e-6


def test_weights_are_the_same_as_repeating_items() -> None:
    values, tokens = np.array([1.0, 4.0]), np.array([3.0, 1.0])
    assert stats.bootstrap(values, np.random.default_rng(0), tokens).value == pytest.approx(7 / 4)


def test_interval_covers_the_truth_about_19_times_in_20() -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(300):
        found = stats.bootstrap(rng.normal(size=60), rng, draws=400)
        inside += found.low <= 0 <= found.high
    assert 0.90 <= inside / 300 <= 0.98


def test_items_shared_by_all_seeds_are_drawn_together() -> None:
    """Three seeds that agree item by item know no more than one: nested draws would claim sqrt(3) less error."""
    scores = np.random.default_rng(1).normal(size=100)
    one = stats.paired_bootstrap(scores[None], np.zeros((1, 100)), np.random.default_rng(0))
    three = stats.paired_bootstrap(np.tile(scores, (3, 1)), np.zeros((3, 100)), np.random.default_rng(0))
    assert three.mde == pytest.approx(one.mde, rel=0.05)


def test_shares_of_none_and_all_are_not_certain() -> None:
    assert stats.share(50, 100) is None
    every, none = stats.share(100, 100), stats.share(0, 10)
    assert every is not None
    assert none is not None
    assert (every.low, every.value, every.high) == pytest.approx((0.9638, 1, 1), abs=5e-5)
    assert (none.low, none.value, none.high) == pytest.approx((0, 0, 0.3085), abs=5e-5)


def test_clusters_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(2).normal(size=40), 5)
    clustered = stats.bootstrap(values, np.random.default_rng(0), clusters=np.repeat(np.arange(40), 5))
    naive = stats.bootstrap(values, np.random.default_rng(0))
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(math.sqrt(5), rel=0.1)


def test_draws_do_not_depend_on_memory_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=50)
    monkeypatch.setattr(stats, "DRAW_BLOCK", 50 * 100)
    blocked = stats.bootstrap(values, np.random.default_rng(0), draws=1000)
    assert blocked.value == pytest.approx(values.mean())
    assert blocked.high - blocked.low == pytest.approx(2 * 1.96 * stats.standard_error(values), rel=0.15)


@pytest.mark.parametrize(
    ("low", "high", "by_seed", "higher_is_better", "verdict"),
    [
        (0.1, 0.3, (0.2, 0.19, 0.21), True, "better"),
        (0.1, 0.3, (0.2, 0.19, 0.21), False, "worse"),
        (-0.3, -0.1, (-0.2, -0.19, -0.21), False, "better"),
        (-0.3, -0.1, (-0.2, -0.19, -0.21), True, "worse"),
        (0.1, 0.3, (0.2,), True, "better"),  # one seed says nothing of seeds
        (
            -0.137,
            -0.017,
            (-0.059, -0.049, -0.117),
            False,
            "no difference shown (3 seeds alone allow -0.166 to +0.0162)",
        ),
        (0.1, 0.3, (0.5, -0.1), True, "no difference shown (MDE 0.07)"),
        (-0.1, 0.3, (0.2, 0.1), True, "no difference shown (MDE 0.07)"),
        (0.0, 0.3, (0.2, 0.1), True, "no difference shown (MDE 0.07)"),
    ],
)
def test_verdict(low: float, high: float, by_seed: tuple[float, ...], higher_is_better: bool, verdict: str) -> None:
    found = stats.Comparison(Estimate((low + high) / 2, low, high, 9), by_seed, 0.07, higher_is_better)
    assert found.verdict == verdict


def test_seeds_alone_have_students_interval() -> None:
    by_seed = (-0.059, -0.049, -0.117)
    found = stats.Comparison(Estimate(-0.075, -0.137, -0.017, 200), by_seed, 0.08, False).of_seeds
    expected = scipy.stats.t.interval(0.95, 2, np.mean(by_seed), scipy.stats.sem(by_seed))
    assert found == pytest.approx(expected)


def test_two_equal_methods_are_seldom_called_different() -> None:
    """Runs differ by their seed: the bootstrap's own interval leaves out 0 in about one of seven cases here."""
    rng = np.random.default_rng(0)

    def arm() -> Floats:
        right = np.linspace(0, 1, 1000) + rng.normal(0, 0.05, (3, 1))
        return (rng.random((3, 1000)) < right).astype(np.float64)

    found = [stats.paired_bootstrap(arm(), arm(), rng, draws=200) for _ in range(100)]
    told = sum(not each.verdict.startswith("no difference") for each in found)
    left_out = sum(not each.difference.low <= 0 <= each.difference.high for each in found)
    assert told <= 10 < left_out


def task(rng: np.random.Generator, n: int, gain: float, seeds: int = 3) -> stats.Paired:
    b = rng.normal(size=(seeds, n))
    return stats.Paired(b + gain + 0.1 * rng.normal(size=(seeds, n)), b)


def test_every_task_counts_alike_in_the_overall_mean() -> None:
    rng = np.random.default_rng(0)
    tasks = [task(rng, 400, 0.0), task(rng, 20, 0.6)]
    found = stats.overall_bootstrap(tasks, rng, draws=2000)
    assert found.difference.value == pytest.approx(0.3, abs=0.03)
    assert found.difference.n == 420
    assert found.difference.value == pytest.approx(np.mean(found.by_seed))
    assert found.verdict == "better"
    assert found.variance is None


def test_one_task_alone_is_its_own_mean() -> None:
    only = task(np.random.default_rng(1), 80, 0.1)
    overall = stats.overall_bootstrap([only], np.random.default_rng(2))
    alone = stats.paired_bootstrap(only.a, only.b, np.random.default_rng(3))
    assert overall.difference.value == pytest.approx(alone.difference.value)
    assert overall.by_seed == pytest.approx(alone.by_seed)
    assert overall.mde == pytest.approx(alone.mde, rel=0.05)


def test_the_mean_of_independent_tasks_is_surer_than_each_but_shared_seeds_are_not_averaged_out() -> None:
    rng = np.random.default_rng(4)
    items = [stats.Paired(rng.normal(size=(1, 100)), np.zeros((1, 100))) for _ in range(4)]
    alone = stats.overall_bootstrap(items[:1], rng)
    assert stats.overall_bootstrap(items, rng).mde == pytest.approx(alone.mde / 2, rel=0.15)
    effect = np.array([[-1.0], [0.0], [1.0]])  # of a seed, the same in every task
    seeds = [stats.Paired(np.zeros((3, 50)) + effect, np.zeros((3, 50))) for _ in range(4)]
    assert stats.overall_bootstrap(seeds, rng).mde == pytest.approx(
        stats.overall_bootstrap(seeds[:1], rng).mde, rel=0.05
    )


def test_tasks_with_other_seeds_have_no_mean() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"found \[1, 3\]"):
        stats.overall_bootstrap([task(rng, 5, 0), task(rng, 5, 0, seeds=1)], rng)
    with pytest.raises(ValueError, match="cannot be paired"):
        stats.Paired(np.zeros((1, 3)), np.zeros((1, 4)))


def test_no_difference_is_rarely_called_one() -> None:
    rng = np.random.default_rng(11)
    called = 0
    for _ in range(100):
        difficulty = rng.normal(size=60)
        a, b = difficulty + rng.normal(size=(3, 60)), difficulty + rng.normal(size=(3, 60))
        called += stats.paired_bootstrap(a, b, rng, draws=300).verdict in ("better", "worse")
    assert called <= 10


def test_three_seeds_of_200_items_take_under_a_second() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, (2, 3, 200)).astype(float)
    started = time.process_time()
    stats.paired_bootstrap(scores[0], scores[1], rng)
    assert time.process_time() - started < 1.0
