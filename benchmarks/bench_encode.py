"""Embedding texts with a MiniLM: against `SentenceTransformer.encode` as it comes. Needs the extra `real-encoder`.

python benchmarks/bench_encode.py [--json] [--texts FOLDER] [--rows N]

Texts are the rows of the pools under FOLDER (Parquet files with columns instruction, input and output), else text
with the lengths of instruction data.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.frame import Row, best_of, generated, run
from models.encoder import SentenceEncoder
from models.fingerprint import MINILM

PART = 1000  # rows that each encodes before the next has its turn
Texts = list[str]


def made(n: int, rng: np.random.Generator) -> Texts:
    """Texts of about 15 to 600 words: the middle half of instruction data lies between 30 and 150."""
    lengths = np.exp(rng.normal(np.log(70), 1, n)).clip(5, 600).astype(np.int64)
    return [generated(length, rng) for length in lengths.tolist()]


def pooled(folder: Path, n: int, rng: np.random.Generator) -> Texts:
    """`n` rows drawn from all pools under `folder`."""
    columns = ["instruction", "input", "output"]
    tables = [pq.read_table(path, columns=columns) for path in sorted(folder.rglob("*.parquet"))]
    texts = ["\n".join(filter(None, row.values())) for table in tables for row in table.to_pylist()]
    return [texts[i] for i in rng.choice(len(texts), min(n, len(texts)), replace=False)]


def measure(texts: Texts) -> Iterator[Row]:
    from sentence_transformers import SentenceTransformer

    peer: Any = SentenceTransformer(str(SentenceEncoder(MINILM).folder))
    encoders = {dtype: SentenceEncoder(MINILM, dtype=dtype) for dtype in ("float32", "auto")}
    for encoder in encoders.values():
        encoder.embed(texts[:64])  # loads
    seconds, cosine = dict.fromkeys([*encoders, "peer"], 0.0), dict.fromkeys(encoders, 1.0)
    for start in range(0, len(texts), PART):
        part = texts[start : start + PART]
        spent, vectors = best_of(1, partial(peer.encode, part, show_progress_bar=False))
        seconds["peer"] += spent
        for dtype, encoder in encoders.items():
            spent, mine = best_of(1, partial(encoder.embed, part))
            seconds[dtype] += spent
            cosine[dtype] = min(cosine[dtype], float((mine * vectors).sum(1).min()))
    tokens = sum(int(peer.preprocess([text])["attention_mask"].sum()) for text in texts)
    for dtype, goal in (("float32", 1.0), ("auto", 2.0)):
        work = f"{len(texts):,} rows embedded, {dtype}"
        speeds = tokens / seconds[dtype], tokens / seconds["peer"]
        yield Row(work, speeds[0], "tokens/s", goal, speeds[1], more_is_better=True)
        yield Row(f"{work}: least cosine to its vectors", cosine[dtype], "", 0.999, more_is_better=True)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rows", type=int, default=4_000)
    given, sys.argv[1:] = parser.parse_known_args()
    rng = np.random.default_rng(0)
    chosen = pooled(given.texts, given.rows, rng) if given.texts else made(given.rows, rng)
    sys.exit(run(partial(measure, chosen)))
