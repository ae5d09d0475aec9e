"""`private_clusters`: the budget shared out among clusters of the pool by private counts of the targets in each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from selection.answer import HIGHER, selection
from selection.cosine import unit_rows
from selection.histogram import histogram
from selection.k_means import Clusters, clustered, nearest_centre
from selection.private import Neighbours, Privacy, discrete_laplace, discrete_laplace_variance, target_rows
from selection.problem import Problem
from selection.random_rows import shuffled
from selection.survey import survey
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

STEPS = 20  # of k-means at most
Z99, EXCESS = 2.326, 5.0  # of the normal distribution; variance of a squared Laplace number in squares of its variance


@dataclass(frozen=True, slots=True)
class PrivateClusters:
    """Clusters with more targets get more rows; inside a cluster the rows nearest to its centre come first.

    representation  the signal to cluster in
    clusters        of the pool, as in `k_means`: it is public, and the targets have no part in finding them
    epsilon         what one release of all counts may tell; there is no delta
    neighbours, group_size  see `selection.private.Privacy`

    Counts below scale · ln(clusters), which noise alone reaches in less than one cluster on average, count as 0. Scores
    are a cluster's share of what is left; higher is better. Rows of clusters of share 0 come after all others, the
    nearest to their centres first. Raises `InputError` without targets, for vectors that are not finite, and where the
    counts are mostly noise.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    clusters: int = 64
    epsilon: float = 1.0
    neighbours: Neighbours = "replace_one"
    group_size: int = 1

    def __post_init__(self) -> None:
        _ = self.privacy
        if self.clusters < 1:
            raise InputError(f"clusters is {self.clusters}; give at least 1, such as 64")

    @property
    def privacy(self) -> Privacy:
        return Privacy(self.epsilon, 0.0, self.neighbours, self.group_size)

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = target_rows(problem, "representation")
        drawn = shuffled(problem, rng)
        drawn = drawn[~np.isin(drawn, survey(problem, "representation").zero)]
        found = clustered(problem, "representation", drawn, self.clusters, STEPS, rng)
        labels, similarity = found.cluster, found.cosine
        counts = counts_of(targets, found)
        scale = self.privacy.changes / self.epsilon
        released = counts + discrete_laplace(scale, len(counts), rng)
        shares = shares_of(released, scale, len(targets))
        rows = _chosen(problem, labels, similarity, shares)
        scores = shares[labels[rows]]
        reasons = [
            f"cluster={label} similarity={near:.4g}" + ("" if share > 0 else " filled=cluster_of_share_0")
            for label, near, share in zip(
                labels[rows].tolist(), similarity[rows].tolist(), scores.tolist(), strict=True
            )
        ]
        facts: dict[str, Any] = {
            "mechanism": "discrete Laplace",
            "targets": len(targets),
            "sensitivity": self.privacy.changes,
            "noise_sd": math.sqrt(discrete_laplace_variance(scale)),
            "threshold": threshold(scale, len(counts)),
            "released": released.tolist(),
            "picks_per_cluster": np.bincount(labels[rows], minlength=len(counts)).tolist(),
            "filled": {"cluster_of_share_0": int((scores == 0).sum())},
            "mean_score": float(scores.mean()),
            "cut_off": float(scores[scores > 0].min()),
            "pool_scores": histogram(shares[labels]),
        }
        return selection(rows, scores, reasons, HIGHER, **self.privacy.facts(), **facts)


def counts_of(targets: NDArray[Any], found: Clusters) -> Rows:
    """(c,) how many of `targets` (m, d) are nearest to the centre of each cluster."""
    if found.count == 1:
        return np.array([len(targets)])
    labels, _ = nearest_centre(np.asarray(unit_rows(targets).values), found.centres)
    return np.bincount(labels, minlength=found.count)


def threshold(scale: float, clusters: int) -> int:
    """The least count that is believed: noise alone reaches it in less than one of `clusters` on average."""
    return math.ceil(scale * math.log(clusters))


def shares_of(released: NDArray[np.int64], scale: float, m: int) -> Floats:
    """(c,) shares of the budget by the noisy counts `released` (c,) of m targets; they sum to 1.

    Raises `InputError` unless the counts are more than noise, 99 times in 100: where their mean square is below twice
    what noise of this scale has in all but 1 of 100 draws, or none is above the threshold.
    """
    c = len(released)
    noise = discrete_laplace_variance(scale) * (1 + Z99 * math.sqrt(EXCESS / c))
    kept = np.where(released >= max(threshold(scale, c), 1), released, 0)
    if c > 1 and (float(np.square(released).mean()) < 2 * noise or not kept.any()):
        raise InputError(
            f"the noise on the count of each of {c} clusters has standard deviation "
            f"{math.sqrt(discrete_laplace_variance(scale)):.3g} for {m} targets, and the released counts are hardly "
            "more than noise. Give more targets, fewer clusters or a larger epsilon; this release counts as spent"
        )
    return np.asarray(kept / kept.sum() if kept.any() else np.ones(c) / c)


def allocate(shares: Floats, sizes: Rows, budget: int) -> Rows:
    """(c,) whole numbers near `budget` times `shares` (c,), by largest remainder, none above its cluster's size.

    What a full cluster leaves goes to the others in proportion. They sum to `budget`, or to the size of all clusters
    of a share above 0 where that is less.
    """
    quotas = np.zeros(len(shares), np.int64)
    open_ = shares > 0
    while open_.any():
        left = budget - int(quotas[~open_].sum())
        wanted = np.where(open_, left * shares / shares[open_].sum(), 0.0)
        full = open_ & (wanted >= sizes)
        if not full.any():
            quotas[open_] = np.floor(wanted[open_]).astype(np.int64)
            order = np.lexsort((np.arange(len(shares)), np.floor(wanted) - wanted))
            quotas[order[: left - int(quotas[open_].sum())]] += 1
            return quotas
        quotas[full] = sizes[full]
        open_ &= ~full
    return quotas


def _chosen(problem: Problem, labels: Rows, similarity: Floats, shares: Floats) -> Rows:
    """The budget's rows: of each cluster as many as it is allotted, then rows of clusters of share 0."""
    quotas = allocate(shares, np.bincount(labels, minlength=len(shares)), problem.budget)
    order = np.lexsort((problem.keys, -similarity, labels))
    ordered = labels[order]
    places = np.empty(problem.n, np.int64)
    places[order] = np.arange(problem.n) - np.searchsorted(ordered, ordered)
    allotted = places < quotas[labels]
    first = np.lexsort((problem.keys, -similarity, -shares[labels], ~allotted))
    return first[: problem.budget]
