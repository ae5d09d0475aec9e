"""Transport duals against the linear programme, against Sinkhorn, against finite differences, and their laws."""

from itertools import pairwise

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from selection.transport import Duals, Kernel, _two_loops, anneal, calibrated, chunks_of, climb, transport
from warehouse.errors import InputError

X, Y = np.array([0.0, 10.0]), np.array([0.0, 1.0, 10.0])
WORKED = (X[:, None] - Y) ** 2
HALF, THIRD = np.full(2, 1 / 2), np.full(3, 1 / 3)


def generic(m, n, seed=0):
    """Costs and masses without ties, so that the programme has one pair of prices."""
    rng = np.random.default_rng(seed)
    costs = np.square(rng.random((m, 1, 3)) - 1.2 * rng.random((1, n, 3))).sum(axis=2) * 3
    return costs, rng.dirichlet(np.full(m, 3.0)), rng.dirichlet(np.full(n, 3.0))


def centred(g):
    return g - g.mean()


def programme(costs, a, b):
    """The cost of unregularised transport."""
    m, n = costs.shape
    sums = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    return linprog(costs.ravel(), A_eq=sums, b_eq=np.concatenate([a, b]), method="highs").fun


def test_the_worked_example():
    duals = transport(WORKED, HALF, THIRD, 1e-3)
    assert duals.objective(HALF, THIRD) == pytest.approx(41 / 3, abs=1e-3)
    assert calibrated(duals.g) == pytest.approx([39.5, 41.0, -80.5], abs=2e-3)
    assert duals.g - duals.g[0] == pytest.approx([0, 1, -80], abs=2e-3)
    assert duals.f[1] - duals.f[0] == pytest.approx(80, abs=2e-3)
    assert duals.f.mean() == pytest.approx(0, abs=1e-9)
    assert np.argmin(calibrated(duals.g)) == 2


def test_the_worked_example_is_what_the_programme_says():
    _, log = ot.emd(HALF, THIRD, WORKED, log=True)
    assert log["u"] == pytest.approx([-33.1667, 46.8333], abs=1e-4)
    assert log["v"] == pytest.approx([33.1667, 34.1667, -46.8333], abs=1e-4)
    assert calibrated(log["v"]) == pytest.approx([39.5, 41.0, -80.5])


@pytest.mark.parametrize("epsilon", [0.3, 1e-3])
def test_calibrated_gradients_are_finite_differences(epsilon):
    """Mass is added to one candidate and taken from all the others in equal parts."""
    costs, a, b = generic(7, 11)
    gradients, n, delta = calibrated(transport(costs, a, b, epsilon).g), len(b), 1e-6
    for j in range(n):
        ways = []
        for sign in (1, -1):
            moved = b + sign * delta * np.where(np.arange(n) == j, 1.0, -1 / (n - 1))
            ways.append(transport(costs, a, moved, epsilon).objective(a, moved))
        assert (ways[0] - ways[1]) / (2 * delta) == pytest.approx(gradients[j], abs=1e-5)


def plan(costs, duals, a, b):
    """π (m, n) of `duals`, for masses that sum to 1; its sums over the targets are exactly b."""
    return a[:, None] * b * np.exp((duals.f[:, None] + duals.g - costs) / duals.epsilon)


def test_gradients_are_the_programmes_own_where_epsilon_is_small():
    costs, a, b = generic(7, 11)
    gradients, n, delta = calibrated(transport(costs, a, b, 1e-5).g), len(b), 1e-4
    for j in range(n):
        moved = b + delta * np.where(np.arange(n) == j, 1.0, -1 / (n - 1))
        assert (programme(costs, a, moved) - programme(costs, a, b)) / delta == pytest.approx(gradients[j], abs=1e-3)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.floats(-50, 50))
def test_calibration_sums_to_0_ranks_alike_and_sees_no_constant(values, constant):
    g = np.array(values)
    v = calibrated(g)
    assert v.sum() == pytest.approx(0, abs=1e-9)
    assert calibrated(g + constant) == pytest.approx(v, abs=1e-9)
    assert np.all(np.diff(v[np.argsort(g, kind="stable")]) >= 0)


