"""Clusters of a pool by the spectrum of its nearest-neighbour graph.

Rows are compared by cosine with their k nearest, exactly and in blocks; the graph is sparse, its leading eigenvectors
come from Lanczos iterations, and small k-means on them gives the clusters. Everything is done in the order of the rows'
keys, so how the pool is stored changes nothing.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from selection.cosine import GRID, Units, unit_rows
from selection.problem import Block, Problem, Signal, Sliced, cores
from selection.survey import unit_tiles
from warehouse.errors import InputError
from warehouse.records import Floats, Rows

QUERIES, BLOCK = 2048, 4096  # rows compared at once with rows: 32 MB of cosines per thread
DENSE = 256  # a graph of so few rows is solved whole
STARTS = 10  # of k-means
LLOYD_STEPS = 100
ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Clusters:
    """of (n,) int64 from 0, in the order of their first row by key; `eigenvalues` of the graph, largest first.

    distinct  rows with a vector of their own, which is what the graph is made of
    zero      rows of length 0: a cluster of their own, the last, where there are any
    count     clusters
    """

    of: Rows
    eigenvalues: Floats
    distinct: int
    zero: int
    count: int


def clusters(
    problem: Problem, signal: str, neighbours: int, count: int | None, most: int, rng: np.random.Generator
) -> Clusters:
    """`count` clusters of the rows by their vectors in `signal`, or as many, up to `most`, as the eigengap says.

    Rows with the same vector are one vertex. Memory is n times `neighbours`, plus blocks. Raises `InputError` for
    vectors that are not finite. The eigenvectors are floating-point sums over the pool: another machine or library may
    put a row that lies between two clusters into the other one.
    """
    vertices, vertex_of, zero = distinct(problem, signal)
    if len(vertices) == 0:
        return Clusters(np.zeros(problem.n, np.int64), np.zeros(0), 0, problem.n, 1)
    found, eigenvalues = _of_vertices(problem.candidates[signal], vertices, neighbours, count, most, rng)
    together = np.where(vertex_of >= 0, found[vertex_of], found.max() + 1)
    own = int(found.max()) + 1
    return Clusters(together, eigenvalues, len(vertices), zero, own + (zero > 0))


def distinct(problem: Problem, signal: str) -> tuple[Rows, Rows, int]:
    """One row (v,) for every distinct vector but 0, by ascending key; the place in it of every row (n,), -1 for a zero
    vector; and how many of those there are.
    """
    hashes, zero, broken = problem.reduce(_Hashes(signal), _joined)
    if broken:
        raise InputError(f"{broken} of {problem.n} vectors in {signal!r} hold NaN or infinity: measure them again")
    order = problem.by_key
    order = order[~zero[order]]
    _, first, of = np.unique(hashes[order], return_index=True, return_inverse=True)
    by_place = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[by_place] = np.arange(len(first))
    places = np.full(problem.n, -1, np.int64)
    places[order] = rank[of]
    return order[first[by_place]], places, int(zero.sum())


@dataclass(frozen=True, slots=True)
class _Hashes:
    """For one block: a hash of every unit vector (b,) uint64, which have length 0, and how many are not finite."""

    signal: str

    def __call__(self, block: Block) -> tuple[NDArray[np.uint64], NDArray[np.bool_], int]:
        parts = [self._hashed(units) for _, units in unit_tiles(block.signals[self.signal])]
        hashes, zero, broken = zip(*parts, strict=True)
        return np.concatenate(hashes), np.concatenate(zero), sum(broken)

    def _hashed(self, units: Units) -> tuple[NDArray[np.uint64], NDArray[np.bool_], int]:
        words = np.asarray(units.values).astype(np.int64).view(np.uint64)
        factors = np.cumprod(np.full(words.shape[1], ODD))  # odd, so no two columns weigh the same
        mixed = words * factors
        mixed ^= mixed >> np.uint64(29)
        return (mixed * ODD).sum(axis=1, dtype=np.uint64), units.zero, int((~units.finite).sum())


def _joined(first: tuple[Any, Any, int], second: tuple[Any, Any, int]) -> tuple[Any, Any, int]:
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]), first[2] + second[2]


def nearest_neighbours(signal: Signal | Sliced, rows: Rows, k: int) -> tuple[Rows, Floats]:
    """Places (v, k) in `rows` (v,) of the k most similar others of each, and their cosines; k below v.

    Exact but for the rounding of float32; ties go to the earlier place. Takes 2 v² d operations and reads the vectors
    v / QUERIES times, so that none of them need be kept.
    """
    slabs = [rows[at : at + QUERIES] for at in range(0, len(rows), QUERIES)]
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(cores()) as threads:
        found = list(threads.map(lambda at: _nearest(signal, rows, slabs[at], at * QUERIES, k), range(len(slabs))))
    return np.concatenate([places for places, _ in found]), np.concatenate([cosines for _, cosines in found])


def _nearest(signal: Signal | Sliced, rows: Rows, slab: Rows, start: int, k: int) -> tuple[Rows, Floats]:
    own = _units(signal, slab)
    places, values = np.zeros((len(slab), 0), np.int64), np.zeros((len(slab), 0), np.float32)
    for at, block in _blocks(signal, rows):
        cosines = own @ block.T
        inside = np.arange(max(start, at), min(start + len(slab), at + len(block)))
        cosines[inside - start, inside - at] = -np.inf  # a row is no neighbour of its own
        places, values = _best(places, values, at, cosines, k)
    return places, values.astype(np.float64)


def _best(
    places: Rows, values: NDArray[np.float32], start: int, cosines: NDArray[np.float32], k: int
) -> tuple[Rows, NDArray[np.float32]]:
    """The k largest of `values` (q, 0 or k) at `places` and of `cosines` (q, b) at places from `start` on.

    Each row by descending cosine, ties by place.
    """
    known = values.shape[1]
    # only what beats the k-th so far can matter, and of what ties with it only the earlier places, which are there
    hits = cosines > values[:, [-1]] if known else cosines >= np.partition(cosines, -k, axis=1)[:, [-k]]
    rows, columns = np.nonzero(hits)
    owners = np.concatenate([np.repeat(np.arange(len(values)), known), rows])
    every = np.concatenate([places.ravel(), columns + start])
    found = np.concatenate([values.ravel(), cosines[rows, columns]])
    order = np.lexsort((every, -found, owners))
    ranks = np.arange(len(order)) - np.searchsorted(owners[order], owners[order], side="left")
    order = order[ranks < k]
    return every[order].reshape(-1, k), found[order].reshape(-1, k)


def _blocks(signal: Signal | Sliced, rows: Rows) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for at in range(0, len(rows), BLOCK):
        yield at, _units(signal, rows[at : at + BLOCK])


def _units(signal: Signal | Sliced, rows: Rows) -> NDArray[np.float32]:
    """Those vectors of unit length, (b, d) float32."""
    return np.asarray(unit_rows(signal[rows]).values / GRID, np.float32)


def affinity(places: Rows, cosines: Floats) -> csr_matrix:
    """(v, v) symmetric D^-½ A D^-½ of the graph where each vertex is joined to its neighbours `places` (v, k).

    A_ij = exp(-|x_i - x_j|² / (2 σ²)) for unit vectors, σ the median distance of the joined; 1 where σ is 0.
    """
    v, k = places.shape
    squares = np.maximum(2 - 2 * cosines, 0.0)
    spread = float(np.median(squares))
    weights = np.exp(-squares / (2 * spread)) if spread > 0 else np.ones_like(squares)
    one_way = csr_matrix((weights.ravel(), places.ravel(), np.arange(0, v * k + 1, k)), (v, v))
    both = one_way.maximum(one_way.T)
    scale = diags_array(1 / np.sqrt(np.maximum(np.asarray(both.sum(axis=1)).ravel(), np.finfo(np.float64).tiny)))
    return csr_matrix(scale @ both @ scale)


def leading(graph: csr_matrix, k: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The k largest eigenvalues (k,), largest first, of the symmetric `graph` (v, v), and their vectors (v, k)."""
    v = graph.shape[0]
    if v <= max(DENSE, k + 1):
        values, vectors = np.linalg.eigh(graph.toarray())
    else:
        start = rng.standard_normal(v)
        values, vectors = eigsh(graph, k=k, which="LA", v0=start, ncv=min(v, max(4 * k, 64)), rng=rng)
    order = np.argsort(-values, kind="stable")[:k]
    return values[order], vectors[:, order]


