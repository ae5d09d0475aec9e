"""Rows no two of which resemble each other, chosen greedily in a given order: DEITA's Repr filter, exact and in blocks.

A row is kept if its cosine with every row kept before is at most a threshold. Products of float32 decide all but the
pairs within reach of rounding, which the grid cosines of `selection.cosine` decide; the answer is a function of the
vectors, their order and the threshold alone. A vector of length 0 resembles nothing.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from selection.cosine import cosines
from selection.problem import cores
from selection.semantic import Single, Vectors, rounding, singles
from selection.survey import directions
from warehouse.records import Floats, Rows

BLOCK_ROWS = 1024
KEPT_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Packing:
    """`places` (k,) in the order given of the rows that were kept, ascending, and how many rows were looked at."""

    places: Rows
    scanned: int


def packing(
    vectors: Vectors,
    order: Rows,
    at_most: float,
    most: int,
    *,
    block_rows: int = BLOCK_ROWS,
    threads: int | None = None,
) -> Packing:
    """The rows of `order` (k,) whose cosine with no row kept before is above `at_most`, until there are `most` of them.

    `vectors` (n, d) hold finite numbers. Takes d operations for each row looked at and each row kept before it, fewer
    for a row that is near an early one; memory for the kept vectors in float32 and some blocks. A block is resolved
    row by row among what the kept rows left of it, so the answer is that of a scan of single rows.
    """
    kept = _Kept(vectors, order, at_most)
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads or cores()) as pool:
        for start in range(0, len(order), block_rows):
            block = _candidates(vectors, order, start, min(start + block_rows, len(order)))
            parts = np.array_split(np.arange(len(block.places)), threads or cores())
            left = np.concatenate(list(pool.map(lambda part, block=block: kept.unlike(block.some(part)), parts)))
            kept.add(block.some(left - start), most)
            if len(kept.places) == most:
                return Packing(np.array(kept.places, np.int64), kept.places[-1] + 1)
    return Packing(np.array(kept.places, np.int64), len(order))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Some rows by their `places` in the order: on the grid (b, d) float64, and of unit length (b, d) float32."""

    places: Rows
    grid: Floats
    single: Single

    def directions(self, near: Rows, at: Rows) -> Floats:
        return self.grid[near[at]]

    def some(self, at: Rows) -> "_Candidates":
        return _Candidates(self.places[at], self.grid[at], self.single[at])


@dataclass(slots=True)
class _Kept:
    """The rows kept so far, as `places` in the order and as slabs of at most KEPT_AT_ONCE vectors each."""

    vectors: Vectors
    order: Rows
    at_most: float
    places: list[int] = field(default_factory=list)
    slabs: list[Single] = field(default_factory=list)

    def unlike(self, block: _Candidates) -> Rows:
        """The places of those of `block` that resemble no kept row. The oldest rows, near to most, come first."""
        start = 0
        for slab in self.slabs:
            if not len(block.places):
                break
            products = block.single @ slab.T
            like = _like(block, products, partial(self._grid, start), self.at_most)
            if like.any():
                block = block.some(np.flatnonzero(~like))
            start += len(slab)
        return block.places

    def add(self, block: _Candidates, most: int) -> None:
        """Keep those of `block`, none of which resembles a kept row, that do not resemble an earlier one of them."""
        products = block.single @ block.single.T
        stays = np.ones(len(block.places), np.bool_)
        reach = np.tril(products > self.at_most - rounding(block.single.shape[1]), -1)
        for i in np.flatnonzero(reach.any(axis=1)):
            near = np.flatnonzero(reach[i] & stays)
            own = products[i : i + 1, near]
            stays[i] = not _like(block.some(np.array([i])), own, partial(block.directions, near), self.at_most)[0]
        new = np.flatnonzero(stays)[: most - len(self.places)]
        self.places.extend(block.places[new].tolist())
        self._store(block.single[new])

    def _grid(self, start: int, at: Rows) -> Floats:
        return directions(self.vectors, self.order[np.array(self.places)[start + at]])

    def _store(self, new: Single) -> None:
        room = bool(self.slabs) and len(self.slabs[-1]) < KEPT_AT_ONCE
        joined = np.concatenate([self.slabs.pop(), new]) if room else new
        self.slabs.extend(joined[at : at + KEPT_AT_ONCE] for at in range(0, len(joined), KEPT_AT_ONCE))


def _candidates(vectors: Vectors, order: Rows, start: int, stop: int) -> _Candidates:
    grid = directions(vectors, order[start:stop])
    return _Candidates(np.arange(start, stop), grid, singles(grid))


def _like(block: _Candidates, products: Single, others: Callable[[Rows], Floats], at_most: float) -> NDArray[np.bool_]:
    """(b,) whether a cosine of each of `block` with s others is above `at_most`; `products` (b, s) are float32.

    `others` gives the directions on the grid of some of the s.
    """
    slack = rounding(block.single.shape[1])
    largest = products.max(axis=1, initial=-np.inf)
    like = largest > at_most + slack
    for i in np.flatnonzero(~like & (largest > at_most - slack)):
        near = np.flatnonzero(products[i] > at_most - slack)
        like[i] = bool((cosines(others(near), block.grid[i : i + 1]) > at_most).any())
    return np.asarray(like)
