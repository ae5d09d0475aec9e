"""Standard errors, bootstrap intervals and paired comparisons: plain functions of arrays.

Every interval is a 95 % percentile interval of `DRAWS` bootstrap draws from the generator that is passed in, so the
same scores and the same seed give the same interval. Values may be weighted (a loss per token is weighted by tokens):
every mean here is Σ w·x / Σ w.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from warehouse.records import Estimate, Floats

DRAWS = 10_000
LEVEL = (2.5, 97.5)
POWER = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)  # 5 % two-sided, found 8 times in 10
DRAW_BLOCK = 8_000_000  # item counts held at once: 10,000 draws of 800 items


def standard_error(values: NDArray[np.floating]) -> float:
    """Standard error of the mean of (n,) values: sd with n - 1, over sqrt(n). 0 for a single value."""
    n = len(values)
    return float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else 0.0


def clustered_standard_error(
    values: NDArray[np.floating], clusters: NDArray[np.generic], weights: Floats | None = None
) -> float:
    """Standard error of the mean when values of one cluster go together (several questions about one passage).

    sqrt(Σ_c (Σ_{i in c} w_i (x_i - mean))² · C/(C-1)) / Σ w, the small-sample form; arXiv 2411.00640 leaves C/(C-1)
    out. With every item its own cluster and equal weights this is `standard_error`.
    """
    w = np.ones(len(values)) if weights is None else weights
    _, which = np.unique(clusters, return_inverse=True)
    sums = np.bincount(which, weights=w * (values - np.average(values, weights=w)))
    c = len(sums)
    total = float((sums**2).sum())
    return math.sqrt(total * c / (c - 1)) / float(w.sum()) if c > 1 else 0.0


def minimum_detectable_effect(standard_error: float) -> float:
    """The true difference that a comparison with this standard error finds with 80 % power at the 5 % level."""
    return POWER * standard_error


def items_needed(variance: float, effect: float) -> int:
    """Test items that make `effect` detectable when per-item paired differences have this variance."""
    return math.ceil(POWER**2 * variance / effect**2)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test, from the items that only A and only B got right."""
    n, k = only_a + only_b, min(only_a, only_b)
    tail: float = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return tuple(adjusted[np.argsort(order)].tolist())


