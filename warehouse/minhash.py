"""MinHash: rows as sets of word n-grams, short signatures that agree as often as the sets do, and keys to meet by.

Broder, "On the resemblance and containment of documents" (1997): the least hash of two sets is equal with probability
J, their Jaccard similarity. The hashes of a signature are taken together in bands; two rows are compared where some
band agrees as a whole, which has probability 1 - (1 - J^rows)^bands (Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", section 3.4).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.kernels import hash_bands, min_hashes, shingle_sets
from warehouse.words import Text, Words

NGRAM = 5
PERMUTATIONS = 128
RECALL = 0.98
MOST = 4096  # permutations


@dataclass(frozen=True, slots=True)
class Layout:
    """`bands` of `rows` permutations each, chosen for pairs of similarity `threshold`."""

    threshold: float
    bands: int
    rows: int

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.bands < 1 or self.rows < 1 or self.permutations > MOST:
            raise ValueError(f"no layout: {self}")

    @property
    def permutations(self) -> int:
        return self.bands * self.rows

    def recall(self, similarity: float) -> float:
        """The probability that two rows of this similarity share a band and so are compared."""
        return 1 - (1 - similarity**self.rows) ** self.bands


@dataclass(frozen=True, slots=True)
class Sets:
    """Row i's distinct shingles, ascending, are shingles[offsets[i]:offsets[i + 1]]: at least one of 32 bits each."""

    shingles: NDArray[np.uint32]
    offsets: NDArray[np.int64]


def bands(threshold: float, permutations: int = PERMUTATIONS, recall: float = RECALL) -> Layout:
    """The layout that compares the fewest pairs below `threshold` and still at least `recall` of those at it.

    That is the most rows a band, then the fewest bands; more similar pairs are found with higher probability. Raises
    `InputError` where `permutations` are too few for any such layout.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"the similarity threshold must be above 0 and at most 1, not {threshold:g}")
    if not 0 < recall < 1 or not 1 <= permutations <= MOST:
        raise InputError(f"recall must lie between 0 and 1 and permutations in 1 to {MOST}")
    for rows in range(min(permutations, 16), 0, -1):
        needed = max(1, math.ceil(math.log1p(-recall) / math.log1p(-(threshold**rows)))) if threshold < 1 else 1
        if needed * rows <= permutations:
            return Layout(threshold, needed, rows)
    raise InputError(
        f"{permutations} permutations cannot find {recall:.0%} of the pairs of similarity {threshold:g}; "
        f"give at least {math.ceil(math.log1p(-recall) / math.log1p(-threshold))} or raise the threshold"
    )


def shingles(text: Text, words: Words, n: int = NGRAM) -> Sets:
    """Each row's distinct runs of n words, over the borders of its turns.

    A row of fewer words is one shingle as a whole; one without words is one shingle of its bytes.
    """
    if n < 1:
        raise InputError(f"shingles need at least one word, not {n}")
    count = text.n
    sets = np.empty(len(words.hashes) + count, np.uint32)
    offsets = np.empty(count + 1, np.int64)
    shingle_sets(words.hashes, words.rows, text.data, text.starts[text.rows], n, sets, offsets)
    return Sets(sets[: offsets[-1]], offsets)


def signatures(sets: Sets, permutations: int = PERMUTATIONS) -> NDArray[np.uint32]:
    """(n, permutations) least hashes. The first k columns do not depend on how many there are."""
    factors, shifts = _permutations()
    out = np.empty((len(sets.offsets) - 1, permutations), np.uint32)
    min_hashes(sets.shingles, sets.offsets, factors[:permutations], shifts[:permutations], out)
    return out


def band_keys(signed: NDArray[np.uint32], layout: Layout) -> NDArray[np.uint64]:
    """(bands, n) keys, equal where two rows share a band. `signed` needs at least the layout's permutations."""
    keys = np.empty((layout.bands, len(signed)), np.uint64)
    hash_bands(signed, layout.rows, keys)
    return keys


def _permutations() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors, odd so that no two shingles meet, and shifts."""
    draws = np.random.PCG64(1997).random_raw(MOST)
    return (draws >> np.uint64(32)).astype(np.uint32) | np.uint32(1), draws.astype(np.uint32)
