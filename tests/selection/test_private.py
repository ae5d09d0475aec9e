"""Private target sets: the mechanisms by their definitions, the releases by their noise, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reply_worlds import SPEC, obeys_the_laws, same
from scipy.integrate import quad
from scipy.stats import norm

from selection.cosine import cosines, unit_rows
from selection.k_means import Clusters
from selection.private import (
    Centred,
    Fourier,
    Privacy,
    clipped,
    discrete_laplace,
    discrete_laplace_variance,
    fourier,
    frequencies,
    gaussian_delta,
    gaussian_multiplier,
    pool_centre,
    private_mean,
)
from selection.private_clusters import PrivateClusters, allocate, counts_of, shares_of, threshold
from selection.private_kernel import PrivateKernel, typical_distance
from selection.private_mean import PrivateMean
from selection.problem import Problem
from warehouse.errors import InputError
from warehouse.records import canonical

RNG = np.random.default_rng(0)
FREE = {"epsilon": 1e9, "delta": 1e-6}  # no noise to speak of
ALL = [
    PrivateMean(SPEC, **FREE),
    PrivateKernel(SPEC, features=256, **FREE),
    PrivateClusters(SPEC, clusters=6, epsilon=FREE["epsilon"]),
]


def privacy(epsilon=1.0, delta=1e-6, neighbours="add_remove", group_size=1):
    return Privacy(epsilon, delta, neighbours, group_size)


def crowd(budget, n=400, m=2000, d=12, seed=0):
    """A pool of two kinds of rows that all point one way besides, and many targets of the second kind."""
    rng = np.random.default_rng(seed)
    kinds = np.zeros((2, d))
    kinds[0, :3], kinds[1, 3:6] = 1, 1
    shift = np.full(d, 2.0)
    kind = rng.integers(0, 2, n)
    return kind, Problem(
        budget=budget,
        keys=rng.permutation(n).astype(np.uint64),
        candidates={"representation": (kinds[kind] + shift + 0.2 * rng.standard_normal((n, d))).astype(np.float32)},
        targets={"representation": (kinds[1] + shift + 0.2 * rng.standard_normal((m, d))).astype(np.float32)},
        target_task=np.zeros(m, np.int64),
    )


@pytest.mark.parametrize(
    ("epsilon", "delta", "c"), [(1, 1e-6, 4.22468), (1, 1e-5, 3.73063), (0.5, 1e-6, 8.05762), (8, 1e-6, 0.652935)]
)
def test_the_worked_multipliers(epsilon, delta, c):
    assert gaussian_multiplier(epsilon, delta) == pytest.approx(c, rel=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 1, 4])
def test_delta_is_the_hockey_stick_divergence(epsilon):
    """By integration: the integral of max(0, p - e^epsilon q) for normals one sensitivity apart."""
    c = gaussian_multiplier(epsilon, 1e-3)

    def excess(x):
        return max(norm.pdf(x, 1, c) - math.exp(epsilon) * norm.pdf(x, 0, c), 0.0)

    start = epsilon * c**2 + 0.5
    assert quad(excess, start, start + 40 * c, limit=200)[0] == pytest.approx(1e-3, rel=1e-4)


@given(st.floats(0.01, 1e6), st.floats(1e-12, 0.4))
@settings(max_examples=80, deadline=None)
def test_the_multiplier_is_enough_and_hardly_more(epsilon, delta):
    c = gaussian_multiplier(epsilon, delta)
    assert gaussian_delta(c, epsilon) <= delta
    assert gaussian_delta(c * (1 - 1e-6), epsilon) > delta
    if epsilon < 1:
        assert c < math.sqrt(2 * math.log(1.25 / delta)) / epsilon  # the classic mechanism


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.5])
def test_discrete_laplace_has_its_distribution(scale):
    draws = discrete_laplace(scale, 60_000, np.random.default_rng(1))
    assert draws.dtype == np.int64
    ratio = math.exp(-1 / scale)
    for z in (0, 1, -1, 2):
        expected = (1 - ratio) / (1 + ratio) * ratio ** abs(z)
        assert (draws == z).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected / 60_000))
    assert draws.var() == pytest.approx(discrete_laplace_variance(scale), rel=0.05)


def test_fourier_features_have_length_1_and_estimate_the_kernel():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 5)) / 2
    features = fourier(rows @ frequencies(5, 4000, 0.8, rng).T)
    assert features.shape == (30, 8000)
    assert np.sqrt(np.square(features).sum(axis=1)) == pytest.approx(np.ones(30), abs=1e-12)
    away = np.square(rows[:, None] - rows[None]).sum(axis=2)
    assert np.abs(features @ features.T - np.exp(-away / 0.8**2)).max() < 3 / math.sqrt(4000)


@pytest.mark.parametrize(("neighbours", "group_size", "changes"), [("add_remove", 1, 1), ("replace_one", 3, 6)])
def test_no_change_of_a_contributor_exceeds_the_sensitivity(neighbours, group_size, changes):
    """The mean over m, public, of vectors clipped to 1: a contributor's are replaced or taken out."""
    assert privacy(neighbours=neighbours, group_size=group_size).changes == changes
    rng, m = np.random.default_rng(0), 20
    sensitivity = private_mean(np.eye(m), privacy(1.0, 1e-6, neighbours, group_size), rng).sensitivity
    worst = 0.0
    for trial in range(300):
        vectors = rng.standard_normal((m, 3)) * 10 ** rng.uniform(-2, 2)
        others = vectors.copy()
        others[:group_size] = -vectors[:group_size] if trial % 2 else rng.standard_normal((group_size, 3)) * 100
        after = clipped(others)
        if neighbours == "add_remove":
            after[:group_size] = 0
        worst = max(worst, np.linalg.norm((clipped(vectors).sum(axis=0) - after.sum(axis=0)) / m))
    assert worst <= sensitivity + 1e-12
    assert clipped(np.array([[3.0, 4.0], [0.3, 0.4]])) == pytest.approx(np.array([[0.6, 0.8], [0.3, 0.4]]))


