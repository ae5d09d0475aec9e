"""The best k rows of every ranked list over a pool of any size, exact to the last tie.

Blocks of rows are scored and cut to k, and cuts are merged: an associative fold, so the answer does not depend on the
blocks, and the matrix of all scores never exists. Ties are broken by ascending key, then row number. Where the work is
large, `selection/sieve.py` first rules out nearly all pairs of a row and a direction; the answer is the same.
"""

from dataclasses import dataclass
from functools import reduce
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.cosine import cosines, tile_rows, unit_rows
from selection.problem import KEYS, Block, InProcess, Problem, Signal, Sliced
from selection.sieve import Pairs, Route, Sieve, exact_scores, joined, one_core_each, route_for, sieve_of
from warehouse.errors import InputError
from warehouse.records import Floats, Rows

SCORE_BINS = 200
SCORE_EDGES = np.linspace(-1, 1, SCORE_BINS + 1)
CENSUS_ROWS = 4096  # about how many rows' scores the census counts
SIEVE_WORK = 1 << 31  # products of numbers (n · m · d) from which on the sieve pays: 0.05 s of float64
FIRST_ROWS = 2048  # scored exactly for the first floors, or 2k if that is more
SAMPLED = 64  # √(SAMPLED · k · n) rows are sieved for the floors, which balances their cost with that of the pairs kept
SAMPLE_BLOCK = 2048  # rows of it, and of the last few, per block
SAMPLE_ROWS = 1 << 16  # but no more than this
RUN = 64  # rows of the sample that lie side by side
PAIRS_KEPT = (
    1 << 22
)  # above this many pairs those kept so far are looked through again, and above half as many then, given up
MIX = ((np.uint64(0xBF58476D1CE4E5B9), np.uint64(27)), (np.uint64(0x94D049BB133111EB), np.uint64(31)))  # of splitmix64
STRIPS = 8  # a list is searched by the maxima of its strips first when it is this many times longer than 2k


@dataclass(frozen=True, slots=True)
class Lists:
    """How cosines with m directions become l scores per row.

    values   (m, d) directions on the grid, those of one list side by side
    starts   (l,) where each list's directions begin: a row's score in a list is its largest cosine there
    average  whether the lists' scores are averaged into one list
    """

    signal: str
    values: Signal
    starts: Rows
    average: bool = False

    @property
    def count(self) -> int:
        return 1 if self.average else len(self.starts)

    def scores(self, rows: Signal) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """(l, b) float64 scores of `rows`, and which of them are finite and which have length 0."""
        units = unit_rows(rows)
        products = cosines(self.values, units.values)
        own = products if len(self.starts) == len(products) else np.maximum.reduceat(products, self.starts, axis=0)
        return (_mean(own) if self.average else own), units.finite, units.zero

    def in_tiles(self, rows: Signal) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """The same, one tile of rows after the other, so that the float64 copy never grows with the block."""
        step = max(tile_rows(rows), 1)
        parts = [self.scores(rows[at : at + step]) for at in range(0, max(rows.shape[0], 1), step)]
        scores, finite, zero = zip(*parts, strict=True)
        return np.concatenate(scores, axis=1), np.concatenate(finite), np.concatenate(zero)


@dataclass(frozen=True, slots=True)
class Census:
    """All rows seen, chosen or not.

    Scores are counted of all rows of a pool of up to CENSUS_ROWS, else of about as many, which their keys choose: the
    same rows in whatever order they are stored. Each is exact; the shape is that of the pool, the counts are not.

    broken, first_broken  how many vectors are not finite, and the first such row (-1 without one)
    zero                  how many have length 0
    scores                (SCORE_BINS,) how many of the rows counted have their largest score in each bin of [-1, 1]
    """

    broken: int
    first_broken: int
    zero: int
    scores: NDArray[np.int64]

    def plus(self, other: "Census") -> "Census":
        firsts = [census.first_broken for census in (self, other) if census.broken]
        zero = self.zero + other.zero
        return Census(self.broken + other.broken, min(firsts, default=-1), zero, self.scores + other.scores)

    def histogram(self, n: int) -> dict[str, Any]:
        """The rows' largest scores as plain `edges` (bins + 1) and `counts`, from the first bin in use to the last.

        `of` is n, the rows of the pool, of which as many were counted as `counts` sum to.
        """
        used = np.flatnonzero(self.scores)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        return {"edges": SCORE_EDGES[first : last + 1].tolist(), "counts": self.scores[first:last].tolist(), "of": n}


