"""Standard errors, bootstrap intervals and paired comparisons: plain functions of arrays.

Every interval is a 95 % percentile interval of `DRAWS` bootstrap draws from the generator that is passed in, so the
same scores and the same seed give the same interval. Values may be weighted (a loss per token is weighted by tokens):
every mean here is Σ w·x / Σ w.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

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


def clustered_standard_error(values: NDArray[np.floating], clusters: NDArray[np.generic]) -> float:
    """Standard error of the mean when values of one cluster go together (several questions about one passage).

    sqrt(Σ_c (Σ_{i in c} (x_i - mean))² · C/(C-1)) / n, the small-sample form; arXiv 2411.00640 leaves C/(C-1) out.
    """
    _, which = np.unique(clusters, return_inverse=True)
    sums = np.bincount(which, weights=values - values.mean())
    c = len(sums)
    total = float((sums**2).sum())
    return math.sqrt(total * c / (c - 1)) / len(values) if c > 1 else 0.0


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


def _cluster_totals(values: Floats, clusters: NDArray[np.generic] | None) -> Floats:
    """Sums (…, C) over clusters of the last axis (…, n); unchanged where every item is its own cluster."""
    if clusters is None:
        return values
    order = np.argsort(clusters, kind="stable")
    _, starts = np.unique(clusters[order], return_index=True)
    totals: Floats = np.add.reduceat(values[..., order], starts, axis=-1)
    return totals


def _bootstrap_means(
    values: Floats, weights: Floats, draws: int, rng: np.random.Generator, clusters: NDArray[np.generic] | None
) -> Floats:
    """(draws,) weighted means of (s, n) values when the s seeds and the n items are both drawn with repetition.

    Seeds and items are crossed, not nested: each draw takes one set of items for all its seeds, because every seed
    answered the same items and a hard item is hard for all of them.
    """
    totals = _cluster_totals(values * weights, clusters).astype(np.float64)
    masses = _cluster_totals(weights[None, :], clusters)[0]
    s, c = totals.shape
    means = []
    for start in range(0, draws, block := max(1, DRAW_BLOCK // c)):
        m = min(block, draws - start)
        seeds, items = _counts(s, m, rng) / s, _counts(c, m, rng)
        means.append(np.einsum("dc,dc->d", seeds @ totals, items) / (items @ masses))
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
    low, high = (float(q) for q in np.percentile(means, LEVEL))
    return Estimate(value, min(low, value), max(high, value), values.shape[1])


@dataclass(frozen=True, slots=True)
class Comparison:
    """What A gained over B on the same items: `difference` is the mean of A - B, in the metric's own unit.

    by_seed  the difference of each pair of runs, in the order of their seeds
    mde      the smallest true difference this comparison would have found with 80 % power
    p        exact McNemar, where both sides are one run of right-or-wrong items; else None
    """

    difference: Estimate
    by_seed: tuple[float, ...]
    mde: float
    higher_is_better: bool
    p: float | None = None

    @property
    def verdict(self) -> str:
        """ "better" or "worse" only where the interval leaves out 0 and every seed agrees in sign."""
        if self._one_sided(1.0):
            return "better" if self.higher_is_better else "worse"
        if self._one_sided(-1.0):
            return "worse" if self.higher_is_better else "better"
        return f"no difference shown (MDE {self.mde:.3g})"

    def _one_sided(self, sign: float) -> bool:
        nearest = self.difference.low if sign > 0 else -self.difference.high
        return nearest > 0 and all(sign * d > 0 for d in self.by_seed)


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
    construction, which is why the verdict asks every seed to agree and `by_seed` is shown beside it.
    """
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    s, n = differences.shape
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    means = _bootstrap_means(differences, w, draws, rng, clusters)
    by_seed = tuple(((differences * w).sum(axis=1) / w.sum()).tolist())
    p = _mcnemar_of(np.asarray(a)[0], np.asarray(b)[0]) if s == 1 else None
    mde = minimum_detectable_effect(float(np.std(means)))
    return Comparison(_estimate(differences, w, means), by_seed, mde, higher_is_better, p)


def _mcnemar_of(a: Floats, b: Floats) -> float | None:
    if not np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        return None
    return mcnemar(int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum()))