def test_the_only_candidate_has_gradient_0():
    assert calibrated(np.array([7.0])).tolist() == [0.0]


@pytest.mark.parametrize(("m", "n"), [(7, 11), (30, 4), (12, 90)])
def test_duals_approach_the_programmes(m, n):
    costs, a, b = generic(m, n)
    exact = centred(ot.emd(a, b, costs, log=True)[1]["v"])
    errors = [np.abs(centred(transport(costs, a, b, epsilon).g) - exact).max() for epsilon in (1, 0.03, 1e-3, 1e-4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2e-3


@pytest.mark.parametrize("epsilon", [1.0, 0.3, 0.1])
@pytest.mark.parametrize(("m", "n"), [(7, 11), (40, 200), (25, 3)])
def test_equals_sinkhorn(m, n, epsilon):
    """POT's scaling v has the masses in it: g = ε log v − ε log b, which uneven masses show."""
    costs, a, b = generic(m, n)
    log = ot.sinkhorn(a, b, costs, epsilon, "sinkhorn_log", stopThr=1e-11, numItermax=50_000, log=True)[1]
    duals = transport(costs, a, b, epsilon)
    assert centred(duals.g) == pytest.approx(centred(epsilon * (log["log_v"] - np.log(b))), abs=1e-7)
    assert centred(duals.f) == pytest.approx(centred(epsilon * (log["log_u"] - np.log(a))), abs=1e-7)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 1000), st.sampled_from([1.0, 0.1, 0.01, 1e-3]))
@settings(max_examples=40, deadline=None)
def test_the_plan_has_both_margins(m, n, seed, epsilon):
    costs, a, b = generic(m, n, seed)
    duals = transport(costs, a, b, epsilon)
    shares = plan(costs, duals, a, b)
    assert shares.sum(axis=0) == pytest.approx(b, abs=1e-12)
    assert shares.sum(axis=1) == pytest.approx(a, abs=1e-7)
    assert duals.marginal_error == pytest.approx(np.abs(shares.sum(axis=1) - a).sum(), abs=1e-9)
    penalty = (shares * np.log(np.maximum(shares, 1e-300) / np.outer(a, b))).sum()
    assert duals.objective(a, b) == pytest.approx((shares * costs).sum() + epsilon * penalty, abs=1e-7)


def test_even_masses_where_the_prices_are_not_unique():
    """As many targets as candidates: the prices are feasible and prove the cost, whichever they are."""
    costs = generic(6, 6)[0]
    even = np.full(6, 1 / 6)
    duals = transport(costs, even, even, 1e-4)
    assert np.all(duals.f[:, None] + duals.g <= costs + 1e-3)
    assert duals.objective(even, even) == pytest.approx(programme(costs, even, even), abs=1e-3)


def test_entries_without_mass_take_no_part():
    costs, a, b = generic(5, 8)
    a[2], b[[0, 4]] = 0, 0
    some, has = a > 0, b > 0
    duals = transport(costs, a, b, 0.2)
    alone = transport(costs[np.ix_(some, has)], a[some], b[has], 0.2)
    assert duals.f[some] == pytest.approx(alone.f, abs=1e-9)
    assert duals.g[has] == pytest.approx(alone.g, abs=1e-9)
    grain_a, grain_b = np.maximum(a, 1e-12), np.maximum(b, 1e-12)
    grain = transport(costs, grain_a, grain_b, 0.2)
    assert centred(duals.f) == pytest.approx(centred(grain.f), abs=1e-6)
    assert centred(duals.g) == pytest.approx(centred(grain.g), abs=1e-6)