@dataclass(frozen=True, slots=True)
class Top:
    """The best min(k, n) rows of l lists: `scores`, `keys` and `rows`, each (l, min(k, n)), and the rows' census."""

    k: int
    scores: Floats
    keys: NDArray[np.uint64]
    rows: Rows
    census: Census


@dataclass(frozen=True, slots=True)
class TopOfBlock:
    """Scores one block of n rows in all and keeps the best k of each list: what `Problem.reduce` runs per block."""

    lists: Lists
    k: int
    n: int

    def __call__(self, block: Block) -> Top:
        scores, finite, zero = self.lists.in_tiles(block.signals[self.lists.signal])
        own = np.asarray(block.signals[KEYS])
        keys = np.broadcast_to(own, scores.shape)
        rows = np.broadcast_to(np.arange(block.start, block.stop), scores.shape)
        census = census_of(block, finite, zero, scores[:, counted(own, self.n) & finite])
        return cut(Top(self.k, scores, keys, rows, census))


@dataclass(frozen=True, slots=True)
class Sifted:
    """The pairs that rows seen so far left in the sieve, in parts, or none where they are `crowded`; and the census."""

    parts: tuple[Pairs, ...]
    census: Census
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class SiftBlock:
    """Sieves one block of n rows in all, and counts it."""

    lists: Lists
    sieve: Sieve
    n: int

    @property
    def most(self) -> int:
        """How many pairs may be kept. Where there are more, scoring them one by one is no faster than scoring all."""
        return max(PAIRS_KEPT, 8 * self.sieve.k * self.lists.count)

    def __call__(self, block: Block) -> Sifted:
        rows = np.asarray(block.signals[self.lists.signal])
        pairs, finite, zero = self.sieve.sift(rows, block.start, self.most)
        if len(pairs) > self.most:
            return Sifted((), Census(0, -1, 0, np.zeros(SCORE_BINS, np.int64)), True)
        seen = counted(np.asarray(block.signals[KEYS]), self.n) & finite
        return Sifted((pairs,), census_of(block, finite, zero, self.lists.in_tiles(rows[seen])[0]))

    def merge(self, first: Sifted, second: Sifted) -> Sifted:
        """Both, without the pairs that both together rule out if there are many."""
        parts, census = first.parts + second.parts, first.census.plus(second.census)
        if first.crowded or second.crowded:
            return Sifted((), census, True)
        if sum(map(len, parts)) <= self.most:
            return Sifted(parts, census)
        left = self.sieve.pruned(joined(list(parts)))[1]
        return Sifted((), census, True) if len(left) > self.most // 2 else Sifted((left,), census)


def top_lists(problem: Problem, lists: Lists, k: int) -> Top:
    """The best min(k, n) rows of every list, best first. Raises `InputError` where a candidate is not finite."""
    top = _sieved(problem, lists, k)
    if top is None:
        top = problem.reduce(TopOfBlock(lists, k, problem.n), merge)
        _check_finite(top.census, problem, lists)
    order = np.lexsort((top.rows, top.keys, -top.scores))
    return _take(top, order)


def _check_finite(census: Census, problem: Problem, lists: Lists) -> None:
    if census.broken:
        raise InputError(
            f"{census.broken} of {problem.n} candidate vectors in {lists.signal!r} hold NaN or infinity, "
            f"the first is row {census.first_broken}: measure them again"
        )


