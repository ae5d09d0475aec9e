"""TSDS: the transport plan against the released code's heap, densities by brute force, and the draw."""

import heapq
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reply_worlds import SPEC, obeys_the_laws, same, world

from selection.cosine import cosines, unit_rows
from selection.problem import Problem
from selection.tsds import Tsds, densities, distances, transport
from warehouse.errors import InputError
from warehouse.records import canonical

RNG = np.random.default_rng(0)


def by_heap(distance, density, alpha, c):
    """The walk in the released code's way, with the next row's distance looked up as it goes; masses (M, k)."""
    m, k = distance.shape
    heap = [(1 / density[j, 0], 0, j) for j in range(m)]
    heapq.heapify(heap)
    weighted, cost, taken, spread = distance[:, 0] / density[:, 0], np.zeros(m), [0] * m, 0.0
    while heap:
        spread, place, j = heapq.heappop(heap)
        cost[j] = distance[j, min(place + 1, k - 1)] * spread - weighted[j]
        if alpha / c * cost.sum() >= (1 - alpha) * m:
            break
        taken[j] = place + 1
        if place < k - 1:
            heapq.heappush(heap, (spread + 1 / density[j, place + 1], place + 1, j))
            weighted[j] += distance[j, place + 1] / density[j, place + 1]
    masses = np.zeros((m, k))
    for j in range(m):
        for place in range(taken[j]):
            masses[j, place] = 1 / (m * spread * density[j, place])
        masses[j, min(taken[j], k - 1)] += max(1 / m - masses[j].sum(), 0)
    return masses, spread


def lists(seed, m, k):
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0, 1.4, (m, k)), axis=1), 1 + rng.exponential(1, (m, k))


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 9), st.floats(0, 1), st.floats(0.01, 9))
@settings(max_examples=150, deadline=None)
def test_the_plan_is_that_of_the_heap(seed, m, k, alpha, c):
    distance, density = lists(seed, m, k)
    plan = transport(distance, density, alpha, c)
    masses, spread = by_heap(distance, density, alpha, c)
    assert plan.masses.sum() == pytest.approx(1)
    assert plan.masses.sum(axis=1) == pytest.approx(np.full(m, 1 / m))
    assert plan.masses == pytest.approx(masses, abs=1e-9)
    assert plan.spread == pytest.approx(spread)


def test_alpha_1_sends_all_to_the_nearest_row():
    distance, density = lists(0, 4, 9)
    plan = transport(distance, density, 1.0, 5.0)
    assert plan.masses[:, 0] == pytest.approx(np.full(4, 1 / 4))
    assert np.count_nonzero(plan.masses) == 4


def test_alpha_0_spreads_evenly_over_all_rows_in_reach():
    distance, _ = lists(0, 4, 9)
    assert transport(distance, np.ones((4, 9)), 0.0, 5.0).masses == pytest.approx(np.full((4, 9), 1 / 36))


def test_the_support_grows_as_alpha_falls():
    distance, density = lists(1, 5, 40)
    supports = [np.count_nonzero(transport(distance, density, alpha, 5.0).masses) for alpha in (0.99, 0.9, 0.7, 0.4)]
    assert supports == sorted(supports)
    assert len(set(supports)) == 4


def test_the_plan_is_a_cheapest_one():
    """No other even spread does better: cost alpha / c <distance, mass> + (1 - alpha) max of mass times density k."""
    distance, density = lists(3, 1, 12)

    def price(masses, alpha):
        return alpha / 5 * (distance * masses).sum() + (1 - alpha) * (masses * density).max()

    for alpha in (0.5, 0.9, 0.97):
        plan, best = transport(distance, density, alpha, 5.0), np.inf
        for limit in np.linspace(1 / (1 / density).sum(), density[0, 0], 4000):
            masses = np.diff(np.minimum(np.cumsum(limit / density), 1), prepend=0)
            best = min(best, price(masses, alpha))
        assert price(plan.masses, alpha) <= best + 1e-6


def problem(pool, targets, budget, **extra):
    return Problem(
        budget=budget,
        keys=np.random.default_rng(0).permutation(len(pool)).astype(np.uint64),
        candidates={"representation": np.asarray(pool, np.float32)},
        targets={"representation": np.asarray(targets, np.float32)},
        target_task=np.zeros(len(targets), np.int64),
        **extra,
    )


@pytest.mark.parametrize("most", [1, 3, 40])
def test_densities_by_brute_force(most):
    rng = np.random.default_rng(2)
    pool = rng.standard_normal((40, 3)).astype(np.float32)
    pool[5:9] = pool[4]
    made = problem(pool, pool[:1], 1)
    rows = np.sort(rng.choice(40, 25, replace=False))
    units = unit_rows(pool[rows]).values
    kernel = np.maximum(0, 1 - distances(cosines(units, units)) ** 2 / 0.75**2)
    expected = np.sort(kernel, axis=1)[:, ::-1][:, :most].sum(axis=1)
    assert densities(made, "representation", rows, np.arange(25), 0.75, most) == pytest.approx(np.maximum(expected, 1))
    assert densities(made, "representation", rows, np.array([3, 8]), 0.75, most) == pytest.approx(expected[[3, 8]])
    assert densities(made, "representation", rows, np.arange(9), 0.0, most).tolist() == [1] * 9


