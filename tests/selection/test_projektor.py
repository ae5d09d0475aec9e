"""projektor: fitted surfaces over mixtures, the line through sizes, the search on the simplex."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.advice import Evidence
from selection.projektor import (
    Projektor,
    best_mixture,
    columns,
    fit_surfaces,
    line_weights,
    on_surface,
    onto_simplex,
    rank_needed,
)
from warehouse.errors import InputError

CENTRE = np.array([0.5, 0.3, 0.2])
POINTS = st.lists(st.floats(-5, 5), min_size=1, max_size=6).map(np.array)


def distance(shares):
    """A smooth convex stand-in for the transport distance, and its gradient."""
    away = shares - CENTRE[: len(shares)]
    value = float(np.sqrt(0.1 + away @ away))
    return value, away / value


def planted(surface="pq_ot", s=3):
    """Coefficients at ln N = 0 and per unit of ln N."""
    rng = np.random.default_rng(5)
    count = 2 if surface == "line" else 4 * s
    return 1 + rng.random(count), -0.05 * rng.random(count)


def evidence(surface="pq_ot", s=3, sizes=(500, 1000, 2000), mixtures=30, noise=0.0, budget=8000, seed=1, **more):
    rng = np.random.default_rng(seed)
    shares = np.vstack([rng.dirichlet(np.ones(s), mixtures)] * len(sizes))
    each = np.repeat(np.array(sizes, float), mixtures)
    distances = np.array([distance(row)[0] for row in shares])
    start, per_log = planted(surface, s)
    values = (columns(shares, distances, surface) * (start + np.log(each)[:, None] * per_log)).sum(axis=1)
    return Evidence(
        sources=tuple("abc"[:s]),
        available=np.full(s, 10**6),
        budget=budget,
        sizes=each,
        shares=shares,
        values=values + noise * rng.standard_normal(len(values)),
        distances=distances,
        distance=distance,
        **more,
    )


def truth(shares, n, surface="pq_ot"):
    start, per_log = planted(surface, len(shares))
    return float(columns(shares[None], np.array([distance(shares)[0]]), surface)[0] @ (start + np.log(n) * per_log))


def test_worked_numbers_of_two_pilots():
    sizes, values = np.array([1000.0, 1500.0]), np.array([0.6, 0.7])
    assert line_weights(10_000, sizes) @ values == pytest.approx(1.1678874, abs=5e-8)
    assert line_weights(1000, sizes) @ values == pytest.approx(0.6)
    assert line_weights(1500, sizes) @ values == pytest.approx(0.7)
    assert line_weights(10_000, sizes) @ (2 - 0.1 * np.log(sizes)) == pytest.approx(1.0789660, abs=5e-8)


def test_two_pilots_close_together_amplify_noise():
    weights = line_weights(10_000, np.array([1000.0, 1500.0]))
    assert weights == pytest.approx([-4.68, 5.68], abs=5e-3)
    assert np.linalg.norm(weights) == pytest.approx(7.4, abs=0.05)


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=6, unique=True), st.floats(1, 1e7), st.floats(-2, 2))
@settings(max_examples=80, deadline=None)
def test_a_line_in_the_logarithm_is_projected_exactly(sizes, n, slope):
    sizes = np.array(sizes)
    if np.ptp(np.log(sizes)) > 0.1:
        weights = line_weights(n, sizes)
        assert weights.sum() == pytest.approx(1, abs=1e-8)
        assert weights @ (3 + slope * np.log(sizes)) == pytest.approx(3 + slope * np.log(n), abs=1e-6)


def test_three_sizes_are_the_least_squares_line():
    sizes, values = np.array([100.0, 400, 900]), np.array([3.0, 2.0, 1.8])
    expected = np.polyval(np.polyfit(np.log(sizes), values, 1), np.log(5000))
    assert line_weights(5000, sizes) @ values == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "nearest"),
    [((0.2, -0.1, 0.5, 0.4), (1 / 6, 0, 7 / 15, 11 / 30)), ((0.5, 0.5, 0.5), (1 / 3, 1 / 3, 1 / 3)), ((7.0,), (1.0,))],
)
def test_worked_projections_onto_the_simplex(point, nearest):
    assert onto_simplex(np.array(point)) == pytest.approx(nearest, abs=1e-12)


@given(POINTS)
@settings(max_examples=150, deadline=None)
def test_projection_lands_on_the_simplex_nearest_and_stays(point):
    found = onto_simplex(point)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert onto_simplex(found) == pytest.approx(found, abs=1e-9)
    corners = np.eye(len(point))
    # nearest: no corner lies on the far side (the variational inequality of a projection)
    assert ((point - found) @ (corners - found).T).max() <= 1e-9


@pytest.mark.parametrize("surface", ["pq_ot", "line"])
def test_the_gradient_is_that_of_the_surface(surface):
    rng = np.random.default_rng(2)
    slope = on_surface(rng.standard_normal(2 if surface == "line" else 12), surface, distance)
    shares = np.array([0.2, 0.5, 0.3])
    gradient = slope(shares)[1]
    for at, step in enumerate(np.eye(3) * 1e-5):
        difference = (slope(shares + step)[0] - slope(shares - step)[0]) / 2e-5
        assert gradient[at] == pytest.approx(difference, abs=1e-6)


def test_the_search_finds_an_inner_point_and_a_corner():
    inner = best_mixture(distance, np.eye(3))
    assert inner[1] == pytest.approx(CENTRE, abs=1e-5)
    corner = best_mixture(lambda p: (float(p @ [3.0, 1.0, 2.0]), np.array([3.0, 1.0, 2.0])), np.full((1, 3), 1 / 3))
    assert corner[1] == pytest.approx([0, 1, 0], abs=1e-9)


def test_restarts_leave_a_local_minimum():
    def wells(shares):
        """Two corners are minima, the second deeper."""
        return float(-(shares[0] ** 2) - 2 * shares[1] ** 2), np.array([-2 * shares[0], -4 * shares[1], 0.0])

    assert best_mixture(wells, np.array([[0.9, 0.05, 0.05]]))[1] == pytest.approx([1, 0, 0])
    starts = np.vstack([[0.9, 0.05, 0.05], np.random.default_rng(0).dirichlet(np.ones(3), 8)])
    assert best_mixture(wells, starts)[1] == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("surface", ["pq_ot", "line"])
@pytest.mark.parametrize("s", [2, 3])
def test_planted_surfaces_are_recovered(surface, s):
    runs = evidence(surface, s)
    fit = fit_surfaces(runs.sizes, runs.shares, runs.distances, runs.values, surface)
    assert np.abs(fit.residuals).max() < 1e-9
    for shares in np.random.default_rng(8).dirichlet(np.ones(s), 5):
        here = columns(shares[None], np.array([distance(shares)[0]]), surface)[0]
        assert here @ fit.at(9000.0) == pytest.approx(truth(shares, 9000.0, surface), rel=1e-8)
    if surface == "line" or s == 3:  # with two sources p1² - p2² = p1 - p2: no one set of coefficients
        start, per_log = planted(surface, s)
        assert fit.at(9000.0) == pytest.approx(start + np.log(9000) * per_log, rel=1e-6)
    assert np.linalg.matrix_rank(columns(runs.shares, runs.distances, surface)) == rank_needed(s, surface)


def test_advice_finds_the_planted_optimum_and_its_value():
    advice = Projektor(resamples=20)(evidence(noise=1e-5))
    shares = np.array([share.value for share in advice.shares.values()])
    grid = [np.array([i, j, 60 - i - j]) / 60 for i in range(61) for j in range(61 - i)]
    best = min(grid, key=lambda each: truth(each, 8000))
    assert shares == pytest.approx(best, abs=0.02)
    assert advice.forecasts["advised"].value == pytest.approx(truth(best, 8000), abs=2e-3)
    assert advice.forecasts["even"].value == pytest.approx(truth(np.full(3, 1 / 3), 8000), abs=1e-3)
    assert advice.forecasts["gain over even"].low > 0
    assert not advice.refusals


def test_higher_is_better_turns_the_search_round():
    runs = evidence(noise=1e-5)
    turned = replace(runs, values=-runs.values, direction="higher is better", metric="accuracy")
    ours, theirs = Projektor(resamples=20)(runs), Projektor(resamples=20)(turned)
    for name, share in ours.shares.items():
        assert theirs.shares[name].value == pytest.approx(share.value, abs=1e-4)
    assert theirs.forecasts["gain over even"].value == pytest.approx(ours.forecasts["gain over even"].value, abs=1e-6)
    assert "bounded_metric" in [remark.reason for remark in theirs.warnings]


def test_intervals_grow_with_noise_and_hold_the_truth():
    clean, noisy = (Projektor("line", resamples=60)(evidence("line", noise=noise)) for noise in (0.001, 0.01))
    widths = [advice.forecasts["even"].high - advice.forecasts["even"].low for advice in (clean, noisy)]
    assert widths[1] == pytest.approx(10 * widths[0], rel=0.01)
    even = truth(np.full(3, 1 / 3), 8000, "line")
    assert noisy.forecasts["even"].low <= even <= noisy.forecasts["even"].high


def test_about_95_of_100_intervals_hold_the_truth():
    even, held = np.full(3, 1 / 3), 0
    here = columns(even[None], np.array([distance(even)[0]]), "line")[0]
    for seed in range(200):
        runs = evidence("line", noise=0.01, seed=seed, mixtures=10)
        fit = fit_surfaces(runs.sizes, runs.shares, runs.distances, runs.values, "line")
        draws = fit.draws(8000, 200, np.random.default_rng(seed)) @ here
        low, high = np.quantile(draws, [0.025, 0.975])
        held += low <= truth(even, 8000, "line") <= high
    assert 178 <= held <= 199  # 190 expected, standard deviation 3


def seeded(seed_sd, run_sd, world, seeds=2, mixtures=14):
    """Runs at 200 and 800 rows of every mixture with every seed; what a seed adds to all its runs has `seed_sd`."""
    rng = np.random.default_rng(world)
    runs = evidence("line", sizes=(200, 800), mixtures=mixtures * seeds, budget=1600, seed=world)
    first = np.tile(np.repeat(np.arange(mixtures), seeds), 2) + np.repeat([0, mixtures * seeds], mixtures * seeds)
    each = np.tile(np.arange(seeds), 2 * mixtures)
    noise = seed_sd * rng.standard_normal(seeds)[each] + run_sd * rng.standard_normal(len(each))
    return replace(
        runs,
        shares=runs.shares[first],
        distances=runs.distances[first],
        values=runs.values[first] + noise,
        seeds=each,
    )


@pytest.mark.parametrize(
    ("seed_sd", "run_sd", "seeds"), [(0.0, 0.02, 2), (0.02, 0.02, 2), (0.02, 0.005, 2), (0.02, 0.005, 4)]
)
def test_about_95_of_100_intervals_hold_the_truth_whatever_seeds_add(seed_sd, run_sd, seeds):
    even, tried = np.full(3, 1 / 3), np.array([0.7, 0.2, 0.1])
    here, there = (columns(each[None], np.array([distance(each)[0]]), "line")[0] for each in (even, tried))
    true, true_gain = truth(even, 1600, "line"), truth(even, 1600, "line") - truth(tried, 1600, "line")
    held = np.zeros(2)
    for world in range(150):
        runs, rng = seeded(seed_sd, run_sd, world, seeds), np.random.default_rng(world)
        fit = fit_surfaces(runs.sizes, runs.shares, runs.distances, runs.values, "line", runs.seeds)
        draws, shifts = fit.draws(1600, 200, rng), fit.shifts(1600, 200, rng)
        for at, (each, answer) in enumerate([(draws @ here + shifts, true), (draws @ (here - there), true_gain)]):
            low, high = np.quantile(each, [0.025, 0.975])
            held[at] += low <= answer <= high
    assert np.all(held >= 0.9 * 150)  # 142 expected, standard deviation 3


def test_what_a_seed_adds_to_all_runs_widens_levels_and_no_gain():
    alike, apart = (
        Projektor("line", restarts=0, resamples=60)(replace(runs, values=runs.values + added * runs.seeds))
        for runs in [seeded(0.0, 0.0005, 1)]
        for added in (0.0, 0.05)
    )
    gains, levels = (
        [advice.forecasts[name].high - advice.forecasts[name].low for advice in (alike, apart)]
        for name in ("gain over even", "even")
    )
    assert gains[1] == pytest.approx(gains[0], rel=1e-6)
    assert levels[1] > 5 * levels[0]
    assert levels[1] == pytest.approx(0.05 * 12.706, rel=0.15)  # two seeds: t of one degree, 2 · 0.05 / 2
    assert apart.diagnostics["seeds"] == 2
    for name, share in alike.shares.items():
        assert apart.shares[name].low == pytest.approx(share.low, abs=1e-6)


def test_more_seeds_narrow_the_levels():
    widths = [
        np.quantile(fit.shifts(1600, 200, np.random.default_rng(0)), 0.975)
        for seeds in (2, 3, 6)
        for runs in [seeded(0.02, 0.005, 3, seeds)]
        for fit in [fit_surfaces(runs.sizes, runs.shares, runs.distances, runs.values, "line", runs.seeds)]
    ]
    assert widths[0] > widths[1] > widths[2]


def test_one_seed_is_a_warning():
    runs = seeded(0.02, 0.005, 0)
    alone = replace(runs, seeds=np.full(runs.r, 7))
    by_size = replace(runs, seeds=(runs.sizes > 500).astype(np.int64))
    of_its_own = replace(runs, seeds=np.arange(runs.r))
    told = [
        [each.detail for each in Projektor("line", resamples=20)(one).warnings if each.reason == "one_seed"]
        for one in (alone, by_size, runs, of_its_own, replace(runs, seeds=None))
    ]
    assert "all runs have seed 7" in told[0][0]
    assert "do not tell the seeds [0, 1] apart" in told[1][0]
    assert told[2:] == [[], [], []]


def test_without_seeds_intervals_are_those_of_runs_alone():
    runs = seeded(0.0, 0.01, 4)
    advisor, of_one = Projektor("line", restarts=0, resamples=20), np.zeros(runs.r, np.int64)
    blind, alone = (advisor(replace(runs, seeds=seeds)).forecasts for seeds in (None, of_one))
    assert blind == alone


def test_seeds_that_failed_in_part_still_tell():
    runs = seeded(0.0, 0.0, 5, seeds=3)
    values = runs.values + np.array([0.3, -0.2, -0.1])[runs.seeds]
    values[[0, 3, 40, 50]] = np.nan
    advice = Projektor("line", resamples=20)(replace(runs, values=values))
    even = advice.forecasts["even"]
    assert even.value == pytest.approx(truth(np.full(3, 1 / 3), 1600, "line"), abs=1e-9)  # what they add sums to 0
    assert even.high - even.low > 0.5
    assert advice.forecasts["gain over even"].high - advice.forecasts["gain over even"].low < 1e-6


def test_too_far_is_refused_by_a_value():
    advice = Projektor()(evidence(budget=8001))
    assert [remark.reason for remark in advice.refusals] == ["extrapolation"]
    assert not advice.shares
    assert not advice.forecasts
    assert Projektor("line", farthest=5, resamples=20)(evidence("line", budget=8001)).shares


def test_pilots_close_together_are_a_warning_with_its_number():
    advice = Projektor("line", resamples=20)(evidence("line", sizes=(1000, 1500), budget=6000))
    told = {remark.reason: remark.detail for remark in advice.warnings}
    assert "1.5 times the smallest" in told["pilot_ratio"]
    wide = Projektor("line", resamples=20)(evidence("line", sizes=(1000, 4000), budget=6000))
    assert "pilot_ratio" not in [remark.reason for remark in wide.warnings]
    assert wide.diagnostics["noise_amplified"] < advice.diagnostics["noise_amplified"]


def test_failed_runs_are_left_out_and_counted():
    runs = evidence("line", noise=0.001)
    runs.values[[3, 40]] = np.nan
    advice = Projektor("line", resamples=20)(runs)
    assert "2 of 90 runs have no value" in [remark.detail for remark in advice.warnings]
    assert advice.diagnostics["runs"] == advice.forecasts["even"].n == 88


def test_too_few_runs_left_say_how_many_failed():
    runs = evidence(mixtures=13)
    runs.values[:2] = np.nan
    with pytest.raises(InputError, match=r"11 runs of size 500 .* at least 12 .*\(2 runs failed\)"):
        Projektor()(runs)


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        (evidence(sizes=(1000,)), "at least 2 sizes"),
        (evidence(mixtures=11), "at least 12"),
        (evidence(mixtures=12, sizes=(500, 1000)), "leave none to measure noise by"),
        (replace(evidence(), distances=None), "measure them first"),
        (replace(evidence(), shares=np.tile(CENTRE, (90, 1))), "tell 4 of 12 columns apart|tell 1 of 12|tell 2 of 12"),
    ],
)
def test_runs_that_cannot_show_a_surface_are_refused(runs, told):
    with pytest.raises(InputError, match=told):
        Projektor()(runs)


def test_one_source_and_wrong_parameters_are_refused():
    with pytest.raises(InputError, match="one source only"):
        Projektor()(Evidence(("a",), np.array([5])))
    for params in ({"farthest": 0.9}, {"spread": 0.0}, {"restarts": -1}, {"resamples": 5}):
        with pytest.raises(InputError, match=next(iter(params))):
            Projektor(**params)


def test_without_a_distance_it_chooses_among_the_mixtures_tried():
    runs = replace(evidence(noise=1e-5), distance=None)
    advice = Projektor(resamples=20)(runs)
    shares = np.array([share.value for share in advice.shares.values()])
    best = min(runs.shares, key=lambda each: truth(each, 8000))
    assert shares == pytest.approx(best)
    assert advice.diagnostics["searched"] == "mixtures tried"
    assert len(advice.forecasts) == 31
    turned = Projektor(resamples=20)(replace(runs, values=-runs.values, direction="higher is better"))
    assert {name: each.value for name, each in turned.shares.items()} == pytest.approx(
        dict(zip("abc", best, strict=True))
    )


def test_the_search_starts_from_the_mixtures_tried_too():
    runs = evidence(sizes=(1000, 4000))
    first, second, _ = runs.shares.T
    wells = replace(
        runs, values=-(first**2) - 2 * second**2 + 0.9 * second
    )  # the even mixture leads to the shallow one
    advice = Projektor(resamples=20, restarts=0)(wells)
    assert advice.shares["b"].value == pytest.approx(1)
    assert advice.forecasts["advised"].value == pytest.approx(-1.1)


def test_a_mixture_beyond_those_tried_is_a_warning():
    runs = evidence("line")
    inside = runs.shares.max(axis=1) < 0.49
    few = replace(
        runs,
        sizes=runs.sizes[inside],
        shares=runs.shares[inside],
        values=runs.values[inside],
        distances=runs.distances[inside],
    )
    advice = Projektor("line", resamples=20)(few)
    assert any(remark.reason == "beyond_pilots" and "a" in remark.detail for remark in advice.warnings)


def test_the_same_evidence_gives_the_same_json():
    first, second = (
        json.dumps(Projektor("line", resamples=20)(evidence("line", noise=0.01)).as_json()) for _ in range(2)
    )
    assert first == second
