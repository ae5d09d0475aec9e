"""Counts of hashed n-grams and shares of repetition: ours against one SHA-256 per n-gram, the released DSIR code's way.

python benchmarks/bench_ngrams.py [--json]
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.frame import Row, race, run
from selection.dsir import log_ratio, log_weights
from selection.ngrams import DIMS, ngrams
from selection.repetition import WORDS, repetition

TEXTS, PEER_TEXTS = 4096, 100  # runs of some 30 ms: short enough for one to be undisturbed on a busy machine
ROUNDS = 15
WORD_PUNCT = re.compile(r"\w+|[^\w\s]+")


def texts(n: int, rng: np.random.Generator) -> list[str]:
    """Texts of 20 to 200 words, as often as words of a language are, a sentence mark every ten words or so."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, 20_000)])
    ranks = 1 / np.arange(1, len(vocabulary) + 1)
    stream = rng.choice(vocabulary, 110 * n, p=ranks / ranks.sum())
    marked = np.where(rng.random(len(stream)) < 0.1, np.char.add(stream, "."), stream)
    ends = np.cumsum(rng.integers(20, 200, n))
    return [" ".join(marked[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def one_hash_a_gram(some: Sequence[str]) -> list[NDArray[np.int64]]:
    """The released code: a row of `DIMS` counters a text, words and pairs hashed one by one."""
    rows = []
    for text in some:
        words = WORD_PUNCT.findall(text.lower())
        counts = np.zeros(DIMS, np.int64)
        for gram in [*words, *(" ".join(pair) for pair in pairwise(words))]:
            counts[int(hashlib.sha256(gram.encode("utf-8")).hexdigest(), 16) % DIMS] += 1
        rows.append(counts)
    return rows


def one_set_a_reply(some: Sequence[str]) -> list[float]:
    """Runs of words in a set."""
    shares = []
    for text in some:
        words = text.lower().split()
        runs = [" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)]
        shares.append(1 - len(set(runs)) / max(len(runs), 1))
    return shares


def measure() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    pool = texts(TEXTS, rng)
    some, size = pool[:PEER_TEXTS], f"{TEXTS:,} texts of {np.mean([len(text) for text in pool]):.0f} characters"
    ngrams(some), repetition(some)  # compiles or reads what is compiled

    counts, dense = ngrams(pool), one_hash_a_gram(some)
    mine, _, theirs, _ = race(ROUNDS, lambda: ngrams(pool).nnz, lambda: len(one_hash_a_gram(some)))
    yield Row(f"hashed n-grams, {size}", 1e6 * mine / TEXTS, "us/text", 30, 1e6 * theirs / PEER_TEXTS)

    slow, _, theirs, _ = race(ROUNDS, lambda: ngrams(some, hashing="sha256").nnz, lambda: len(one_hash_a_gram(some)))
    yield Row(
        "the same, hashing: sha256, same buckets", 1e6 * slow / PEER_TEXTS, "us/text", 1, 1e6 * theirs / PEER_TEXTS
    )

    ratio = log_ratio(np.asarray(counts[:50].sum(axis=0)).ravel(), np.asarray(counts.sum(axis=0)).ravel())
    mine, _, theirs, _ = race(
        ROUNDS, lambda: log_weights(counts, ratio[None, :]), lambda: [np.inner(row, ratio) for row in dense]
    )
    yield Row("log importance weights of the same rows", 1e6 * mine / TEXTS, "us/text", 3, 1e6 * theirs / PEER_TEXTS)

    mine, _, theirs, _ = race(ROUNDS, lambda: repetition(pool), lambda: one_set_a_reply(some))
    yield Row("share of repeated word 4-grams", 1e6 * mine / TEXTS, "us/text", 3, 1e6 * theirs / PEER_TEXTS)


if __name__ == "__main__":
    raise SystemExit(run(measure))
