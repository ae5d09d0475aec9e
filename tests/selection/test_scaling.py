"""The scaling law with utility that decays in epochs: its numbers, its fit, its advice."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.advice import Evidence
from selection.scaling import (
    Law,
    PoolRuns,
    Scaling,
    best_pools,
    by_utility,
    error,
    fit_laws,
    mixed_error,
    seen,
)
from warehouse.errors import InputError

N = np.array([250.0, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000])
POOL = 1000.0


def scale_of(a, b, norm=1.0):
    """`Law.log_scale` for the spelling (a n / norm)^b of the released code."""
    return float(b * np.log(a / norm))


GOOD, NEXT = Law(scale_of(0.02, -0.5), -0.5, 2.0, 0.1, POOL), Law(scale_of(0.02, -0.3), -0.3, 5.0, 0.1, POOL)
PUBLISHED = [
    Law(scale_of(0.02, b, 1e5), b, tau, 0.1, 12.8e6)
    for b, tau in [(-0.18, 3.0), (-0.15, 4.0), (-0.12, 5.0), (-0.09, 6.0)]
]
LAWS = st.builds(Law, st.floats(-3, 3), st.floats(-0.6, -0.01), st.floats(0.3, 20), st.floats(0, 1), st.just(POOL))


def by_epochs(law, n):
    """The law written as its product over epochs."""
    y, before, epoch = np.exp(law.log_scale) * min(n, law.rows) ** law.b, min(n, law.rows), 1
    while before < n:
        epoch += 1
        end = min(n, epoch * law.rows)
        y *= (end / before) ** (law.b * 2 ** (-(epoch - 1) / law.tau))
        before = end
    return y + law.d


def evidence(laws=(GOOD, NEXT), n=N, budget=4000, noise=0.0, repeats=1, seed=0, **more):
    rng = np.random.default_rng(seed)
    sizes = np.tile(np.repeat(n, repeats), len(laws))
    shares = np.repeat(np.eye(len(laws)), len(n) * repeats, axis=0)
    values = np.concatenate([error(law, np.repeat(n, repeats)) for law in laws])
    values = values * np.exp(noise * rng.standard_normal(len(values)))
    names = tuple("abcdef"[: len(laws)])
    rows = np.array([int(law.rows) for law in laws])
    return Evidence(names, rows, budget, sizes=sizes, shares=shares, values=values, **more)


def test_worked_numbers_of_one_pool():
    law = Law(0.0, -0.5, 1.0, 0.0, 100.0)
    assert error(law, np.array([100.0, 200.0, 400.0])) == pytest.approx([0.1, 0.0840896, 0.0785095], abs=5e-8)


def test_the_released_form_lets_the_floor_decay():
    law, n = Law(scale_of(0.02, -0.15, 1e5), -0.15, 5.0, 0.1, 12.8e6), np.array([64e6])
    assert error(law, n, "released") == pytest.approx(0.805478, abs=5e-7)
    assert error(law, n) == pytest.approx(0.822310, abs=5e-7)
    bare = Law(law.log_scale, law.b, law.tau, 0.0, law.rows)
    assert error(bare, n, "released") == pytest.approx(error(bare, n))


def test_more_budget_calls_for_more_pools():
    n = np.array([12.8e6, 32e6, 128e6, 640e6, 2560e6])
    counts, table = best_pools(PUBLISHED, n)
    assert counts.tolist() == [1, 2, 2, 3, 4]
    assert table.min(axis=0) == pytest.approx([0.9443, 0.8388, 0.7147, 0.6360, 0.6122], abs=5e-5)
    shuffled = [PUBLISHED[at] for at in (2, 0, 3, 1)]
    assert by_utility(shuffled).tolist() == [1, 3, 0, 2]
    assert np.array_equal(best_pools(shuffled, n)[1], table)


@given(LAWS, st.floats(1, 20_000))
@settings(max_examples=150, deadline=None)
def test_the_law_is_its_product_over_epochs(law, n):
    assert error(law, np.array([n]))[0] == pytest.approx(by_epochs(law, n), rel=1e-9)


@given(LAWS, st.lists(st.floats(1, 20_000), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_more_rows_never_hurt(law, sizes):
    errors = error(law, np.sort(np.array(sizes)))
    assert np.all(np.diff(errors) <= 1e-12)
    assert errors.min() >= law.d


def test_a_last_epoch_of_no_length_changes_nothing():
    assert seen(np.array([3000.0]), POOL, 2.0) == pytest.approx(seen(np.array([3000.0 + 1e-7]), POOL, 2.0))
    assert np.array_equal(seen(N, POOL, np.array([1.0, 5.0]))[1], seen(N, POOL, 5.0))


def test_a_mixture_of_one_pool_with_itself_is_twice_that_pool():
    halves = mixed_error([GOOD, GOOD], np.array([0.5, 0.5]), N)
    twice = Law(GOOD.log_scale, GOOD.b, 2 * GOOD.tau, GOOD.d, 2 * POOL)
    assert halves == pytest.approx(error(twice, N), rel=1e-12)
    assert mixed_error([GOOD, NEXT], np.array([0.0, 1.0]), N) == pytest.approx(error(NEXT, N))


def test_planted_laws_are_recovered():
    runs = [PoolRuns(name, POOL, N, error(law, N)) for name, law in (("a", GOOD), ("b", NEXT))]
    for found, planted in zip(fit_laws(runs), (GOOD, NEXT), strict=True):
        assert [found.b, found.tau, found.d] == pytest.approx([planted.b, planted.tau, planted.d], rel=1e-4)
        assert error(found, np.array([16_000.0])) == pytest.approx(error(planted, np.array([16_000.0])), rel=1e-6)


def test_a_known_floor_is_kept():
    (found,) = fit_laws([PoolRuns("a", POOL, N, error(NEXT, N))], floor=0.1)
    assert found.d == 0.1
    assert [found.b, found.tau] == pytest.approx([NEXT.b, NEXT.tau], rel=1e-5)
    with pytest.raises(InputError, match="floor is 9"):
        fit_laws([PoolRuns("a", POOL, N, error(NEXT, N))], floor=9.0)


def test_the_released_form_is_recovered_from_whole_epochs():
    n = N[N >= POOL]
    (found,) = fit_laws([PoolRuns("a", POOL, n, error(NEXT, n, "released"))], "released", 0.1)
    assert [found.b, found.tau, found.log_scale] == pytest.approx([NEXT.b, NEXT.tau, NEXT.log_scale], rel=1e-3)
    with pytest.raises(InputError, match="cannot tell its floor"):
        fit_laws([PoolRuns("a", POOL, n, error(NEXT, n))], "released")
    with pytest.raises(InputError, match=r"at least one epoch.*'a'"):
        fit_laws([PoolRuns("a", POOL, N, error(NEXT, N))], "released", 0.1)
    with pytest.raises(InputError, match="below the floor"):
        fit_laws([PoolRuns("a", POOL, n, np.repeat([0.91, 5.0], [5, 2]))], "released", 0.9)


@pytest.mark.parametrize(
    ("n", "errors", "told"),
    [
        (N[:4], np.ones(4), "has 4 runs"),
        (N, np.zeros(9), "above 0"),
        (np.array([1.0, 1, 2, 2, 3]), np.ones(5), r"see \[1.0, 2.0, 3.0\] rows"),
        (N[:5] / 10, np.ones(5), "repeated by 0 runs"),
    ],
)
def test_runs_that_cannot_show_a_law_are_refused(n, errors, told):
    with pytest.raises(InputError, match=told):
        PoolRuns("a", POOL, n, errors)


def test_advice_is_to_repeat_first_and_to_add_later():
    crossing = [int(best_pools([GOOD, NEXT], np.array([float(n)]))[0][0]) for n in (500, 32_000)]
    assert crossing == [1, 2]
    early, late = (Scaling(resamples=20)(evidence(budget=n)) for n in (500, 32_000))
    assert early.diagnostics["decision"] == "repeat the best pool"
    assert early.shares["a"].value == 1
    assert late.diagnostics["pools"] == ["a", "b"]
    assert late.shares["b"].value == 0.5
    assert late.forecasts["a+b"].value == pytest.approx(
        mixed_error([GOOD, NEXT], np.array([0.5, 0.5]), np.array([32e3]))[0]
    )
    assert late.forecasts["gain over a"].low > 0
    assert "untested" in [remark.reason for remark in late.warnings]
    assert "rows_repeated" in [remark.reason for remark in late.warnings]


def test_noise_widens_the_interval():
    clean, noisy = (Scaling(resamples=40)(evidence(noise=noise, repeats=2)) for noise in (0.002, 0.02))
    widths = [advice.forecasts["a"].high - advice.forecasts["a"].low for advice in (clean, noisy)]
    assert widths[1] > 3 * widths[0] > 0
    assert sum(noisy.diagnostics["votes"].values()) == 40


def test_nine_in_ten_intervals_hold_the_truth_three_times_beyond_the_runs():
    n, half, held = np.array([24_000.0]), np.array([0.5, 0.5]), np.zeros(2)
    truths = {"a": error(GOOD, n)[0], "a+b": mixed_error([GOOD, NEXT], half, n)[0]}
    for seed in range(20):
        forecasts = Scaling(resamples=60)(evidence(budget=24_000, noise=0.02, seed=seed)).forecasts
        held += [forecasts[name].low <= truth <= forecasts[name].high for name, truth in truths.items()]
    assert np.all(held >= 16)  # of 20; 19 expected, standard deviation 1


def seeded(seed_sd, run_sd, world, seeds=2):
    rng, runs = np.random.default_rng(world), evidence(budget=4000, repeats=seeds)
    each = np.tile(np.arange(seeds), runs.r // seeds)
    noise = seed_sd * rng.standard_normal(seeds)[each] + run_sd * rng.standard_normal(runs.r)
    return replace(runs, values=runs.values * np.exp(noise), seeds=each)


def test_intervals_hold_the_truth_whatever_seeds_add():
    n = np.array([4000.0])
    one, two = error(GOOD, n)[0], mixed_error([GOOD, NEXT], np.array([0.5, 0.5]), n)[0]
    true, held = {"a": one, "a+b": two, "gain over a+b": two - one}, np.zeros(3)
    for world in range(20):
        forecasts = Scaling(resamples=20)(seeded(0.05, 0.01, world)).forecasts
        held += [forecasts[name].low <= truth <= forecasts[name].high for name, truth in true.items()]
    assert np.all(held >= 17)  # of 20; 19 expected, standard deviation 1


def test_what_a_seed_adds_scales_levels_and_gains_alike():
    runs = seeded(0.0, 0.0005, 0)
    forecasts = Scaling(resamples=40)(replace(runs, values=runs.values * np.exp(0.1 * runs.seeds))).forecasts
    for each in forecasts.values():  # of two seeds: t of one degree, times 0.1 / 2
        assert np.log(each.high / each.value) == pytest.approx(0.05 * 12.706, rel=0.15)
        assert np.log(each.value / each.low) == pytest.approx(0.05 * 12.706, rel=0.15)
    assert forecasts["gain over a+b"].low > 0


def test_one_seed_is_a_warning():
    runs = seeded(0.02, 0.005, 0)
    told = [
        [
            each.detail
            for each in Scaling(resamples=20)(replace(runs, seeds=seeds)).warnings
            if each.reason == "one_seed"
        ]
        for seeds in (np.zeros(runs.r, np.int64), (runs.sizes > 1000).astype(np.int64), runs.seeds, None)
    ]
    assert "all runs have seed 0" in told[0][0]
    assert "do not tell the seeds [0, 1] apart" in told[1][0]
    assert told[2:] == [[], []]


def test_equal_pools_are_mostly_no_clear_gain():
    same = Law(GOOD.log_scale, GOOD.b, 60.0, GOOD.d, POOL)
    runs = [evidence((same, same), budget=1000, noise=0.02, seed=seed) for seed in range(10)]
    said = [[remark.reason for remark in Scaling(resamples=40)(each).warnings] for each in runs]
    assert sum("no_clear_gain" in reasons for reasons in said) >= 6


def test_too_far_is_refused_by_a_value():
    advice = Scaling(resamples=20)(evidence(budget=32_001))
    assert [remark.reason for remark in advice.refusals] == ["extrapolation"]
    assert not advice.shares
    assert not advice.forecasts
    assert Scaling(resamples=20, farthest=5)(evidence(budget=32_001)).shares


def test_runs_on_mixtures_check_the_rule():
    runs, half = evidence(), np.array([0.5, 0.5])
    more = Evidence(
        runs.sources,
        runs.available,
        4000,
        sizes=np.append(runs.sizes, 3000.0),
        shares=np.vstack([runs.shares, half]),
        values=np.append(runs.values, 1.1 * mixed_error([GOOD, NEXT], half, np.array([3000.0]))[0]),
    )
    checked = Scaling(resamples=20)(more).diagnostics["mixtures_checked"]
    assert checked == {"runs": 1, "mean_error": pytest.approx(1 - 1 / 1.1, rel=1e-3)}
    assert Scaling(resamples=20)(runs).diagnostics["mixtures_checked"] == {"runs": 0}


def test_failed_runs_are_counted_and_may_be_too_many():
    runs = evidence()
    runs.values[[0, 12]] = np.nan
    advice = Scaling(resamples=20)(runs)
    assert "2 of 18 runs have no value" in [remark.detail for remark in advice.warnings]
    runs.values[:6] = np.nan
    with pytest.raises(InputError, match="pool 'a' has 3 runs"):
        Scaling(resamples=20)(runs)


def test_a_pool_that_does_not_help_is_named():
    flat = Law(0.0, 0.05, 60.0, 0.0, POOL)
    advice = Scaling(resamples=20)(evidence((GOOD, flat)))
    assert any("does not lower loss: b" in remark.detail for remark in advice.warnings)


def test_the_same_evidence_gives_the_same_json():
    first, second = (json.dumps(Scaling(resamples=20)(evidence(noise=0.01)).as_json()) for _ in range(2))
    assert first == second


def test_only_errors_have_a_law():
    with pytest.raises(InputError, match="of accuracy, higher is better"):
        Scaling()(evidence(metric="accuracy", direction="higher is better"))
    for params in ({"farthest": 0.5}, {"resamples": 3}, {"floor": -0.1}):
        with pytest.raises(InputError, match=next(iter(params))):
            Scaling(**params)


def test_one_pool_alone_gets_a_forecast():
    advice = Scaling(resamples=20)(evidence((GOOD,)))
    assert advice.shares["a"].value == 1
    assert list(advice.forecasts) == ["a"]
