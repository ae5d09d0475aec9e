"""Shares kept in two bytes: how near the codes are, and that what they leave out counts to second order only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import kept
from selection.kept import Kept
from selection.transport import Kernel, climb
from selection.transport_kernels import exponents, keep, recall

EPSILON = 0.1


def world(m=12, n=500, seed=0):
    """Costs (n, m) and masses."""
    rng = np.random.default_rng(seed)
    costs = np.square(rng.random((n, 1, 3)) - 1.2 * rng.random((1, m, 3))).sum(axis=2)
    return costs, rng.dirichlet(np.full(m, 3.0)), rng.dirichlet(np.full(n, 3.0))


def both(**more):
    """Kept shares, the same in float64, and the targets' masses."""
    costs, a, b = world(**more)
    exact = Kernel(costs.__getitem__, b, np.log(a), np.empty(costs.shape))
    exact.use(EPSILON)
    single = costs.astype(np.float32)
    return Kept(single.__getitem__, b, np.log(a), EPSILON, exact, np.empty(costs.shape, np.uint16)), exact, a


def moved(distance, m=12):
    return distance * np.random.default_rng(7).uniform(-0.5, 0.5, m)


@given(st.floats(2.0**-63, 1.0, width=32))
@settings(deadline=None)
def test_a_code_is_right_to_one_part_in_2048(share):
    shares, codes, sums = np.full((1, 1), share, np.float32), np.empty((1, 1), np.uint16), np.empty((2, 1), np.float32)
    one = np.ones(1, np.float32)
    keep(shares, one, codes, sums, np.zeros(1, np.float32), np.zeros(1, np.float32))
    assert sums[0, 0] == share
    assert abs(sums[1, 0] / share - 1) <= 2.0**-11
    again = np.empty(1, np.float32)
    recall(codes, one, one, again, np.zeros(1, np.float32))
    assert again[0] == sums[1, 0]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_exponents_are_numpys(m, b, seed, scale):
    """Whatever their signs: the largest of a row is 0, none is less than the least."""
    rng = np.random.default_rng(seed)
    costs, offsets = rng.normal(0, 10, (b, m)).astype(np.float32), rng.normal(0, 10, m).astype(np.float32)
    found, largest, before = np.empty_like(costs), np.empty(b, np.float32), costs.copy()
    exponents(costs, np.float32(scale), offsets, np.float32(-9), found, largest)
    expected = costs.astype(np.float64) * np.float32(scale) + offsets
    assert largest == pytest.approx(expected.max(axis=1), abs=1e-4)
    assert found == pytest.approx(np.maximum(expected - expected.max(axis=1)[:, None], -9), abs=1e-4)
    assert np.array_equal(costs, before)


@pytest.mark.parametrize("distance", [0.0, 0.5, 3.0, 7.0, 40.0])
def test_moments_and_prices_are_those_of_float64(distance):
    """At the prices it was made at, away from them, and where it is made anew."""
    ours, exact, _ = both()
    ours.at(np.zeros(12))
    h = moved(distance)
    moment, expected = ours.at(h), exact.at(h)
    limit = 1e-6 + 1e-5 * min(distance, 7)
    assert moment.usage == pytest.approx(expected.usage, abs=limit)
    assert moment.usage.sum() == pytest.approx(1, abs=1e-5)
    assert moment.softmin == pytest.approx(expected.softmin, abs=limit)
    assert ours.candidates(h) == pytest.approx(exact.candidates(h), abs=EPSILON * 1e-3)


def test_where_the_shares_are_made_their_rounding_does_not_count():
    """Codes alone give masses 1e-6 and more away; with the correction what is left is float32's."""
    ours, exact, _ = both()
    h = moved(2.0)
    made = ours.at(h)
    assert np.abs(ours.rest).max() > 1e-6
    assert made.usage == pytest.approx(exact.at(h).usage, abs=2e-7)
    near = ours.at(h + 1e-12)
    assert near.usage == pytest.approx(made.usage, abs=2e-7)
    assert near.softmin == pytest.approx(made.softmin, abs=1e-6)
    assert ours.candidates(h) == pytest.approx(exact.candidates(h), abs=EPSILON * 1e-6)


def test_the_usage_is_the_slope():
    """Of the corrected softmin: without its linear term the two would differ by what the codes leave out."""
    ours, _, _ = both(n=4000)
    base = moved(1.0)
    ours.at(base)
    ours.rest = ours.rest + 1e-3 * np.linspace(-1, 1, 12)  # as if the codes left out much
    for i in (0, 5, 11):
        step = 0.05 * np.eye(12)[i]
        slope = (ours.at(base + step).softmin - ours.at(base - step).softmin) / 0.1
        assert slope == pytest.approx(-ours.at(base).usage[i], abs=1e-4)


def test_a_climb_ends_where_float64_does():
    ours, exact, a = both(n=3000)
    end, best = climb(ours, a, np.zeros(12), 1e-5), climb(exact, a, np.zeros(12), 1e-10)
    assert end.converged
    assert np.abs(exact.at(end.h).usage - a).sum() < 1e-5
    g, expected = ours.candidates(end.h), exact.candidates(best.h)
    assert g - g.mean() == pytest.approx(expected - expected.mean(), abs=EPSILON * 1e-3)


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(kept, "PASS_NUMBERS", 600)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr("selection.transport.cores", lambda threads=threads: threads)
        ours, _, _ = both(m=3000, n=300)
        made, passed = ours.at(np.zeros(3000)), ours.at(moved(1.0, 3000))
        found.append((made.usage, passed.usage, [made.softmin, passed.softmin]))
    assert all(np.array_equal(one, two) for one, two in zip(*found, strict=True))
