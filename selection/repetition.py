"""How much a reply repeats itself: a guard for methods that like what a model finds easy, as repetition is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selection.ngrams import text_block
from warehouse.records import Spec
from warehouse.words import words_of

WORDS = 4
TEXTS_AT_ONCE = 512
HASH_BITS = np.uint64(53)  # of a run's hash; those above hold which of `TEXTS_AT_ONCE` texts it is in
BASE = np.uint64(0x9E3779B97F4A7C15)


def spec() -> Spec:
    """What rebuilds the signal; `version` moves when the words, their number or the hash do."""
    return Spec("repetition", {"words": WORDS, "version": 1})


def repetition(replies: Sequence[str]) -> NDArray[np.float32]:
    """(n,) the share of a reply's runs of four words that came before in it, in [0, 1); 0 for fewer than five words.

    Words as in `warehouse.words`, without punctuation: a Chinese, Japanese or Korean character is a word. The case of
    letters does not count. "a b c d a b c d" has five runs, of which one came before: 0.2.
    """
    parts = [_shares(replies[at : at + TEXTS_AT_ONCE]) for at in range(0, len(replies), TEXTS_AT_ONCE)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _shares(replies: Sequence[str]) -> NDArray[np.float32]:
    words = words_of(text_block(replies), signs=False)
    runs = max(len(words.hashes) - WORDS + 1, 0)
    grams = np.zeros(runs, np.uint64)
    for place in range(WORDS if runs else 0):
        grams = grams * BASE + words.hashes[place : place + runs]
    owners = np.repeat(np.arange(len(replies)), np.diff(words.rows))
    inside = owners[:runs] == owners[WORDS - 1 :][:runs]
    owned = owners[:runs][inside].astype(np.uint64) << HASH_BITS | grams[inside] >> (np.uint64(64) - HASH_BITS)
    owned.sort()  # one word a run, its owner first, sorts several times faster than two
    again = owned[1:][owned[1:] == owned[:-1]]
    total = np.bincount((owned >> HASH_BITS).astype(np.int64), minlength=len(replies))
    repeated = np.bincount((again >> HASH_BITS).astype(np.int64), minlength=len(replies))
    return (repeated / np.maximum(total, 1)).astype(np.float32)
