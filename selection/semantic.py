"""Rows that mean the same: near-duplicates by their vectors, and the rows next to those of another set.

All is exact. Products of float32 rule out the pairs that cannot matter; what they leave within reach of rounding is
decided by the grid cosines of `selection/cosine.py`, so the answer is a function of the vectors and their order alone,
whatever the blocks, the threads and the library. A vector of length 0 resembles nothing.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from selection.cosine import GRID, Units, cosines, unit_rows
from selection.problem import Block, InProcess, Problem, Sliced, cores
from selection.survey import unit_tiles
from selection.topk import Lists, top_lists
from warehouse.errors import InputError
from warehouse.records import Floats, Rows

BLOCK_ROWS = 1024
VECTORS = "vectors"  # what errors and blocks call the signal

Vectors = NDArray[Any] | Sliced
Single = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pairs:
    """k rows of a pool, the row that each resembles, and their cosines.

    rows          (k,) int64
    others        (k,) int64
    similarities  (k,) float64, at most 1
    """

    rows: Rows
    others: Rows
    similarities: Floats


def singles(values: Floats) -> Single:
    """Directions on the grid as float32 vectors of unit length."""
    return (values / GRID).astype(np.float32)


def rounding(d: int) -> float:
    """How far a cosine and the product of its `singles` of d numbers may be apart, with room to spare.

    The sum of d products of float32 is off by at most d · 2⁻²⁴ in any order, the rounding of factors by 2 · 2⁻²⁴;
    this is twice that.
    """
    return (d + 8) * 2.0**-23


def near_duplicates(
    vectors: Vectors, rows: Rows, threshold: float, *, block_rows: int = BLOCK_ROWS, threads: int | None = None
) -> Pairs:
    """The rows to drop: those whose cosine with an earlier row that stays is at least `threshold`.

    `vectors` (n, d) are those of `rows` (n,), which ascend and which the answer names. Rows are decided in their order;
    `others` are the witnesses, the lowest such row for each. Two rows that stay are never near-duplicates. Takes n · d
    operations for every row that stays, and memory for `threads` (default: all cores) blocks of rows and of cosines.
    Raises `InputError` for a vector that is not finite, naming its row.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is {threshold}; give one between 0 and 1")
    n = len(rows)
    state = _State(vectors, rows, threshold, np.ones(n, np.bool_), np.full(n, -1, np.int64), np.zeros(n))
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads or cores()) as pool:
        for start in range(0, n, block_rows):
            block = state.block(slice(start, min(start + block_rows, n)))
            earlier = [slice(at, at + block_rows) for at in range(0, start, block_rows)]
            for hits in pool.map(lambda part, block=block: state.meet(block, part), earlier):
                state.drop(hits)
            state.meet_itself(block)
    dropped = np.flatnonzero(~state.kept)
    return Pairs(rows[dropped], rows[state.witnesses[dropped]], state.similarities[dropped])


@dataclass(frozen=True, slots=True)
class _Units:
    """Some vectors by their `places` (b,): on the grid (b, d) float64, and of unit length (b, d) float32."""

    places: Rows
    grid: Floats
    single: Single


