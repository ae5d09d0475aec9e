"""Bootstrap of a statistic that is no mean over items, such as a calibration error: each draw computes it anew."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.statistics import Comparison, interval, of_draws
from warehouse.records import Estimate, Floats

SET_DRAWS = 1000  # each of them is one call of the statistic per seed
OfItems = Callable[..., float]


def set_estimate(
    statistic: OfItems,
    values: Floats,
    rng: np.random.Generator,
    clusters: NDArray[np.generic] | None = None,
    draws: int = SET_DRAWS,
) -> Estimate:
    """statistic(*columns) of (s, n, k) values, k columns of n items by s seeds: mean over seeds, interval over both."""
    by_seed = _by_seed(statistic, values)
    means = _drawn(statistic, (values,), rng, clusters, draws)
    return interval(float(by_seed.mean()), means, values.shape[1])


def set_comparison(
    statistic: OfItems,
    a: Floats,
    b: Floats,
    rng: np.random.Generator,
    higher_is_better: bool,
    clusters: NDArray[np.generic] | None = None,
    draws: int = SET_DRAWS,
) -> Comparison:
    """The statistic of `a` less that of `b`, both (s, n, k), drawn over the same seeds and items."""
    by_seed = _by_seed(statistic, a) - _by_seed(statistic, b)
    means = _drawn(statistic, (a, b), rng, clusters, draws)
    difference = interval(float(by_seed.mean()), means, a.shape[1])
    return of_draws(difference, tuple(by_seed.tolist()), means, higher_is_better)


def _by_seed(statistic: OfItems, values: Floats) -> Floats:
    return np.array([statistic(*run.T) for run in values])


def _drawn(
    statistic: OfItems,
    arms: tuple[Floats, ...],
    rng: np.random.Generator,
    clusters: NDArray[np.generic] | None,
    draws: int,
) -> Floats:
    """(draws,) the statistic of the first arm, less that of the second where there is one, over seeds and items."""
    s, n, _ = arms[0].shape
    _, which = np.unique(np.arange(n) if clusters is None else clusters, return_inverse=True)
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    found = []
    for _ in range(draws):
        seeds = rng.integers(0, s, (s,))
        items = np.concatenate([members[c] for c in rng.integers(0, len(members), (len(members),))])
        sides = [np.mean([statistic(*arm[seed][items].T) for seed in seeds]) for arm in arms]
        found.append(sides[0] - sides[1] if len(sides) == 2 else sides[0])
    return np.array(found)