def test_copies_of_a_row_share_its_mass():
    """Of two rows equally near, the one that is there ten times gets a tenth for each copy."""
    pool = [[1, 0.1]] + [[1, -0.1]] * 10 + [[-1, 0]] * 5
    pool = np.array([[*row, 0.0] for row in pool])
    pool[1:11, 2], pool[11:, 2] = 0, 1
    answer = Tsds(SPEC, alpha=0.05, sigma=0.05, max_k=11, sample=False)(problem(pool, [[1, 0, 0]], 16), RNG)
    mass = np.zeros(16)
    mass[answer.rows] = answer.scores
    assert mass[0] == pytest.approx(0.5, rel=1e-4)
    assert mass[1:11] == pytest.approx(np.full(10, 0.05), rel=1e-4)
    assert answer.rows[0] == 0
    assert answer.diagnostics["filled"] == {"probability_0": 5}
    assert all(reason.endswith("filled=probability_0") for reason in answer.reasons[-5:])
    assert answer.diagnostics["near_duplicates"] == pytest.approx(90 / 11, rel=1e-4)


def test_rows_are_drawn_in_proportion_to_their_probability():
    made = replace(world(1, tasks=None), budget=1)
    method = Tsds(SPEC, alpha=0.9)
    exact = Tsds(SPEC, alpha=0.9, sample=False)(replace(made, budget=60), RNG)
    expected = np.zeros(60)
    expected[exact.rows] = exact.scores
    drawn = [method(made, np.random.default_rng(seed)).rows[0] for seed in range(600)]
    seen = np.bincount(drawn, minlength=60) / 600
    assert expected.sum() == pytest.approx(1)
    assert seen == pytest.approx(expected, abs=4 * np.sqrt(expected.max() / 600))
    assert not seen[expected == 0].any()


def test_rows_of_no_probability_come_by_similarity():
    made = world(60, tasks=None)
    answer = Tsds(SPEC, alpha=1.0)(made, RNG)
    products = cosines(
        unit_rows(made.targets["representation"]).values, unit_rows(made.candidates["representation"]).values
    )
    support = answer.diagnostics["support"]
    assert support <= 5
    rest = [row for row in np.argsort(-products.max(axis=0)) if row not in answer.rows[:support]]
    assert answer.rows[support:].tolist() == rest
    assert answer.diagnostics["mass_chosen"] == pytest.approx(1)


@pytest.mark.parametrize(
    "method", [Tsds(SPEC), Tsds(SPEC, sample=False, max_k=7, kde_k=3, sigma=1.2), Tsds(SPEC, alpha=1)]
)
def test_the_laws(method):
    answer = obeys_the_laws(method)
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics


def test_the_worlds_edges_have_an_answer():
    one = problem([[1, 2]], [[2, 1], [1, 1], [0, 1]], 1)
    assert Tsds(SPEC)(one, RNG).rows.tolist() == [0]
    assert Tsds(SPEC)(one, RNG).scores == pytest.approx([1])
    zero = problem(np.zeros((6, 2)), [[1, 1]], 6)
    assert Tsds(SPEC, sample=False)(zero, RNG).rows.tolist() == np.argsort(zero.keys).tolist()
    same = problem(np.ones((6, 2)), [[1, 1]], 3)
    assert Tsds(SPEC, sample=False)(same, RNG).scores == pytest.approx(np.full(3, 1 / 6))
    capped = problem(np.eye(5), [[1, 1, 1, 1, 1]], 2)
    assert Tsds(SPEC, max_k=3, alpha=0.0)(capped, RNG).diagnostics["targets_at_max_k"] == 1


def test_what_cannot_be_compared_is_an_error():
    made = world(5)
    made.candidates["representation"][[4, 7], 0] = np.nan
    with pytest.raises(InputError, match=r"2 of 60 candidate vectors .* the first is row 4"):
        Tsds(SPEC)(made, RNG)
    with pytest.raises(InputError, match="no target was given"):
        Tsds(SPEC)(replace(made, targets={}, target_task=np.zeros(0, np.int64)), RNG)
    for wrong in ({"alpha": 1.5}, {"c": 0.0}, {"sigma": -1.0}, {"max_k": 0}, {"kde_k": 0}):
        with pytest.raises(InputError, match="|".join(wrong)):
            Tsds(SPEC, **wrong)


@pytest.mark.parametrize("alpha", [0.02, 0.3, 0.6, 0.95])
def test_lists_are_walked_as_far_as_it_takes(alpha, monkeypatch):
    made = world(40, tasks=None)
    whole = Tsds(SPEC, alpha=alpha, sample=False)(made, RNG)
    monkeypatch.setattr("selection.tsds.START", 1)
    assert same(whole, Tsds(SPEC, alpha=alpha, sample=False)(made, RNG))
