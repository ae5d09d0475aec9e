"""Text filters: near-duplicates against datasketch, and the speed of each pass over the words of a pool.

python benchmarks/bench_near_duplicates.py [--rows 100000] [--json]
"""

import argparse
import importlib.util
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.frame import Row, best_of, run
from warehouse.minhash import bands
from warehouse.near_duplicates import NearDuplicates, fingerprint, near_duplicates
from warehouse.ngrams import NgramIndex
from warehouse.words import text_of, words_of

THRESHOLD, SHARD, ITEMS, LEAKED = 0.8, 4096, 10_000, 100
WORD = re.compile(r"\w+|[^\w\s]")


def texts(n: int, rng: np.random.Generator) -> list[str]:
    """n rows of 20 to 300 words of uneven frequency; a third are copies of earlier rows with up to a tenth replaced."""
    frequency = 1 / np.arange(1, 50_001) ** 0.9
    vocabulary = np.array(["".join(rng.choice(list("etaoinshrdlu"), rng.integers(1, 10))) for _ in range(50_000)])
    rows: list[NDArray[np.int64]] = []
    draws = rng.choice(50_000, (n, 300), p=frequency / frequency.sum())
    for i, draw in enumerate(draws):
        if i % 3 == 2:
            row = rows[rng.integers(0, i)].copy()
            places = rng.integers(0, len(row), rng.integers(0, len(row) // 10 + 1))
            row[places] = draw[places]
        else:
            row = draw[: rng.integers(20, 301)]
        rows.append(row)
    return [" ".join(vocabulary[row]) for row in rows]


def ours(contents: pa.Array, folder: Path) -> NearDuplicates:
    """One process: fingerprints to files, then the search over them."""
    layout = bands(THRESHOLD)
    shards = []
    for start in range(0, len(contents), SHARD):
        part = contents.slice(start, SHARD)
        shards.append(folder / f"{start}")
        fingerprint(part, np.arange(len(part) + 1), layout).save(shards[-1])
    return near_duplicates(shards, threshold=THRESHOLD)


def shingled(text: str) -> set[bytes]:
    words = WORD.findall(text.lower())
    return {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}


def datasketch(rows: list[str]) -> list[int]:
    """The same law: a row goes where an earlier one that stays, found by LSH, has that similarity exactly."""
    from datasketch import MinHash, MinHashLSH

    # its own choice of bands at 0.8 finds 40 % of the pairs of that similarity, so it is given ours
    layout = bands(THRESHOLD)
    index = MinHashLSH(num_perm=128, params=(layout.bands, layout.rows))
    kept, dropped = dict[int, set[bytes]](), list[int]()
    for start in range(0, len(rows), SHARD):
        sets = [shingled(row) for row in rows[start : start + SHARD]]
        for i, (own, sketch) in enumerate(zip(sets, MinHash.bulk(sets, num_perm=128), strict=True), start):
            near = (kept[j] for j in index.query(sketch))
            if any(len(own & other) >= THRESHOLD * len(own | other) for other in near):
                dropped.append(i)
            else:
                index.insert(i, sketch)
                kept[i] = own
    return dropped


def agree(mine: NearDuplicates, theirs: list[int]) -> None:
    """Both find what they promise, so most of the drops are the same rows."""
    shared = len(np.intersect1d(mine.rows, theirs)) / max(len(mine.rows), len(theirs))
    if shared < 0.95:
        raise AssertionError(f"only {shared:.1%} of the drops agree: {len(mine.rows)} here, {len(theirs)} there")


def passes(contents: pa.Array, items: pa.Array, folder: Path) -> Iterator[Row]:
    """Nanoseconds a word on one core of each pass, and of the search a row."""
    offsets = np.arange(len(contents) + 1)
    words = len(words_of(text_of(contents, offsets)).hashes)
    seconds, _ = best_of(3, lambda: words_of(text_of(contents, offsets)), time.process_time)
    yield Row("words of a text", 1e9 * seconds / words, "ns/word", 40)
    seconds, found = best_of(3, lambda: fingerprint(contents, offsets, bands(THRESHOLD)), time.process_time)
    yield Row("words, shingles, MinHash and keys", 1e9 * seconds / words, "ns/word", 100)
    found.save(folder)
    seconds, _ = best_of(3, lambda: near_duplicates([folder], threshold=THRESHOLD), time.process_time)
    yield Row("the search over the fingerprints", 1e6 * seconds / len(contents), "µs/row", 20)
    asks = np.ones(len(contents), np.bool_)
    index = NgramIndex.build(items, np.arange(len(items) + 1), np.ones(len(items), np.bool_))
    seconds, _ = best_of(3, lambda: index.match(contents, offsets, asks), time.process_time)
    yield Row(f"contamination by {len(items):,} items, {LEAKED} of them rows", 1e9 * seconds / words, "ns/word", 100)


def measure(n: int) -> Iterator[Row]:
    rows = texts(n, np.random.default_rng(0))
    contents, items = pa.array(rows), pa.array(rows[:LEAKED] + texts(ITEMS - LEAKED, np.random.default_rng(1)))
    with tempfile.TemporaryDirectory() as folder:
        ours(contents.slice(0, 100), Path(folder) / "compiled")
        if importlib.util.find_spec("datasketch"):
            seconds, mine = best_of(1, lambda: ours(contents, Path(folder) / "ours"))
            peer, theirs = best_of(1, lambda: datasketch(rows))
            agree(mine, theirs)
            yield Row(f"near-duplicates of {n:,} rows, against datasketch", seconds, "s", 20, peer)
        else:
            print("datasketch is not installed: its row is not measured (pip install datasketch)", file=sys.stderr)
        yield from passes(contents, items, Path(folder) / "whole")


def rows_asked() -> int:
    """`--rows`, taken out of the arguments that every benchmark has."""
    parser: Any = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rows", type=int, default=100_000)
    known, sys.argv[1:] = parser.parse_known_args()
    return int(known.rows)


if __name__ == "__main__":
    asked = rows_asked()
    sys.exit(run(lambda: measure(asked)))
