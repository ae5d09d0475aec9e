"""Greedy filters: DEITA's Repr filter against one candidate at a time, and k-center against one pass per row.

python benchmarks/bench_greedy.py [--json]
"""

import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.frame import Row, best_of, race, run
from selection.k_center import farthest_first
from selection.packing import Packing, packing
from selection.problem import Problem
from warehouse.records import Rows

Vectors = NDArray[np.float32]
THRESHOLD = 0.9


def crowded(n: int, d: int, topics: int, rng: np.random.Generator, spread: float) -> Vectors:
    """(n, d) rows of unit length around topics of many sizes: cosines about 0.2 between topics, and 0.6 to 0.97 within
    them at a spread of 0.8, 0.92 to 0.99 at 0.3."""
    common = rng.standard_normal(d, dtype=np.float32)
    centres = _unit(_unit(rng.standard_normal((topics, d), dtype=np.float32)) + 0.5 * common / np.linalg.norm(common))
    sizes = rng.random(topics) ** 2
    noise = rng.standard_normal((n, d), dtype=np.float32) / np.float32(d**0.5)
    widths = rng.uniform(0.3, 1.0, (n, 1)).astype(np.float32) * np.float32(spread)
    return _unit(centres[rng.choice(topics, n, p=sizes / sizes.sum())] + widths * noise)


def one_candidate_at_a_time(vectors: Vectors, most: int) -> list[int]:
    """The released filter's way: for every candidate all kept rows are copied from the float64 vectors, brought to unit
    length again and multiplied with it."""
    wide = vectors.astype(np.float64)
    kept = [0]
    for row in range(1, len(wide)):
        if len(kept) == most:
            break
        others = wide[kept]
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        if (others @ (wide[row] / np.linalg.norm(wide[row]))).max() <= THRESHOLD:
            kept.append(row)
    return kept


def one_pass_per_row(vectors: Vectors, k: int) -> list[int]:
    """Farthest first with the whole pool read for every row, in float32 on all cores."""
    nearest, picks = np.full(len(vectors), -2, np.float32), [0]
    while True:
        np.maximum(nearest, vectors @ vectors[picks[-1]], out=nearest)
        nearest[picks[-1]] = np.inf
        if len(picks) == k:
            return picks
        picks.append(int(nearest.argmin()))


def ours_kept(vectors: Vectors, most: int) -> Packing:
    return packing(vectors, np.arange(len(vectors)), THRESHOLD, most)


def ours_centres(vectors: Vectors, k: int) -> Rows:
    problem = Problem(k, np.arange(len(vectors), dtype=np.uint64), {"representation": vectors})
    return farthest_first(problem, "representation", 0, k, np.zeros(0, np.int64))[0]


def agree(mine: Rows, theirs: list[int], least: float) -> None:
    """The same rows but for those that float32 or another order of sums puts on the other side of a near tie."""
    shared = len(np.intersect1d(mine, theirs)) / max(len(mine), len(theirs))
    if shared < least:
        raise AssertionError(f"only {shared:.2%} of the rows agree: {len(mine)} here, {len(theirs)} there")


def repr_filter(rng: np.random.Generator) -> Iterator[Row]:
    most = 2_500
    pool = crowded(30_000, 512, 2_600, rng, 0.45)
    seconds, mine, theirs, kept = race(1, partial(ours_kept, pool, most), partial(one_candidate_at_a_time, pool, most))
    agree(mine.places, kept, 1.0)
    yield Row(f"Repr filter, {mine.scanned:,} scanned, {len(mine.places):,} kept, d = 512", seconds, "s", 50, theirs)
    large = crowded(300_000, 512, 6_300, rng, 0.3)
    seconds, answer = best_of(1, partial(ours_kept, large, 6_000))
    yield Row(f"Repr filter, {answer.scanned:,} scanned, {len(answer.places):,} kept, d = 512", seconds, "s", 60)


def centres(rng: np.random.Generator) -> Iterator[Row]:
    for n, k in ((20_000, 500), (200_000, 2_000)):
        pool = crowded(n, 384, 500, rng, 0.8)
        seconds, mine, theirs, picks = race(1, partial(ours_centres, pool, k), partial(one_pass_per_row, pool, k))
        agree(mine, picks, 0.999)
        yield Row(f"k-center, {k:,} of {n:,} rows, d = 384, against numpy", seconds, "s", 3 if k > 500 else 1, theirs)


def measure() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    yield from centres(rng)
    yield from repr_filter(rng)


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    sys.exit(run(measure))
