"""Filters by vectors: semantic near-duplicates against FAISS and against numpy, and rows near a reference set.

python benchmarks/bench_semantic.py [--json]
"""

import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_selection import D, Vectors, vectors
from benchmarks.frame import Row, best_of, race, run
from selection.semantic import Pairs, near_duplicates, resembling
from warehouse.records import Rows

THRESHOLD, BLOCK = 0.95, 2048


def with_copies(n: int, rng: np.random.Generator) -> Vectors:
    """(n, D) rows of unit length; a fifth are earlier rows, moved by a little more or less than the threshold."""
    rows = vectors(n, rng)
    moved = np.flatnonzero(rng.random(n) < 0.2)[1:]
    steps = rng.standard_normal((len(moved), D), dtype=np.float32) * rng.uniform(0, 0.5, (len(moved), 1)) / D**0.5
    for row, step in zip(moved.tolist(), steps, strict=True):
        rows[row] = rows[rng.integers(0, row)] + step
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def ours(pool: Vectors) -> Pairs:
    return near_duplicates(pool, np.arange(len(pool)), THRESHOLD)


def greedy(starts: Rows, others: Rows) -> list[int]:
    """Rows to drop by all pairs that are near enough: those of row i are others[starts[i]:starts[i + 1]]."""
    kept, dropped = np.ones(len(starts) - 1, np.bool_), list[int]()
    for row in range(len(kept)):
        near = others[starts[row] : starts[row + 1]]
        if kept[near[near < row]].any():
            kept[row] = False
            dropped.append(row)
    return dropped


def faiss_ranges(pool: Vectors) -> list[int]:
    """All pairs by FAISS's exact range search over a flat index, then the pass over them."""
    import faiss

    index: Any = faiss.IndexFlatIP(D)
    index.add(pool)
    starts, _, others = index.range_search(pool, THRESHOLD)
    return greedy(starts.astype(np.int64), others)


def all_products(pool: Vectors) -> list[int]:
    """All pairs by numpy's products of a block with all rows, on all cores, then the pass over them."""
    counts, found = list[NDArray[np.int64]](), list[Rows]()
    for at in range(0, len(pool), BLOCK):
        rows, others = np.nonzero(pool[at : at + BLOCK] @ pool.T >= THRESHOLD)
        counts.append(np.bincount(rows, minlength=len(pool[at : at + BLOCK])))
        found.append(others)
    return greedy(np.concatenate([[0], np.cumsum(np.concatenate(counts))]), np.concatenate(found))


def agree(mine: Pairs, theirs: list[int]) -> None:
    """The same rows but for pairs within float32's rounding of the threshold."""
    shared = len(np.intersect1d(mine.rows, theirs)) / max(len(mine.rows), len(theirs))
    if shared < 0.999:
        raise AssertionError(f"only {shared:.2%} of the drops agree: {len(mine.rows)} here, {len(theirs)} there")


def measure() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    pool = with_copies(20_000, rng)
    peers = {"numpy": all_products}
    if importlib.util.find_spec("faiss"):
        peers["FAISS"] = faiss_ranges
    else:
        print("FAISS is not installed: its row is not measured (pip install faiss-cpu)", file=sys.stderr)
    for name, peer in peers.items():
        seconds, mine, theirs, dropped = race(3, partial(ours, pool), partial(peer, pool))
        agree(mine, dropped)
        yield Row(f"semantic near-duplicates of 20,000 rows, against {name}", seconds, "s", 1.2, theirs)
    seconds, _ = best_of(1, partial(ours, with_copies(60_000, rng)))
    yield Row("semantic near-duplicates of 60,000 rows", 60_000 / seconds, "rows/s", 2_000, more_is_better=True)
    large, targets = vectors(100_000, rng), vectors(500, rng)
    seconds, _ = best_of(2, partial(resembling, large, np.arange(100_000), targets, THRESHOLD))
    yield Row("rows near 500 others", 100_000 / seconds, "rows/s", 20_000, more_is_better=True)


if __name__ == "__main__":
    sys.exit(run(measure))