def test_an_epsilon_that_underflows_everywhere_still_works():
    costs, a, b = generic(4, 30)
    epsilon = 1e-5 * costs.mean()
    assert np.exp(-np.delete(costs, costs.argmin()) / epsilon).max() < 1e-5
    duals = transport(1e4 * costs, a, b, 1e4 * epsilon)
    assert duals.marginal_error < 1e-9
    assert duals.objective(a, b) == pytest.approx(1e4 * programme(costs, a, b), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_equal_costs_give_equal_prices(value):
    duals = transport(np.full((3, 5), value), np.full(3, 1 / 3), np.full(5, 1 / 5), 0.1)
    assert duals.g == pytest.approx(np.full(5, value))
    assert duals.f == pytest.approx(np.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": np.array([[0, np.nan, 1.0], [0, np.inf, 1.0]])}, "2 costs are NaN or infinite"),
        ({"a": np.array([1.0, -0.5])}, "masses of the targets"),
        ({"b": np.zeros(3)}, "masses of the candidates"),
        ({"b": np.array([1, np.nan, 1])}, "masses of the candidates"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": np.nan}, "epsilon is nan"),
    ],
)
def test_what_is_no_problem_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        transport(**{"costs": WORKED, "a": HALF, "b": THIRD, "epsilon": 0.1, **change})


def test_costs_of_another_shape_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match=r"costs are \(3, 2\)"):
        transport(WORKED.T, HALF, THIRD, 0.1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_kernel_follows_prices_however_far_they_move(kind):
    """It is used away from where it was made, and made anew where that would leave the range of its type."""
    costs, a, b = generic(6, 400)
    rows = np.ascontiguousarray(costs.T)
    kernel = Kernel(rows.__getitem__, b, np.log(a), np.empty(rows.shape, kind))
    kernel.use(0.05)
    for distance in (0.0, 3.0, 15.0, 200.0):
        h = distance * np.array([0.5, -0.2, 0.1, 0.0, -0.5, 0.3])
        exponents = h + np.log(a) - rows / 0.05
        weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        usage = b @ (weights / weights.sum(axis=1, keepdims=True))
        softmin = -b @ (exponents.max(axis=1) + np.log(weights.sum(axis=1)))
        moment = kernel.at(h)
        assert moment.usage == pytest.approx(usage, abs=1e-6)
        assert moment.softmin == pytest.approx(softmin, rel=1e-5)
        assert b @ kernel.candidates(h) == pytest.approx(0.05 * softmin, rel=1e-5)


def test_the_curvature_is_the_slope_of_the_slope():
    costs, a, b = generic(6, 400)
    rows = np.ascontiguousarray(costs.T)
    kernel = Kernel(rows.__getitem__, b, np.log(a), np.empty(rows.shape))
    kernel.use(0.3)
    h, curvature = np.linspace(-1, 1, 6), kernel.curvature(np.linspace(-1, 1, 6))
    for i in range(6):
        nudge = 1e-5 * np.eye(6)[i]
        slope = (kernel.at(h + nudge).usage - kernel.at(h - nudge).usage) / 2e-5
        assert curvature[i] == pytest.approx(slope, abs=1e-8)


def test_many_targets_are_climbed_by_the_diagonal(monkeypatch):
    """Without the (m, m) curvature the pairs of L-BFGS must do; the maximum is the same."""
    costs, a, b = generic(20, 300)
    rows = np.ascontiguousarray(costs.T)
    monkeypatch.setattr("selection.transport.NEWTON_TARGETS", 10)
    kernel = Kernel(rows.__getitem__, b, np.log(a), np.empty(rows.shape))
    h = anneal(kernel, a, 1.0, 0.1)
    assert kernel.curvature(h).shape == (20,)
    end = climb(kernel, a, h, 1e-7)
    assert end.converged
    assert centred(kernel.candidates(end.h)) == pytest.approx(centred(transport(costs, a, b, 0.1).g), abs=1e-6)


def test_two_loops_satisfy_the_last_pair():
    """The direction for the last bend is the last step, whatever the metric."""

    class Twice:
        def solve(self, slope):
            return 2 * slope

    rng = np.random.default_rng(0)
    pairs = [(step, step + 0.1 * rng.random(4)) for step in rng.random((3, 4))]
    assert _two_loops(Twice(), pairs[-1][1], pairs) == pytest.approx(pairs[-1][0])


@given(st.integers(1, 10_000), st.integers(1, 50_000))
def test_chunks_cover_every_row_once(n, m):
    parts = list(chunks_of(n, m))
    assert parts[0].start == 0
    assert parts[-1].stop == n
    assert all(one.stop == two.start for one, two in pairwise(parts))


def test_duals_state_their_objective():
    assert Duals(np.array([1.0, 3.0]), np.array([2.0]), 0.1, 0.0, 1).objective(HALF, np.ones(1)) == 4.0