def _counts(n: int, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(draws, n) how often each of n things comes up when n are drawn with repetition.

    Counted from indices: `rng.multinomial` draws one binomial per cell and is 15 times slower. float32 holds these
    small whole numbers exactly and halves the matrix product.
    """
    cells = rng.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(cells.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float32)


def cluster_totals(values: Floats, clusters: NDArray[np.generic] | None) -> Floats:
    """Sums (…, C) over clusters of the last axis (…, n); unchanged where every item is its own cluster."""
    if clusters is None:
        return values
    order = np.argsort(clusters, kind="stable")
    _, starts = np.unique(clusters[order], return_index=True)
    totals: Floats = np.add.reduceat(values[..., order], starts, axis=-1)
    return totals


def _bootstrap_means(
    values: Floats,
    weights: Floats,
    draws: int,
    rng: np.random.Generator,
    clusters: NDArray[np.generic] | None,
    seeds: NDArray[np.floating] | None = None,
) -> Floats:
    """(draws,) weighted means of (s, n) values when the s seeds and the n items are both drawn with repetition.

    Seeds and items are crossed, not nested: each draw takes one set of items for all its seeds, because every seed
    answered the same items and a hard item is hard for all of them. `seeds` (draws, s) are the shares of each seed
    where they were drawn already.
    """
    totals = cluster_totals(values * weights, clusters).astype(np.float64)
    masses = cluster_totals(weights[None, :], clusters)[0]
    s, c = totals.shape
    means = []
    for start in range(0, draws, block := max(1, DRAW_BLOCK // c)):
        m = min(block, draws - start)
        drawn = _counts(s, m, rng) / s if seeds is None else seeds[start : start + m]
        items = _counts(c, m, rng)
        means.append(np.einsum("dc,dc->d", drawn @ totals, items) / (items @ masses))
    return np.concatenate(means)


def bootstrap(
    values: Sequence[float] | Floats,
    rng: np.random.Generator,
    weights: Floats | None = None,
    clusters: NDArray[np.generic] | None = None,
    draws: int = DRAWS,
) -> Estimate:
    """Weighted mean of (n,) values with its bootstrap interval over items (or over whole clusters of items)."""
    x = np.asarray(values, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    return _estimate(x[None, :], w, _bootstrap_means(x[None, :], w, draws, rng, clusters))


def share(right: int, n: int) -> Estimate | None:
    """Exact interval (Clopper and Pearson 1934) of a share where none or all of n items are right; else None.

    Bootstrap draws of equal values never vary: 100 right items of 100 would claim certainty.
    """
    if 0 < right < n:
        return None
    bound = 0.025 ** (1 / n)
    return Estimate(1.0, bound, 1.0, n) if right else Estimate(0.0, 0.0, 1 - bound, n)


def _estimate(values: Floats, weights: Floats, means: Floats) -> Estimate:
    value = float((values * weights).sum() / (len(values) * weights.sum()))
    return interval(value, means, values.shape[1])


def interval(value: float, means: Floats, n: int) -> Estimate:
    """`value`, of n items, with the percentile interval of its bootstrap draws; it never lies outside."""
    low, high = (float(q) for q in np.percentile(means, LEVEL))
    return Estimate(value, min(low, value), max(high, value), n)


def p_of_draws(means: Floats) -> float:
    """Two-sided p of "no difference" from the draws that gave the interval: twice the share of those at or beyond 0.

    It is below 0.05 where the interval leaves out 0. One draw is counted on top, so that it is never 0 (Davison and
    Hinkley 1997, §4.2).
    """
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(means) + 1))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What A gained over B on the same items: `difference` is the mean of A - B, in the metric's own unit.

    by_seed   the difference of each pair of runs, in the order of their seeds
    mde       the smallest true difference this comparison would have found with 80 % power; where no item differs, the
              largest share of differing items that so many alike leave possible, None for what is no share
    p, test   two-sided p of "no difference": exact McNemar where both sides are one run of right-or-wrong items that
              were drawn one by one, else from the bootstrap draws
    variance  of the items' differences, each averaged over seeds; None for what is no mean over items of one task
    """

    difference: Estimate
    by_seed: tuple[float, ...]
    mde: float | None
    higher_is_better: bool
    p: float = 1.0
    test: Literal["mcnemar", "bootstrap"] = "bootstrap"
    variance: float | None = None

    @property
    def verdict(self) -> str:
        """ "better" or "worse" only where the interval leaves out 0, every seed agrees in sign, and the seeds alone do.

        The last is what `of_seeds` says: three draws of three seeds vary less than seeds do, so the bootstrap calls two
        equal methods different up to 14 times in 100 (decision 0015).
        """
        low, high = self.of_seeds
        for sign, word in ((1.0, "better"), (-1.0, "worse")):
            if self._one_sided(sign):
                if sign * (low if sign > 0 else high) > 0:
                    return word if self.higher_is_better else {"better": "worse", "worse": "better"}[word]
                return f"no difference shown ({len(self.by_seed)} seeds alone allow {low:+.3g} to {high:+.3g})"
        known = "" if self.mde is None else f"MDE {self.mde:.3g}"
        alike = "" if any(self.by_seed) or self.difference.high > self.difference.low else "no item differs"
        return f"no difference shown ({', '.join(filter(None, (alike, known)))})"

    @property
    def of_seeds(self) -> tuple[float, float]:
        """95 % interval of Student's t over the seeds' differences alone; that of the bootstrap for a single seed."""
        from scipy.special import stdtrit  # 0.1 s, for a table that is printed at the end

        s = len(self.by_seed)
        if s < 2:
            return self.difference.low, self.difference.high
        value = float(np.mean(self.by_seed))
        reach = float(stdtrit(s - 1, 0.975) * standard_error(np.array(self.by_seed)))
        return value - reach, value + reach

    def _one_sided(self, sign: float) -> bool:
        nearest = self.difference.low if sign > 0 else -self.difference.high
        return nearest > 0 and all(sign * d > 0 for d in self.by_seed)


@dataclass(frozen=True, slots=True)
class Paired:
    """Scores of two arms on one task: `a` and `b` (s, n), row i the same seed, column j the same item.

    weights   (n,) what an item weighs in the mean; None for all the same
    clusters  (n,) items with an equal entry go together; None where each stands for itself
    """

    a: Floats
    b: Floats
    weights: Floats | None = None
    clusters: NDArray[np.generic] | None = None

    def __post_init__(self) -> None:
        if self.a.shape != self.b.shape or self.a.ndim != 2 or not self.a.size:
            raise ValueError(f"scores of shape {self.a.shape} and {self.b.shape} cannot be paired by seed and item")

    @property
    def differences(self) -> Floats:
        """(s, n) A - B."""
        return np.asarray(self.a, np.float64) - np.asarray(self.b, np.float64)

    @property
    def masses(self) -> Floats:
        """(n,) the weights, 1 without any."""
        return np.ones(self.a.shape[1]) if self.weights is None else np.asarray(self.weights, np.float64)


def paired_bootstrap(
    a: Floats,
    b: Floats,
    rng: np.random.Generator,
    higher_is_better: bool = True,
    weights: Floats | None = None,
    clusters: NDArray[np.generic] | None = None,
    draws: int = DRAWS,
) -> Comparison:
    """A against B on (s, n) scores: row i of both is the same seed, column j the same item.

    Hierarchical: seeds, then items (or clusters) are drawn with repetition. With few seeds the interval is narrow by
    construction, which is why the verdict asks the seeds too and `by_seed` is shown beside it.
    """
    pair = Paired(np.asarray(a), np.asarray(b), weights, clusters)
    differences, w = pair.differences, pair.masses
    means = _bootstrap_means(differences, w, draws, rng, clusters)
    by_seed = tuple(((differences * w).sum(axis=1) / w.sum()).tolist())
    per_item = differences.mean(axis=0)
    variance = float(np.var(per_item, ddof=1)) if len(per_item) > 1 else 0.0
    found = of_draws(_estimate(differences, w, means), by_seed, means, higher_is_better)
    exact = _mcnemar_of(pair) if clusters is None else None
    found = replace(found, variance=variance) if differences.any() else replace(found, mde=_mde_of_none(pair))
    return found if exact is None else replace(found, p=exact, test="mcnemar")


def _mde_of_none(pair: Paired) -> float | None:
    """Exact bound (Clopper and Pearson 1934) on the share of differing items where none of those seen differs."""
    shares = np.isin(np.concatenate([pair.a, pair.b]), (0.0, 1.0)).all()
    return 1 - 0.025 ** (1 / pair.a.shape[1]) if shares else None


def of_draws(difference: Estimate, by_seed: tuple[float, ...], means: Floats, higher_is_better: bool) -> Comparison:
    """A comparison whose standard error and p are those of its bootstrap draws."""
    mde = minimum_detectable_effect(float(np.std(means)))
    return Comparison(difference, by_seed, mde, higher_is_better, p_of_draws(means))


def overall_bootstrap(
    tasks: Sequence[Paired], rng: np.random.Generator, higher_is_better: bool = True, draws: int = DRAWS
) -> Comparison:
    """A against B in the mean of the tasks' means, every task counted alike however many items it has.

    A draw takes one set of seeds for all tasks, because a seed is one tuned model, and a set of items for each task.
    """
    s = {len(task.a) for task in tasks}
    if len(s) != 1:
        raise ValueError(f"the tasks of one mean need the same seeds; found {sorted(s)} of them")
    seeds = _counts(only := s.pop(), draws, rng) / only
    means = np.mean([_bootstrap_means(t.differences, t.masses, draws, rng, t.clusters, seeds) for t in tasks], axis=0)
    by_task = np.stack([np.average(t.differences, axis=1, weights=t.masses) for t in tasks])  # (tasks, seeds)
    value, n = float(by_task.mean()), sum(t.a.shape[1] for t in tasks)
    return of_draws(interval(value, means, n), tuple(by_task.mean(axis=0).tolist()), means, higher_is_better)


def _mcnemar_of(pair: Paired) -> float | None:
    """None where a side is several runs, or some score neither right nor wrong."""
    if len(pair.a) > 1 or not np.isin(np.concatenate([pair.a, pair.b]), (0.0, 1.0)).all():
        return None
    return mcnemar(int(((pair.a == 1) & (pair.b == 0)).sum()), int(((pair.a == 0) & (pair.b == 1)).sum()))
