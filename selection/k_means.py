"""`k_means`: rows of every cluster, the clusters those of spherical k-means over the whole pool.

The same centres come out to the last bit in whatever blocks and order the pool is read: cosines are exact, ties go to
the lowest cluster, and the sums of directions are sums of whole numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from selection.answer import HIGHER, LOWER, NONE, selection, summary
from selection.cosine import GRID, cosines, unit_rows
from selection.mixing import in_proportion
from selection.problem import Block, Problem
from selection.random_rows import shuffled
from selection.semantic import rounding, singles
from selection.survey import directions, survey, unit_tiles
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

SEEDS_PER_CLUSTER = 16  # rows per cluster among which the first centres are drawn
ROWS_PER_CLUSTER = 256  # rows per cluster that move the centres; more hardly change them
WITHIN: dict[str, str] = {"nearest": HIGHER, "farthest": LOWER, "random": NONE}


@dataclass(frozen=True, slots=True)
class KMeansQuota:
    """Clusters by cosine give rows in turn, `equal` numbers or in proportion to their size, `nearest` first or not.

    representation  the signal to compare in: model, template, pooling and maximum length
    clusters        how many, at most: fewer where the pool holds fewer different directions
    within          which rows of a cluster go first: those nearest to its centre, farthest from it, or `random` ones
    quota           `proportional` to the rows of a cluster; `equal` parts, where a cluster out of rows leaves the rest
                    of its part to the others
    iterations      the most rounds of moving the centres; fewer where they come to rest

    Any beginning of the answer keeps to the quota too. Scores are cosines with the cluster's centre, higher is better
    for `nearest`, lower for `farthest`; 0 without direction for `random`. Rows of length 0 are in no cluster and come
    last. Raises `InputError` for vectors that are not finite.
    """

    compares: ClassVar[bool] = False

    representation: Spec
    clusters: int = 100
    within: Literal["nearest", "farthest", "random"] = "nearest"
    quota: Literal["proportional", "equal"] = "proportional"
    iterations: int = 20

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise InputError(f"clusters is {self.clusters}; give at least 1")
        if self.iterations < 0:
            raise InputError(f"iterations is {self.iterations}; give 0 or more")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        zero = survey(problem, "representation").zero
        drawn = shuffled(problem, rng)
        drawn = drawn[~np.isin(drawn, zero)]
        found = clustered(problem, "representation", drawn, self.clusters, self.iterations, rng)
        order = self._order(problem, found, drawn)
        cluster = found.cluster[order]
        sizes = np.bincount(cluster, minlength=found.count)
        shares = np.ones(found.count) if self.quota == "equal" else sizes.astype(np.float64)
        rows = order[in_proportion(shares, cluster, np.arange(found.count))][: problem.budget]
        others = zero[np.argsort(problem.keys[zero], kind="stable")][: problem.budget - len(rows)]
        reasons = [
            f"cluster={at} cosine={cosine:.4g}"
            for at, cosine in zip(found.cluster[rows].tolist(), found.cosine[rows].tolist(), strict=True)
        ]
        reasons += ["filled=no_direction"] * len(others)
        scores = np.concatenate([found.cosine[rows], np.zeros(len(others))])
        facts = _facts(found, sizes, np.bincount(found.cluster[rows], minlength=found.count))
        return self._answer(
            np.concatenate([rows, others]),
            scores,
            reasons,
            filled={"no_direction": len(others)},
            rows_of_length_0=len(zero),
            **facts,
        )

    def _order(self, problem: Problem, found: "Clusters", drawn: Rows) -> Rows:
        """All rows with a direction; those of one cluster in the order in which they go."""
        if self.within == "random":
            return drawn
        signs = -found.cosine if self.within == "nearest" else found.cosine
        return drawn[np.lexsort((drawn, problem.keys[drawn], signs[drawn]))]

    def _answer(self, rows: Rows, scores: Floats, reasons: list[str], **facts: Any) -> Selection:
        direction = WITHIN[self.within]
        if direction == NONE:
            return selection(rows, np.zeros(len(rows)), reasons, NONE, **facts)
        return selection(rows, scores, reasons, direction, **summary(scores, direction), **facts)


@dataclass(frozen=True, slots=True)
class Clusters:
    """A pool in clusters: `centres` (k, d) on the grid, of each row its `cluster` (n,) and its `cosine` (n,) with that.

    Rows of length 0 are counted to cluster 0 with cosine 0. `rounds` is how often the centres were moved; `rested`
    whether they came to rest.
    """

    centres: Floats
    cluster: Rows
    cosine: Floats
    rounds: int
    rested: bool

    @property
    def count(self) -> int:
        return len(self.centres)


def clustered(
    problem: Problem, signal: str, drawn: Rows, clusters: int, iterations: int, rng: np.random.Generator
) -> Clusters:
    """Spherical k-means (Dhillon and Modha 2001): a row belongs to the centre with the largest cosine, a centre is the
    direction of the sum of its rows' directions.

    `drawn` are the rows with a direction in random order: centres are first drawn among the first of them
    (`first_centres`), moved by up to ROWS_PER_CLUSTER times as many of them as there are clusters, and at last all rows
    are assigned. A centre that all its rows leave stays where it is. Takes n · k · d operations for that and as much,
    with the smaller n, for every round.
    """
    if not len(drawn):
        n = problem.n
        return Clusters(np.zeros((1, 1)), np.zeros(n, np.int64), np.zeros(n), 0, True)
    centres = first_centres(
        directions(problem.candidates[signal], drawn[: SEEDS_PER_CLUSTER * clusters]), clusters, rng
    )
    moving = np.zeros(problem.n, np.bool_)
    moving[drawn[: ROWS_PER_CLUSTER * clusters]] = True
    rounds, rested = 0, False
    while rounds < iterations and not rested:
        after = moved(centres, problem.reduce(_SumsOfBlock(signal, centres, moving), np.add))
        rested, rounds, centres = np.array_equal(after, centres), rounds + 1, after
    parts = problem.reduce(_NearestOfBlock(signal, centres), _chained)
    cluster, cosine = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return Clusters(centres, cluster.astype(np.int64), cosine, rounds, rested)


def first_centres(rows: Floats, k: int, rng: np.random.Generator) -> Floats:
    """At most k of `rows` (s, d) on the grid by k-means++ (Arthur and Vassilvitskii 2007): the first one, then each
    with a probability in proportion to its squared distance from the nearest centre so far, 2 - 2 cos.

    Fewer than k where no row is away from all centres.
    """
    same = 2 * rows.shape[1] ** 0.5 / GRID  # what the grid can make of the distance of a row from itself
    chosen, away = [0], np.full(len(rows), np.inf)
    while len(chosen) < k:
        away = np.minimum(away, 1 - cosines(rows[chosen[-1:]], rows)[0])
        weights = np.cumsum(np.where(away > same, away, 0.0))
        if weights[-1] == 0:
            break
        chosen.append(int(np.searchsorted(weights, rng.random() * weights[-1], side="right")))
    return rows[chosen]


def nearest_centre(rows: Floats, centres: Floats) -> tuple[Rows, Floats]:
    """(b,) of `rows` (b, d) the place of the centre (k, d) with the largest cosine, the first of several, and that.

    All are on the grid. Products of float32 rule out the centres that cannot be nearest.
    """
    products = singles(rows) @ singles(centres).T
    nearest = products.argmax(axis=1)
    reach = products.max(axis=1, keepdims=True) - np.float32(rounding(rows.shape[1]))
    close = np.flatnonzero((products >= reach).sum(axis=1) > 1)
    nearest[close] = cosines(centres, rows[close]).argmax(axis=0)
    return nearest, (rows * centres[nearest]).sum(axis=1) * GRID**-2


def moved(centres: Floats, sums: Floats) -> Floats:
    """(k, d) directions of the `sums` of clusters; one without rows, or whose rows cancel out, keeps its centre."""
    units = unit_rows(sums)
    return np.where(units.zero[:, None], centres, np.asarray(units.values))


@dataclass(frozen=True, slots=True)
class _SumsOfBlock:
    """(k, d) sums of the directions of the rows of each cluster that are `moving` (n,)."""

    signal: str
    centres: Floats
    moving: NDArray[np.bool_]

    def __call__(self, block: Block) -> Floats:
        sums = np.zeros_like(self.centres)
        rows = np.asarray(block.signals[self.signal])[self.moving[block.start : block.stop]]
        for _, units in unit_tiles(rows):
            values = np.asarray(units.values)
            nearest, _ = nearest_centre(values, self.centres)
            b = len(values)
            sums += csr_matrix((np.ones(b), nearest, np.arange(b + 1)), shape=(b, len(sums))).T @ values
        return sums


@dataclass(frozen=True, slots=True)
class _NearestOfBlock:
    signal: str
    centres: Floats

    def __call__(self, block: Block) -> tuple[tuple[Rows, Floats], ...]:
        tiles = unit_tiles(block.signals[self.signal])
        return tuple(nearest_centre(np.asarray(units.values), self.centres) for _, units in tiles)


def _chained(
    first: tuple[tuple[Rows, Floats], ...], second: tuple[tuple[Rows, Floats], ...]
) -> tuple[tuple[Rows, Floats], ...]:
    return first + second


def _facts(found: Clusters, sizes: NDArray[np.int64], taken: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "clusters": found.count,
        "empty_clusters": int((sizes == 0).sum()),
        "sizes": sizes.tolist(),
        "per_cluster": taken.tolist(),
        "used_up": int(((taken == sizes) & (sizes > 0)).sum()),
        "mean_cosine": float(np.sort(found.cosine[found.cosine != 0]).mean()) if sizes.sum() else 0.0,
        "rounds": found.rounds,
        "rested": found.rested,
    }
