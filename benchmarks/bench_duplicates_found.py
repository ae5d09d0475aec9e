"""What near-duplicate removal finds: precision and recall against brute-force Jaccard on 20,000 rows.

A tenth of the rows are planted: earlier rows with the end rewritten, so that they share 0.9, 0.8 or 0.7 of their word
5-grams. Brute force compares every row with every earlier one that stays.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from benchmarks.frame import Row, run
from benchmarks.warehouse_rows import bank
from warehouse.minhash import NGRAM, Sets, bands, shingles
from warehouse.near_duplicates import fingerprint, near_duplicates
from warehouse.words import text_of, words_of

N, SHARD, PLANTED = 20_000, 4096, (0.9, 0.8, 0.7)
SENTENCES, WORDS = 12, 120


def texts(rng: np.random.Generator) -> tuple[list[str], dict[int, float]]:
    """N rows, and the similarity to an earlier row that was aimed at for the planted ones."""
    sentences = bank()
    words = [
        " ".join(sentences[i] for i in rng.integers(0, len(sentences), SENTENCES)).split()[:WORDS] for _ in range(N)
    ]
    planted = {}
    for row in range(N // 2, N, 5):
        similarity = PLANTED[row // 5 % len(PLANTED)]
        shared = (WORDS - NGRAM + 1) * 2 * similarity / (1 + similarity)
        cut = round(shared) + NGRAM - 1
        words[row] = [*words[int(rng.integers(0, N // 2))][:cut], *words[row][cut:]]
        planted[row] = similarity
    return [" ".join(row) for row in words], planted


def sets_of(rows: list[str]) -> Sets:
    text = text_of(pa.array(rows), np.arange(len(rows) + 1))
    return shingles(text, words_of(text))


def brute_force(sets: Sets, threshold: float) -> set[int]:
    """Rows that an earlier row that stays resembles, every pair compared."""
    names, columns = np.unique(sets.shingles, return_inverse=True)
    n = len(sets.offsets) - 1
    matrix = csr_matrix((np.ones(len(columns), np.int32), columns, sets.offsets), shape=(n, len(names)))
    sizes, dropped = np.diff(sets.offsets), set()
    for start in range(0, n, 2048):
        common = csr_matrix(matrix[start : start + 2048] @ matrix.T)
        for at in range(common.shape[0]):
            part = slice(common.indptr[at], common.indptr[at + 1])
            others, shared = common.indices[part], common.data[part]
            near = shared / (sizes[start + at] + sizes[others] - shared) >= threshold
            if any(other < start + at and other not in dropped for other in others[near].tolist()):
                dropped.add(start + at)
    return dropped


def ours(rows: list[str], threshold: float) -> set[int]:
    layout = bands(threshold)
    with tempfile.TemporaryDirectory() as folder:
        shards = [Path(folder) / str(start) for start in range(0, N, SHARD)]
        for start, shard in zip(range(0, N, SHARD), shards, strict=True):
            part = rows[start : start + SHARD]
            fingerprint(pa.array(part), np.arange(len(part) + 1), layout).save(shard)
        return set(near_duplicates(shards, None, threshold).rows.tolist())


def measure() -> Iterator[Row]:
    rows, planted = texts(np.random.default_rng(0))
    sets = sets_of(rows)
    for threshold in (0.9, 0.8, 0.7):
        true, found = brute_force(sets, threshold), ours(rows, threshold)
        name = f"{N:,} rows, threshold {threshold}"
        precision = len(found & true) / max(len(found), 1)
        recall = len(found & true) / max(len(true), 1)
        yield Row(f"{name}: precision ({len(found):,} found)", precision, "", 1.0, more_is_better=True)
        yield Row(f"{name}: recall ({len(true):,} true)", recall, "", 0.97, more_is_better=True)
        for similarity in PLANTED:
            aimed = {row for row, aim in planted.items() if aim == similarity} & true
            if len(aimed) > 20:
                share = len(aimed & found) / len(aimed)
                yield Row(
                    f"{name}: recall of {len(aimed)} planted at {similarity}", share, "", 0.97, more_is_better=True
                )


if __name__ == "__main__":
    raise SystemExit(run(measure))