def counted(keys: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    """Which rows' scores the census counts: all of n, or those whose keys, mixed, are the lowest: CENSUS_ROWS or so."""
    if n <= CENSUS_ROWS:
        return np.ones(len(keys), np.bool_)
    mixed = keys ^ (keys >> np.uint64(30))
    for factor, shift in MIX:
        mixed = mixed * factor
        mixed ^= mixed >> shift
    return mixed < np.uint64((CENSUS_ROWS << 64) // n)


def census_of(block: Block, finite: NDArray[np.bool_], zero: NDArray[np.bool_], scores: Floats) -> Census:
    """The census of a block: its rows that are `finite`, of length `zero`, and the `scores` (l, c) of those counted."""
    broken = np.flatnonzero(~finite) + block.start
    seen = np.histogram(np.clip(scores.max(axis=0), -1, 1), SCORE_EDGES)[0]
    return Census(len(broken), int(broken[0]) if len(broken) else -1, int(zero.sum()), seen)


def _sieved(problem: Problem, lists: Lists, k: int) -> Top | None:
    """The best k by way of a sieve; None where that does not pay."""
    signal, n = problem.candidates[lists.signal], problem.n
    m, d = lists.values.shape
    work, first = n * m * d, max(FIRST_ROWS, 2 * k)
    dense = isinstance(lists.values, np.ndarray) and isinstance(signal[:1], np.ndarray)
    if lists.average or not dense or work < SIEVE_WORK or n < 8 * first:
        return None
    route = route_for(work)
    with one_core_each(route):
        sample = _sample(signal, n, max(2 * first, min(isqrt(SAMPLED * k * n), SAMPLE_ROWS, n // 4)))
        sieve = _sieve(lists, k, sample[:: len(sample) // first], route)
        if sieve is None:
            return None
        per_block, blocks = SiftBlock(lists, sieve, n), InProcess(SAMPLE_BLOCK)
        those = {lists.signal: sample, KEYS: np.arange(len(sample), dtype=np.uint64)}
        sifted = blocks(those, len(sample), per_block, per_block.merge)
        if not sifted.crowded:
            sieve = sieve.pruned(joined(list(sifted.parts)))[0]
            per_block = SiftBlock(lists, sieve, n)
            sifted = problem.reduce(per_block, per_block.merge)
    if sifted.crowded:
        return None
    _check_finite(sifted.census, problem, lists)
    return _scored(problem, lists, sieve, sifted)


def _sample(signal: Signal | Sliced, n: int, wanted: int) -> NDArray[Any]:
    """About `wanted` of n rows in runs, evenly spaced."""
    starts = np.linspace(0, n - RUN, -(-wanted // RUN)).astype(np.int64)
    return np.concatenate([np.asarray(signal[at : at + RUN]) for at in starts.tolist()])


def _sieve(lists: Lists, k: int, sample: NDArray[Any], route: Route) -> Sieve | None:
    """A sieve with the floors that some rows, `sample` (s, d), prove by their exact scores."""
    scores, finite, _ = lists.in_tiles(sample)
    scores[:, ~finite] = -np.inf
    floors = np.partition(scores, -k, axis=1)[:, -k]
    return sieve_of(np.asarray(lists.values), lists.starts, k, floors, sample, route)


def _scored(problem: Problem, lists: Lists, sieve: Sieve, sifted: Sifted) -> Top:
    """The best of the pairs that are left, by their exact scores."""
    pairs = sieve.pruned(joined(list(sifted.parts)))[1]
    pairs = pairs.taken(np.argsort(pairs.rows, kind="stable"))
    some, at = np.unique(pairs.rows, return_inverse=True)

    def scores_of(block: Block) -> Floats:
        part = slice(*np.searchsorted(at, [block.start, block.stop]))
        vectors = np.asarray(block.signals[lists.signal])
        return exact_scores(sieve.values, vectors, pairs.directions[part], at[part] - block.start)

    vectors = Some(problem.candidates[lists.signal], some)
    scores = InProcess(SAMPLE_BLOCK)({lists.signal: vectors}, len(some), scores_of, lambda a, b: np.concatenate([a, b]))
    return _best_of_pairs(sieve.list_of[pairs.directions], pairs.rows, scores, problem.keys, sieve.k, sifted.census)


def _best_of_pairs(lists: Rows, rows: Rows, scores: Floats, keys: NDArray[np.uint64], k: int, census: Census) -> Top:
    """The best k rows of each list, from pairs in any order where a list may have a row more than once."""
    order = np.lexsort((rows, lists))
    lists, rows = lists[order], rows[order]
    firsts = np.flatnonzero((np.diff(lists, prepend=-1) != 0) | (np.diff(rows, prepend=-1) != 0))
    lists, rows, scores = lists[firsts], rows[firsts], np.maximum.reduceat(scores[order], firsts)
    order = np.lexsort((rows, keys[rows], -scores, lists))
    sizes = np.bincount(lists)
    ranks = np.arange(len(lists)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    at = order[ranks < k].reshape(-1, k)
    return Top(k, scores[at], keys[rows[at]], rows[at], census)


@dataclass(frozen=True, slots=True)
class Some:
    """Some rows of a signal that may be too large for memory."""

    signal: Signal | Sliced
    rows: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.signal.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: slice | Rows) -> Signal:
        return self.signal[self.rows[at]]


def merge(first: Top, second: Top) -> Top:
    """The best k of both; associative and commutative."""
    scores = np.concatenate([first.scores, second.scores], axis=1)
    keys = np.concatenate([first.keys, second.keys], axis=1)
    rows = np.concatenate([first.rows, second.rows], axis=1)
    return cut(Top(first.k, scores, keys, rows, first.census.plus(second.census)))


def cut(top: Top) -> Top:
    """`top` with the best k entries of every list, in no particular order."""
    if top.scores.shape[1] <= top.k:
        return top
    return _take(top, np.stack([best(*entry, top.k) for entry in zip(top.scores, top.keys, top.rows, strict=True)]))


def best(scores: Floats, keys: NDArray[np.uint64], rows: Rows, k: int) -> Rows:
    """Positions of the k largest `scores`, ties by ascending key then row, in ascending position. Needs k ≤ length."""
    lowest = _kth_largest(scores, k)
    kept = np.flatnonzero(scores >= lowest)
    excess = len(kept) - k
    if excess == 0:
        return kept
    tied = kept[scores[kept] == lowest]
    worst = tied[np.lexsort((rows[tied], keys[tied]))[len(tied) - excess :]]
    return np.setdiff1d(kept, worst, assume_unique=True)


def ranked(scores: Floats, keys: NDArray[np.uint64], k: int) -> Rows:
    """Rows of the k largest `scores` (n,), best first, ties by ascending key then row."""
    rows = np.arange(len(scores))
    kept = best(scores, keys, rows, k)
    return kept[np.lexsort((kept, keys[kept], -scores[kept]))]


def _mean(lists: Floats) -> Floats:
    # one list after the other: numpy's own mean adds in another order when there is a single column
    return np.asarray(reduce(np.add, lists) / len(lists))[None, :]


def _kth_largest(scores: Floats, k: int) -> Any:
    if len(scores) > 2 * STRIPS * k:
        # k strips have a maximum of at least the k-th largest maximum, so nothing below it is among the k largest
        strips = scores[: len(scores) // STRIPS * STRIPS].reshape(STRIPS, -1).max(axis=0)
        scores = scores[scores >= np.partition(strips, -k)[-k]]
    return np.partition(scores, -k)[-k]


def _take(top: Top, at: Rows) -> Top:
    scores = np.take_along_axis(top.scores, at, axis=1)
    keys = np.take_along_axis(top.keys, at, axis=1)
    return Top(top.k, scores, keys, np.take_along_axis(top.rows, at, axis=1), top.census)
