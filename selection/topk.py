"""The best k rows of every ranked list over a pool of any size, exact to the last tie.

Blocks of rows are scored and cut to k, and cuts are merged: an associative fold, so the answer does not depend on the
blocks, and the matrix of all scores never exists. Ties are broken by ascending key, then row number.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.cosine import cosines, tile_rows, unit_rows
from selection.problem import KEYS, Block, Problem, Signal
from warehouse.errors import InputError
from warehouse.records import Floats, Rows

SCORE_BINS = 200
SCORE_EDGES = np.linspace(-1, 1, SCORE_BINS + 1)
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


@dataclass(frozen=True, slots=True)
class Census:
    """All rows seen, chosen or not.

    broken, first_broken  how many vectors are not finite, and the first such row (-1 without one)
    zero                  how many have length 0
    scores                (SCORE_BINS,) how many rows have their largest score in each bin of [-1, 1]
    """

    broken: int
    first_broken: int
    zero: int
    scores: NDArray[np.int64]

    def plus(self, other: "Census") -> "Census":
        firsts = [census.first_broken for census in (self, other) if census.broken]
        zero = self.zero + other.zero
        return Census(self.broken + other.broken, min(firsts, default=-1), zero, self.scores + other.scores)

    def histogram(self) -> dict[str, list[float]]:
        """The rows' largest scores as plain `edges` (bins + 1) and `counts`, from the first bin in use to the last."""
        used = np.flatnonzero(self.scores)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        return {"edges": SCORE_EDGES[first : last + 1].tolist(), "counts": self.scores[first:last].tolist()}


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
    """Scores one block and keeps the best k rows of each list: what `Problem.reduce` runs per block."""

    lists: Lists
    k: int

    def __call__(self, block: Block) -> Top:
        scores, finite, zero = self._score(block.signals[self.lists.signal])
        keys = np.broadcast_to(np.asarray(block.signals[KEYS]), scores.shape)
        rows = np.broadcast_to(np.arange(block.start, block.stop), scores.shape)
        broken = np.flatnonzero(~finite) + block.start
        seen = np.histogram(np.clip(scores.max(axis=0)[finite], -1, 1), SCORE_EDGES)[0]
        census = Census(len(broken), int(broken[0]) if len(broken) else -1, int(zero.sum()), seen)
        return cut(Top(self.k, scores, keys, rows, census))

    def _score(self, rows: Signal) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """One tile of rows after the other, so that the float64 copy never grows with the block."""
        step = max(tile_rows(rows), 1)
        parts = [self.lists.scores(rows[at : at + step]) for at in range(0, rows.shape[0], step)]
        scores, finite, zero = zip(*parts, strict=True)
        return np.concatenate(scores, axis=1), np.concatenate(finite), np.concatenate(zero)


def top_lists(problem: Problem, lists: Lists, k: int) -> Top:
    """The best min(k, n) rows of every list, best first. Raises `InputError` where a candidate is not finite."""
    top = problem.reduce(TopOfBlock(lists, k), merge)
    if top.census.broken:
        raise InputError(
            f"{top.census.broken} of {problem.n} candidate vectors in {lists.signal!r} hold NaN or infinity, "
            f"the first is row {top.census.first_broken}: measure them again"
        )
    order = np.lexsort((top.rows, top.keys, -top.scores))
    return _take(top, order)


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
