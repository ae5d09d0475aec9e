"""The mixture nearest to a target: against the linear programme over shares and plan, and its laws."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from selection.advice import Evidence
from selection.ot_mixture import OtMixture, distance_to, nearest, places, question_of
from selection.projektor import Projektor, best_mixture
from selection.transport import transport
from warehouse.errors import InputError

SIZES = (10, 15, 20)
SOURCE_OF = np.repeat(np.arange(3), SIZES)


def generic(seed=0, m=12):
    """Sources around three points of the plane, the target anywhere, all of uneven masses: nothing ties."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((3, 2))[SOURCE_OF] + 0.5 * rng.standard_normal((len(SOURCE_OF), 2))
    targets = rng.standard_normal((m, 2))
    return np.square(targets[:, None] - rows).sum(axis=2), rng.dirichlet(np.full(m, 3.0))


def programme(costs, source_of, a):
    """The least cost of unregularised transport over plans and shares at once, and the shares."""
    (m, n), s = costs.shape, source_of.max() + 1
    mixing = np.eye(s)[source_of] / np.bincount(source_of)[source_of, None]
    sums = np.vstack(
        [
            np.hstack([np.kron(np.eye(m), np.ones(n)), np.zeros((m, s))]),
            np.hstack([np.kron(np.ones(m), np.eye(n)), -mixing]),
        ]
    )
    price = np.concatenate([costs.ravel(), np.zeros(s)])
    found = linprog(price, A_eq=sums, b_eq=np.concatenate([a, np.zeros(n)]), method="highs")
    return found.fun, found.x[-s:]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planted(share, seed=0, d=16, m=100, sizes=(150, 200)):
    """Evidence of two sources, and a target that is drawn from both, `share` of it from the first."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((2, d)))
    first = round(share * m)
    kinds = [np.repeat([0, 1], counts) for counts in (sizes, (first, m - first))]
    rows, targets = (unit(centres[kind] + rng.standard_normal((len(kind), d)) / np.sqrt(d)) for kind in kinds)
    return Evidence(
        ("a", "b"),
        np.array(sizes),
        budget=100,
        costs=2 - 2 * targets @ rows.T,
        source_of=np.array(["a", "b"])[kinds[0]],
        keys=rng.permutation(np.arange(sum(sizes), dtype=np.uint64)),
    )


ADVISE = OtMixture(epsilon=0.05, resamples=20)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_as_good_as_the_programme(seed):
    costs, a = generic(seed)
    least, shares = programme(costs, SOURCE_OF, a)
    found = nearest(question_of(costs, SOURCE_OF, a), 1e-4)
    assert least <= found.objective <= least + 1e-3
    assert found.shares == pytest.approx(shares, abs=1e-6)
    assert 0 <= found.gap < 1e-7


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.03]))
@example(55, 0.03)  # one source alone, far from the mixture before it
@settings(max_examples=20, deadline=None)
def test_no_mixture_is_nearer_by_more_than_the_gap(seed, epsilon):
    costs, a = generic(seed, m=6)
    found = nearest(question_of(costs, SOURCE_OF, a), epsilon)
    distance = distance_to(costs, SOURCE_OF, a, epsilon)
    assert found.shares.sum() == pytest.approx(1)
    assert distance(found.shares)[0] == pytest.approx(found.objective, abs=1e-9)
    assert found.gap <= 1e-4 * epsilon
    for shares in (*np.eye(3), *np.random.default_rng(seed).dirichlet(np.ones(3), 3)):
        assert distance(shares)[0] >= found.objective - found.gap - 1e-9


@pytest.mark.parametrize("epsilon", [0.3, 0.01])
def test_the_gradient_is_that_of_differences(epsilon):
    costs, a = generic()
    distance = distance_to(costs, SOURCE_OF, a, epsilon)
    shares, delta = np.array([0.5, 0.3, 0.2]), 1e-5
    value, gradient = distance(shares)
    assert shares @ gradient == pytest.approx(value)
    for way in ([1, -1, 0], [0, 1, -1]):
        step = delta * np.array(way)
        slope = (distance(shares + step)[0] - distance(shares - step)[0]) / (2 * delta)
        assert gradient @ way == pytest.approx(slope, abs=1e-6)


def test_on_the_border_the_gradient_is_that_of_the_first_grain():
    costs, a = generic()
    distance = distance_to(costs, SOURCE_OF, a, 0.1)
    shares, grain = np.array([0.4, 0.6, 0.0]), 1e-6
    value, gradient = distance(shares)
    more = distance((1 - grain) * shares + grain * np.array([0, 0, 1.0]))[0]
    assert (more - value) / grain == pytest.approx(gradient[2] - gradient @ shares, abs=1e-4)


def test_the_distance_is_that_of_transport_and_forgets_what_it_was_asked_before():
    costs, a = generic()
    distance = distance_to(costs, SOURCE_OF, a, 0.1)
    asked = [np.array([0.2, 0.3, 0.5]), np.array([1.0, 0.0, 0.0]), np.array([0.2, 0.3, 0.5])]
    for shares, (value, gradient) in [(shares, distance(shares)) for shares in asked]:
        b = (shares / SIZES)[SOURCE_OF]
        duals = transport(costs, a, b, 0.1)
        assert value == pytest.approx(duals.objective(a, b), abs=1e-8)
        assert gradient == pytest.approx([duals.g[source == SOURCE_OF].mean() for source in range(3)], abs=1e-7)


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_the_distance_is_convex(seed, way):
    costs, a = generic(seed % 7, m=6)
    distance = distance_to(costs, SOURCE_OF, a, 0.05)
    one, two = np.random.default_rng(seed).dirichlet(np.ones(3), 2)
    between = distance(way * one + (1 - way) * two)[0]
    assert between <= way * distance(one)[0] + (1 - way) * distance(two)[0] + 1e-9


def test_targets_without_weight_take_no_part():
    costs, a = generic()
    a[[0, 4]] = 0
    some = a > 0
    ours = nearest(question_of(costs, SOURCE_OF, a), 0.1)
    alone = nearest(question_of(costs[some], SOURCE_OF, 7 * a[some]), 0.1)
    assert ours.shares == pytest.approx(alone.shares)
    assert ours.objective == pytest.approx(alone.objective)


@pytest.mark.parametrize(("share", "seed"), [(0.3, 0), (0.3, 1), (0.7, 2)])
def test_planted_shares_are_found(share, seed):
    advice = ADVISE(planted(share, seed))
    assert advice.shares["a"].low <= share <= advice.shares["a"].high
    assert advice.shares["b"].low <= 1 - share <= advice.shares["b"].high
    assert advice.shares["a"].value == pytest.approx(share, abs=0.05)
    assert 0 < advice.shares["a"].high - advice.shares["a"].low < 0.4
    assert not [remark for remark in advice.warnings if remark.reason != "no_clear_gain"]


def test_a_gain_that_is_clear_and_one_that_is_not():
    far, even = ADVISE(planted(0.0)), ADVISE(planted(0.5))
    assert far.shares["b"].value == pytest.approx(1, abs=1e-3)
    assert far.forecasts["gain over even"].low > 0
    assert not far.warnings or all(remark.reason != "no_clear_gain" for remark in far.warnings)
    assert [remark.reason for remark in even.warnings] == ["no_clear_gain"]
    gain = far.forecasts["even"].value - far.forecasts["advised"].value
    assert far.forecasts["gain over even"].value == pytest.approx(gain)


def test_a_source_that_is_the_target_gets_all():
    rng = np.random.default_rng(0)
    target = unit(rng.standard_normal((25, 8)))
    rows = np.vstack([unit(rng.standard_normal((40, 8))), target])
    evidence = Evidence(
        ("other", "same"),
        np.array([40, 25]),
        costs=2 - 2 * target @ rows.T,
        source_of=np.repeat(["other", "same"], [40, 25]),
        keys=np.arange(65, dtype=np.uint64),
    )
    advice = OtMixture(resamples=20)(evidence)
    assert advice.shares["same"].value > 0.999
    assert advice.shares["same"].high > 0.99


def test_one_source_gets_all():
    world = planted(0.3)
    advice = ADVISE(
        Evidence(("a",), np.array([350]), costs=world.costs, source_of=np.full(350, "a"), keys=world.keys, budget=351)
    )
    assert (advice.shares["a"].value, advice.shares["a"].low, advice.shares["a"].high) == (1, 1, 1)
    assert advice.diagnostics["iterations"] == 1
    repeated = next(remark for remark in advice.warnings if remark.reason == "rows_repeated")
    assert repeated.detail == "351 rows of a are wanted, it has 350"


def test_two_sources_alike_are_as_good_in_any_shares():
    costs, a = generic()
    twice, source_of = np.hstack([costs[:, :10]] * 2), np.repeat([0, 1], 10)
    found = nearest(question_of(twice, source_of, a), 0.1)
    assert found.shares == pytest.approx([0.5, 0.5])
    assert found.gap == pytest.approx(0, abs=1e-12)


def test_storing_the_rows_otherwise_changes_no_bit():
    world, order = planted(0.3), np.random.default_rng(0).permutation(350)
    other = Evidence(
        world.sources,
        world.available,
        world.budget,
        costs=world.costs[:, order],
        source_of=world.source_of[order],
        keys=world.keys[order],
    )
    ours = ADVISE(world)
    assert ours.as_json() == ADVISE(other).as_json()
    assert json.loads(json.dumps(ours.as_json())) == ours.as_json()
    assert OtMixture(epsilon=0.05, resamples=20, seed=1)(world).shares["a"].value == ours.shares["a"].value
    assert OtMixture(epsilon=0.05, resamples=20, seed=1)(world).shares["a"] != ours.shares["a"]


def test_equal_costs_leave_nothing_to_choose():
    world = planted(0.5)
    equal = Evidence(
        world.sources, world.available, costs=np.zeros((3, 350)), source_of=world.source_of, keys=world.keys
    )
    advice = ADVISE(equal)
    assert advice.shares["a"].value == pytest.approx(0.5)
    assert [remark.reason for remark in advice.warnings] == ["no_clear_gain"]


def test_projektor_searches_along_the_distance():
    """A metric that is a line in the distance is best where the distance is least."""
    costs, a = generic()
    distance = distance_to(costs, SOURCE_OF, a, 0.1)
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 6)
    away = np.array([distance(shares)[0] for shares in mixtures])
    runs = Evidence(
        ("a", "b", "c"),
        np.full(3, 10**6),
        budget=4000,
        sizes=np.repeat([500.0, 2000.0], 6),
        shares=np.vstack([mixtures, mixtures]),
        values=np.concatenate([2 + away, 1.5 + away]),
        distances=np.concatenate([away, away]),
        distance=distance,
    )
    advice = Projektor(surface="line", restarts=0, resamples=20)(runs)
    best = nearest(question_of(costs, SOURCE_OF, a), 0.1)
    assert [share.value for share in advice.shares.values()] == pytest.approx(best.shares, abs=1e-2)
    value, shares = best_mixture(distance, mixtures[:1])
    assert value == pytest.approx(best.objective, abs=1e-6)
    assert shares == pytest.approx(best.shares, abs=1e-2)


def test_places_are_those_of_the_names():
    assert places(("b", "a"), np.array(["a", "b", "a"])).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="rows are of c, but the sources are b, a"):
        places(("b", "a"), np.array(["c", "b"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": np.full((12, 45), np.nan)}, "540 costs are NaN or infinite"),
        ({"target_weights": np.zeros(12)}, "masses of the targets"),
        ({"target_weights": np.full(12, -1.0)}, "masses of the targets"),
        ({"source_of": np.repeat([0, 2], [20, 25])}, r"\[20, 0, 25\] rows with costs"),
        ({"source_of": np.zeros(0, np.int64), "costs": np.zeros((12, 0))}, "each needs at least 1"),
        ({"costs": np.zeros((3001, 45)), "target_weights": np.ones(3001)}, "3001 targets; draw at most 3000"),
    ],
)
def test_what_is_no_problem_is_an_error(change, message):
    costs, a = generic()
    with pytest.raises(InputError, match=message):
        question_of(**{"costs": costs, "source_of": SOURCE_OF, "target_weights": a, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": None}, "needs costs between rows and targets"),
        ({"sources": ("a", "b", "c"), "available": np.array([1, 1, 1])}, "no row of c has costs"),
        ({"sources": ("a", "c")}, "rows are of b"),
    ],
)
def test_evidence_that_does_not_do_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        ADVISE(replace(planted(0.3), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": np.zeros((3, 349))}, r"costs are \(3, 349\) for 350 rows"),
        ({"target_weights": np.ones(99)}, r"100 targets have costs but \(99,\) weights"),
    ],
)
def test_evidence_that_does_not_fit_is_a_mistake_of_the_caller(change, message):
    with pytest.raises(ValueError, match=message):
        replace(planted(0.3), **change)


@pytest.mark.parametrize("params", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"epsilon": 2.0}, {"resamples": 19}])
def test_parameters_out_of_range_are_an_error(params):
    with pytest.raises(InputError, match="ot_mixture: "):
        OtMixture(**params)