def eigengap(values: Floats, most: int) -> int:
    """How many of the eigenvalues (descending) stand before the widest gap, from 1 to `most`."""
    gaps = values[:-1] - values[1:]
    return int(gaps[:most].argmax()) + 1 if len(gaps) else 1


def _of_vertices(
    signal: Signal | Sliced, vertices: Rows, neighbours: int, count: int | None, most: int, rng: np.random.Generator
) -> tuple[Rows, Floats]:
    """The cluster (v,) of every vertex, numbered as they come, and the leading eigenvalues of the graph."""
    v = len(vertices)
    if v == 1:
        return np.zeros(1, np.int64), np.ones(1)
    graph = affinity(*nearest_neighbours(signal, vertices, min(neighbours, v - 1)))
    with threadpool_limits(limits=1, user_api="blas"):
        values, vectors = leading(graph, min((count or most) + 1, v), rng)
    k = min(count, v) if count else eigengap(values, most)
    rows = vectors[:, :k]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return _in_order_seen(k_means(rows / np.where(lengths > 0, lengths, 1.0), k, rng)), values


def k_means(points: Floats, k: int, rng: np.random.Generator) -> Rows:
    """(v,) clusters of few-dimensional `points` (v, c): the best of STARTS runs by the sum of squared distances.

    Starts are drawn as in k-means++. Clusters may stay empty where points coincide.
    """
    runs = [_lloyd(points, _seeds(points, k, rng)) for _ in range(STARTS)]
    return min(runs, key=lambda run: run[1])[0]


def _seeds(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    """(k, c) centres: each next point drawn in proportion to its squared distance from those before it."""
    centres = [points[rng.integers(len(points))]]
    squares = np.square(points - centres[0]).sum(axis=1)
    for _ in range(1, k):
        heights = np.cumsum(squares)
        at = int(np.searchsorted(heights, rng.random() * heights[-1], side="right"))
        centres.append(points[min(at, len(points) - 1)])
        squares = np.minimum(squares, np.square(points - centres[-1]).sum(axis=1))
    return np.stack(centres)


def _lloyd(points: Floats, centres: Floats) -> tuple[Rows, float]:
    """Labels (v,) and the sum of squared distances when assignments no longer change."""
    labels = np.full(len(points), -1, np.int64)
    for _ in range(LLOYD_STEPS):
        squares = np.square(points).sum(axis=1)[:, None] - 2 * points @ centres.T + np.square(centres).sum(axis=1)
        nearest = squares.argmin(axis=1).astype(np.int64)
        if np.array_equal(nearest, labels):
            break
        labels, counts = nearest, np.bincount(nearest, minlength=len(centres))
        sums = np.stack([np.bincount(labels, column, len(centres)) for column in points.T], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return labels, float(np.square(points - centres[labels]).sum())


def _in_order_seen(labels: Rows) -> Rows:
    _, first, of = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[of]
