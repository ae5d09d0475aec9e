"""Texts as counts of hashed words and pairs of neighbouring words: the features of DSIR (Xie et al. 2023).

`fast` cuts texts into the words of `warehouse.words`, where every sign and every Chinese, Japanese or Korean character
is a word of its own, and hashes them there. `sha256` is the released code to the bucket: the words of the regular
expression `\\w+|[^\\w\\s]+` (NLTK's WordPunctTokenizer) and SHA-256 of every word and pair; it takes many times longer.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from selection.buckets import check_dims
from warehouse.errors import InputError
from warehouse.records import Spec
from warehouse.words import Text, words_of

Hashing: TypeAlias = Literal["fast", "sha256"]
Cells: TypeAlias = NDArray[np.uint32]
DIMS = 10_000
MOST_DIMS = 1 << 23  # so that the cells of `TEXTS_AT_ONCE` texts are numbers of 32 bits
TEXTS_AT_ONCE = 512
PAIR = np.uint64(0xD6E8FEB86659FD93)  # odd, so that (a, b) and (b, a) part
HALF = np.uint64(32)
LAST = np.uint32(2**32 - 1)  # sorts after all cells
WORD_PUNCT = re.compile(r"\w+|[^\w\s]+")
REMEMBERED = 1 << 20  # buckets of frequent words and pairs that `sha256` keeps


def spec(dims: int = DIMS, hashing: Hashing = "fast") -> Spec:
    """What rebuilds the signal; `version` moves when the words, the folding or a hash do."""
    return Spec("ngrams", {"dims": dims, "hashing": hashing, "version": 1})


def check_hashing(dims: int, hashing: str) -> None:
    check_dims(dims, DIMS, MOST_DIMS)
    if hashing not in get_args(Hashing):
        raise InputError(f"unknown hashing {hashing!r}; known: {', '.join(get_args(Hashing))}")


def ngrams(texts: Sequence[str], dims: int = DIMS, hashing: Hashing = "fast") -> csr_matrix:
    """(n, dims) uint32: how many words and pairs of neighbouring words of each text fall into each bucket.

    Case is folded to lower case. A text of t words has 2 t - 1 of both, one of none has an empty row. Columns ascend
    within a row.
    """
    check_hashing(dims, hashing)
    cells = _fast_cells if hashing == "fast" else _sha256_cells
    parts = []
    for at in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[at : at + TEXTS_AT_ONCE]
        parts.append(_counted(*cells(block, dims), len(block), dims))
    return csr_matrix(vstack(parts)) if parts else csr_matrix(np.zeros((0, dims), np.uint32))


def words_in(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The words of texts whose rows of n-grams sum to `counts`."""
    return (counts + 1) // 2


def text_block(texts: Sequence[str]) -> Text:
    """`texts` as rows of one turn each; surrogates without their other half stay bytes of their own."""
    encoded = [text.lower().encode("utf-8", "surrogatepass") for text in texts]
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(each) for each in encoded], out=starts[1:])
    return Text(np.frombuffer(b"".join(encoded), np.uint8), starts, np.arange(len(texts) + 1))


def _fast_cells(texts: Sequence[str], dims: int) -> tuple[Cells, int]:
    """Row times `dims` plus bucket of every word and pair, and how many of them, at LAST, are none."""
    words = words_of(text_block(texts))
    hashes, rows = words.hashes, words.rows
    bases = np.repeat(np.arange(len(texts), dtype=np.uint32) * np.uint32(dims), np.diff(rows))
    pairs = hashes[:-1] * PAIR
    pairs += hashes[1:]
    cells = np.concatenate([bases + _buckets(hashes, dims), bases[:-1] + _buckets(pairs, dims)])
    across = rows[(np.diff(rows, prepend=0) > 0) & (rows < len(hashes))] - 1  # pairs of a text's last word and the next
    cells[len(hashes) + across] = LAST
    return cells, len(across)


def _buckets(hashes: NDArray[np.uint64], dims: int) -> Cells:
    high = hashes >> HALF
    high *= np.uint64(dims)
    high >>= HALF
    return high.astype(np.uint32)


def _sha256_cells(texts: Sequence[str], dims: int) -> tuple[Cells, int]:
    cells: list[int] = []
    for row, text in enumerate(texts):
        words = WORD_PUNCT.findall(text.lower())
        pairs = [f"{first} {second}" for first, second in pairwise(words)]
        cells += [row * dims + _sha256_bucket(gram, dims) for gram in words + pairs]
    return np.array(cells, np.uint32), 0


@lru_cache(REMEMBERED)
def _sha256_bucket(gram: str, dims: int) -> int:
    return int.from_bytes(hashlib.sha256(gram.encode("utf-8", "surrogatepass")).digest(), "big") % dims


def _counted(cells: Cells, none: int, n: int, dims: int) -> csr_matrix:
    """(n, dims) how often each of `cells` is there, but for `none` of them at LAST."""
    cells.sort()
    cells = cells[: len(cells) - none]
    ends = np.flatnonzero(cells[1:] != cells[:-1])
    ends = np.append(ends, len(cells) - 1) if len(cells) else ends
    distinct = cells[ends]
    bases = np.arange(n, dtype=np.uint32) * np.uint32(dims)
    starts = np.append(np.searchsorted(distinct, bases), len(distinct))
    columns = distinct - np.repeat(bases, np.diff(starts))
    counts = np.diff(ends, prepend=-1).astype(np.uint32)
    return csr_matrix((counts, columns.view(np.int32), starts.astype(np.int32)), shape=(n, dims))