@pytest.mark.parametrize("d", [3, 300])
def test_the_noise_on_a_score_is_sigma_whatever_the_dimension(d):
    rng = np.random.default_rng(3)
    queries = clipped(1e3 * rng.standard_normal((10_000, d)))
    vectors = clipped(rng.standard_normal((50, d)))
    sigma = 4.22468 / 50
    assert private_mean(vectors, privacy(), rng).sd == pytest.approx(sigma, rel=1e-5)
    releases = np.stack(
        [private_mean(vectors, privacy(), rng).value for _ in range(max(6000 // d, 40) if d > 3 else 1500)]
    )
    noise = (releases - vectors.mean(axis=0)) @ queries.T
    assert noise.std() == pytest.approx(sigma, rel=0.03)


def test_a_group_is_hidden_by_as_much_more_noise():
    alone, group = (private_mean(np.eye(9), privacy(group_size=size), RNG).sd for size in (1, 4))
    assert group == pytest.approx(4 * alone)


def exact_scores(made, kernel=None):
    """Without noise, over the whole pool at once."""
    centred = Centred(pool_centre(made, "representation"))
    rows, targets = (centred(side["representation"]) for side in (made.candidates, made.targets))
    if kernel is None:
        return rows @ targets.mean(axis=0)
    return np.exp(-np.square(rows[:, None] - targets[None]).sum(axis=2) / kernel**2).mean(axis=1)


def test_without_noise_it_is_the_mean_cosine_of_centred_vectors():
    _, made = crowd(400, m=60)
    answer = PrivateMean(SPEC, **FREE)(made, RNG)
    expected = exact_scores(made)
    assert answer.scores == pytest.approx(expected[answer.rows], abs=1e-4)
    assert np.all(np.diff(answer.scores) <= 0)
    vectors = made.candidates["representation"].astype(float)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert pool_centre(made, "representation") == pytest.approx(units.mean(axis=0), abs=1e-8)


@pytest.mark.parametrize("bandwidth", [0.7, None])
def test_without_noise_it_is_the_kernel_density(bandwidth):
    _, made = crowd(400, m=60)
    answer = PrivateKernel(SPEC, features=4000, bandwidth=bandwidth, **FREE)(made, RNG)
    width = answer.diagnostics["bandwidth"]
    assert bandwidth in (None, width)
    assert np.abs(answer.scores - exact_scores(made, width)[answer.rows]).max() < 3 / math.sqrt(4000)


@pytest.mark.parametrize("method", [PrivateMean(SPEC), PrivateKernel(SPEC, features=256)])
def test_with_noise_the_right_rows_are_still_found(method):
    kind, made = crowd(100)
    answer = method(made, np.random.default_rng(1))
    assert kind[answer.rows].mean() > 0.97
    facts = answer.diagnostics
    assert facts["noise_sd"] == pytest.approx(2 * 4.22468 / 2000, rel=1e-4)
    assert (facts["epsilon"], facts["delta"], facts["neighbours"], facts["group_size"]) == (1.0, 1e-6, "replace_one", 1)
    assert facts["unit"] == "one target example"
    assert facts["mechanism"] == "analytic Gaussian"
    assert 0 < facts["noise_share_at_most"] < 0.5


def test_the_same_seed_makes_the_same_release_and_another_seed_another():
    _, made = crowd(50)
    for method in (PrivateMean(SPEC), PrivateKernel(SPEC, features=64), PrivateClusters(SPEC, clusters=9)):
        first, again, other = (method(made, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert same(first, again)
        assert first.scores.tolist() != other.scores.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_where_the_noise_drowns_the_scores_it_refuses(seed):
    _, made = crowd(50, m=5)
    method = PrivateMean(SPEC)
    with pytest.raises(InputError, match=r"noise on every score has standard deviation 1.69 for 5 targets .* as spent"):
        method(made, np.random.default_rng(seed))


@pytest.mark.parametrize("method", ALL, ids=lambda method: type(method).__name__)
def test_the_laws(method):
    answer = obeys_the_laws(method, nested=not isinstance(method, PrivateClusters))
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics


@pytest.mark.parametrize("method", ALL, ids=lambda method: type(method).__name__)
def test_the_worlds_edges_have_an_answer(method):
    keys = np.array([4, 2, 9], np.uint64)
    for rows in (np.ones((3, 2)), np.zeros((3, 2))):
        made = Problem(
            budget=3,
            keys=keys,
            candidates={"representation": rows.astype(np.float32)},
            targets={"representation": np.array([[1, 2]], np.float32)},
            target_task=np.zeros(1, np.int64),
        )
        assert method(made, RNG).rows.tolist() == [1, 0, 2]
        alone = replace(made, budget=1, keys=keys[:1], candidates={"representation": rows[:1].astype(np.float32)})
        assert method(alone, RNG).rows.tolist() == [0]


def test_a_score_is_a_function_of_its_row():
    """In any block: the angles of random features are sums of products."""
    rng = np.random.default_rng(0)
    rows, waves = rng.standard_normal((300, 33)), frequencies(33, 50, 1.0, rng)
    features = Fourier(Centred(rng.standard_normal(33) / 10), waves)
    whole = features(rows)
    for at in (0, 1, 150):
        assert np.array_equal(whole[at : at + 7], features(rows[at : at + 7]))
    assert np.array_equal(features(np.zeros((1, 33)))[0, :50], np.full(50, 1 / math.sqrt(50)))


def test_the_bandwidth_is_the_median_distance():
    _, made = crowd(1, n=80)
    centred = Centred(pool_centre(made, "representation"))
    rows = unit_rows(centred(made.candidates["representation"])).values
    products = cosines(rows, rows)[np.triu_indices(80, 1)]
    assert typical_distance(made, centred) == pytest.approx(np.median(np.sqrt(2 - 2 * products)), rel=1e-6)


def test_what_cannot_be_released_is_an_error():
    _, made = crowd(5, m=10)
    for method in (PrivateMean, PrivateKernel):
        for wrong in ({"epsilon": 0.0}, {"delta": 1.0}, {"neighbours": "any"}, {"group_size": 0}):
            with pytest.raises(InputError, match=next(iter(wrong))):
                method(SPEC, **wrong)
        with pytest.raises(InputError, match=r"delta is 0.1; for 10 targets"):
            method(SPEC, epsilon=1e6, delta=0.1)(made, RNG)
        with pytest.raises(InputError, match="no target was given"):
            method(SPEC)(replace(made, targets={}, target_task=np.zeros(0, np.int64)), RNG)
    with pytest.raises(InputError, match="features is 0"):
        PrivateKernel(SPEC, features=0)
    with pytest.raises(InputError, match="bandwidth is -1"):
        PrivateKernel(SPEC, bandwidth=-1.0)
    broken = made.candidates["representation"].copy()
    broken[[9, 3], 0] = [np.nan, np.inf]
    with pytest.raises(InputError, match=r"2 of 400 candidate vectors .* the first is row 3"):
        PrivateMean(SPEC)(replace(made, candidates={"representation": broken}), RNG)
    made.targets["representation"][4] = np.nan
    with pytest.raises(InputError, match="some targets hold NaN"):
        PrivateMean(SPEC)(made, RNG)


def test_the_budget_follows_the_counts_of_the_targets():
    """Nearly all targets are of kind 1; without noise the shares are the counts."""
    kind, made = crowd(60)
    answer = PrivateClusters(SPEC, clusters=6, epsilon=1e9)(made, RNG)
    assert sum(answer.diagnostics["released"]) == 2000
    assert kind[answer.rows].mean() > 0.97
    noisy = PrivateClusters(SPEC, clusters=6)(made, np.random.default_rng(1))
    assert kind[noisy.rows].mean() > 0.97
    assert noisy.diagnostics["released"] != answer.diagnostics["released"]
    assert noisy.diagnostics["threshold"] == math.ceil(2 * math.log(6))
    assert (noisy.diagnostics["epsilon"], noisy.diagnostics["delta"], noisy.diagnostics["sensitivity"]) == (1.0, 0.0, 2)
    assert noisy.scores.tolist() == sorted(noisy.scores.tolist(), reverse=True)


def test_clusters_without_targets_come_last():
    _, made = crowd(400)
    answer = PrivateClusters(SPEC, clusters=6, epsilon=1e9)(made, RNG)
    filled = answer.diagnostics["filled"]["cluster_of_share_0"]
    assert 100 < filled < 300
    assert all(reason.endswith("filled=cluster_of_share_0") for reason in answer.reasons[-filled:])
    assert answer.scores[-filled:].tolist() == [0] * filled
    assert answer.scores[-filled - 1] > 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_quotas_are_near_their_shares_and_within_their_clusters(clusters, data):
    shares, sizes = np.array([each for each, _ in clusters], float), np.array([size for _, size in clusters])
    room = int(sizes[shares > 0].sum())
    budget = data.draw(st.integers(1, 80))
    shares = shares / max(shares.sum(), 1)
    quotas = allocate(shares, sizes, budget)
    assert quotas.sum() == min(budget, room)
    assert np.all(quotas <= sizes)
    assert not quotas[shares == 0].any()
    if np.all(budget * shares < sizes):
        assert np.abs(quotas - budget * shares).max() < 1


def test_quotas_by_largest_remainder():
    assert allocate(np.array([0.5, 0.3, 0.2]), np.array([99, 99, 99]), 7).tolist() == [4, 2, 1]
    assert allocate(np.array([0.5, 0.3, 0.2]), np.array([99, 99, 99]), 4).tolist() == [2, 1, 1]
    assert allocate(np.array([0.8, 0.1, 0.1]), np.array([2, 99, 99]), 10).tolist() == [2, 4, 4]


def test_shares_are_counts_above_the_threshold():
    assert threshold(2.0, 8) == 5
    assert shares_of(np.array([30, 4, -3, 10, 0, 1, 2, 3]), 2.0, 45) == pytest.approx(
        np.array([0.75, 0, 0, 0.25, 0, 0, 0, 0])
    )
    assert shares_of(np.array([-2]), 2.0, 1).tolist() == [1]


@pytest.mark.parametrize("seed", range(20))
def test_counts_that_are_noise_are_refused(seed):
    _, made = crowd(50, m=5)
    with pytest.raises(InputError, match=r"each of 16 clusters has standard deviation 2.8\d? for 5 targets"):
        PrivateClusters(SPEC, clusters=16)(made, np.random.default_rng(seed))


def test_targets_count_for_the_nearest_cluster():
    kind, made = crowd(1)
    vectors = made.candidates["representation"]
    centres = unit_rows(np.stack([vectors[kind == number].mean(axis=0) for number in (0, 1)])).values
    found = Clusters(np.asarray(centres), kind, np.ones(400), 1, True)
    counts = counts_of(vectors, found)
    assert counts.sum() == 400
    assert np.abs(counts - np.bincount(kind)).max() < 10


def test_there_are_no_more_clusters_than_rows_that_differ():
    _, made = crowd(5, n=40)
    made.candidates["representation"][:] = made.candidates["representation"][np.arange(40) % 3]
    assert len(PrivateClusters(SPEC, clusters=10)(made, RNG).diagnostics["released"]) == 3


def test_parameters_of_clusters_are_checked():
    for wrong in ({"clusters": 0}, {"epsilon": -1.0}, {"neighbours": "all"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            PrivateClusters(SPEC, **wrong)