@dataclass(frozen=True, slots=True)
class _State:
    """The pass over n vectors, here called by their places: which stay, and for the others their witness and cosine."""

    vectors: Vectors
    rows: Rows
    threshold: float
    kept: NDArray[np.bool_]
    witnesses: Rows
    similarities: Floats

    def block(self, part: slice) -> _Units:
        """The vectors of `part` that stay as far as is known."""
        places = np.flatnonzero(self.kept[part]) + part.start
        units = unit_rows(np.asarray(self.vectors[part])[places - part.start])
        if not units.finite.all():
            row = self.rows[places[np.argmin(units.finite)]]
            raise InputError(f"the vector of row {row} holds NaN or infinity: measure it again")
        values = np.asarray(units.values)
        return _Units(places, values, singles(values))

    def meet(self, block: _Units, part: slice) -> Pairs:
        """Those of `block` that resemble a kept vector of the earlier `part`, each with the lowest: places.

        Vectors that meanwhile were dropped for a vector before `part` may be left out: nobody asks about them.
        """
        mine = np.flatnonzero(self.kept[block.places])
        other = self.block(part)
        products = block.single[mine] @ other.single.T
        low = self._low(block)
        near = np.flatnonzero(products.max(axis=1, initial=-1) >= low)
        found = [(i, *self._first(block, int(mine[i]), other, np.flatnonzero(products[i] >= low))) for i in near]
        hits = [(block.places[mine[i]], other.places[at], cosine) for i, at, cosine in found if at >= 0]
        places, witnesses, similarities = zip(*hits, strict=True) if hits else ((), (), ())
        return Pairs(np.array(places, np.int64), np.array(witnesses, np.int64), np.array(similarities, np.float64))

    def meet_itself(self, block: _Units) -> None:
        """Drop those of `block` that resemble an earlier one of it."""
        mine = np.flatnonzero(self.kept[block.places])
        near = np.tril(block.single[mine] @ block.single[mine].T >= self._low(block), -1)
        for i in np.flatnonzero(near.any(axis=1)):
            candidates = mine[near[i]]
            candidates = candidates[self.kept[block.places[candidates]]]
            at, cosine = self._first(block, int(mine[i]), block, candidates)
            if at >= 0:
                self.drop(Pairs(block.places[mine[[i]]], block.places[[at]], np.array([cosine])))

    def drop(self, hits: Pairs) -> None:
        """Drop what was found, but for what an earlier witness has."""
        new = self.kept[hits.rows]
        self.kept[hits.rows[new]] = False
        self.witnesses[hits.rows[new]] = hits.others[new]
        self.similarities[hits.rows[new]] = hits.similarities[new]

    def _low(self, block: _Units) -> float:
        return self.threshold - rounding(block.single.shape[1])

    def _first(self, block: _Units, i: int, other: _Units, candidates: Rows) -> tuple[int, float]:
        """The first of `candidates` in `other` that the i-th of `block` resembles, and their cosine; -1 for none."""
        exact = cosines(other.grid[candidates], block.grid[i : i + 1])[:, 0]
        hits = np.flatnonzero(exact >= self.threshold)
        return (int(candidates[hits[0]]), min(float(exact[hits[0]]), 1.0)) if len(hits) else (-1, 0.0)


def resembling(
    vectors: Vectors, rows: Rows, others: NDArray[Any], at_least: float, *, block_rows: int = BLOCK_ROWS
) -> Pairs:
    """The rows whose cosine with one of `others` (m, d) is at least `at_least`, ascending.

    `vectors` (n, d) are those of `rows` (n,) ascending; each row found has the most similar of `others`, the lowest of
    those as similar. Raises `InputError` for a vector that is not finite.
    """
    theirs = _references(others)

    def found(block: Block) -> Pairs:
        own, tiles = rows[block.start : block.stop], unit_tiles(np.asarray(block.signals[VECTORS]))
        return _joined([_nearest(units, own[tile], theirs, at_least) for tile, units in tiles])

    nothing = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    if not (len(rows) and len(theirs)):
        return nothing
    return InProcess(block_rows)({VECTORS: vectors}, len(rows), found, lambda a, b: _joined([a, b]))


def neighbours(vectors: Vectors, rows: Rows, others: NDArray[Any], k: int) -> Pairs:
    """The min(k, n) nearest rows of each of `others` (m, d), one after the other, the nearest first, ties by row.

    `vectors` (n, d) are those of `rows` (n,) ascending. Raises `InputError` for a vector that is not finite.
    """
    theirs = _references(others)
    m, most = len(theirs), min(k, len(rows))
    if not m * most:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    problem = Problem(budget=most, keys=rows.astype(np.uint64), candidates={VECTORS: vectors})
    top = top_lists(problem, Lists(VECTORS, theirs, np.arange(m)), most)
    return Pairs(rows[top.rows.ravel()], np.repeat(np.arange(m), most), np.minimum(top.scores.ravel(), 1.0))


def _references(others: NDArray[Any]) -> Floats:
    """`others` on the grid."""
    units = unit_rows(others)
    if not units.finite.all():
        raise InputError(f"vector {np.argmin(units.finite)} of the other set holds NaN or infinity: measure it again")
    return np.asarray(units.values)


def _nearest(units: Units, rows: Rows, theirs: Floats, at_least: float) -> Pairs:
    """Those of the vectors of `rows` (b,) that resemble one of `theirs`, each with the most similar."""
    if not units.finite.all():
        raise InputError(f"the vector of row {rows[np.argmin(units.finite)]} holds NaN or infinity: measure it again")
    products = cosines(theirs, units.values)
    others = products.argmax(axis=0)
    similarities = products[others, np.arange(len(rows))]
    hits = np.flatnonzero(similarities >= at_least)
    return Pairs(rows[hits], others[hits], np.minimum(similarities[hits], 1.0))


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.others for part in parts]),
        np.concatenate([part.similarities for part in parts]),
    )
