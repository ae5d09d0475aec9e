"""Contamination: rows of a pool that repeat an item of a test or target set, by the words they share.

Three rules, in the words of `warehouse/words.py`; only the first counts punctuation:

- exact: the row's user turns have the same words as the item's, one by one;
- 13-gram: 13 consecutive words of one turn of the item, whoever speaks, are in one turn of the row (Brown et al.,
  "Language Models are Few-Shot Learners" (2020), appendix C);
- coverage: more than half of the words of the item's user turns lie in 8-grams that the row's user turns hold too.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.kernels import best_items, fill_bitmap, hash_ngrams, hash_runs, read_only
from warehouse.words import Text, Words, text_of, words_of

RULES = ("exact", "13-gram", "coverage")
BOILERPLATE = 100
MOST_WORDS = 2**31 - 1
BITS_A_GRAM = 16  # of the bitmap: of the n-grams that no item has, 1 in 50 or fewer are looked up in vain


@dataclass(frozen=True, slots=True)
class Matches:
    """The k rows and rules that match, by row, then rule; a row has at most one match a rule, the strongest.

    rows    (k,) int64
    rules   (k,) int8: places in `RULES`
    items   (k,) int64: of several equally strong ones the first
    scores  (k,) float64 in (0, 1]: 1 for exact; for 13-gram the share of the item's n-grams in the row; for coverage
            the share of its user words covered
    """

    rows: NDArray[np.int64]
    rules: NDArray[np.int8]
    items: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Grams:
    """All n-grams of the items but boilerplate, in the form in which `kernels.best_items` finds and counts them.

    g distinct n-grams occur at q places among the w words of m items.

    n, width  words of an n-gram, and of the places after its first that an occurrence covers
    bitmap    rules out most other n-grams; buckets: where hashes with the same first bits begin
    hashes    (g,) ascending; n-gram i occurs at places[postings[i]:postings[i + 1]]
    items     (w,) the item of each place; sizes (m,): how many places of each item could be covered
    dropped   distinct n-grams left out as boilerplate
    """

    n: int
    width: int
    bitmap: NDArray[np.uint64]
    buckets: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    postings: NDArray[np.int64]
    places: NDArray[np.int32]
    items: NDArray[np.int32]
    sizes: NDArray[np.int32]
    dropped: int

    def best(
        self, text: Text, words: Words, wanted: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """(n,) item, -1 without one, and (n,) share of each row."""
        found, shares = np.empty(text.n, np.int32), np.empty(text.n, np.float64)
        best_items(
            words.hashes, words.turns, wanted, text.rows, self.n, self.width,
            read_only(self.bitmap), read_only(self.buckets), read_only(self.hashes), read_only(self.postings),
            read_only(self.places), read_only(self.items), read_only(self.sizes), found, shares,
        )  # fmt: skip
        return found, shares


@dataclass(frozen=True, slots=True)
class NgramIndex:
    """The items in the form in which rows are checked against them; a function of the items and parameters alone.

    It takes about 70 bytes a word of the items and can be sent to other processes. An n-gram that more items share than
    `boilerplate` allowed ("Answer the following question ...") says nothing about any of them: it counts for neither
    rule and `dropped` counts it, so no n-gram leads to more items than that.
    """

    share: float
    exact: NDArray[np.uint64]
    exact_items: NDArray[np.int64]
    any_turn: _Grams
    user_turns: _Grams

    @property
    def dropped(self) -> tuple[int, int]:
        """Distinct n-grams left out as boilerplate, of the 13-gram rule and of coverage."""
        return self.any_turn.dropped, self.user_turns.dropped

    @classmethod
    def build(
        cls,
        contents: pa.Array | pa.ChunkedArray,
        offsets: NDArray[np.int64],
        is_user: NDArray[np.bool_],
        *,
        ngram: int = 13,
        covering: int = 8,
        share: float = 0.5,
        boilerplate: int = BOILERPLATE,
    ) -> "NgramIndex":
        """The index of items given like rows: item e is the turns contents[offsets[e]:offsets[e + 1]].

        `ngram` and `covering` are words, `share` is what coverage must exceed, `boilerplate` the most items that may
        share an n-gram. Raises `InputError` as `text_of` does and where a parameter is out of range.
        """
        if min(ngram, covering, boilerplate) < 1 or not 0 <= share < 1:
            raise InputError(
                f"n-grams of {ngram} and {covering} words and boilerplate above {boilerplate} items: each must be at "
                f"least 1; the share to exceed is {share:g}: it must be at least 0 and below 1"
            )
        text, wanted = _asked(contents, offsets, is_user)
        words, signs = words_of(text, signs=False), words_of(text)
        if len(signs.hashes) > MOST_WORDS:
            raise InputError(f"the items have {len(signs.hashes)} words, an index holds {MOST_WORDS}: check in parts")
        keys, first = np.unique(hash_runs(signs.hashes, signs.turns, wanted, text.rows), return_index=True)
        spoken = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(words.turns) * wanted)])[text.rows]
        any_turn = _grams(words, np.ones_like(wanted), ngram, boilerplate)
        user_turns = _grams(words, wanted, covering, boilerplate)
        covers = replace(user_turns, width=covering, sizes=np.diff(spoken).astype(np.int32))
        return cls(share, keys, first.astype(np.int64), any_turn, covers)

    def match(
        self, contents: pa.Array | pa.ChunkedArray, offsets: NDArray[np.int64], is_user: NDArray[np.bool_]
    ) -> Matches:
        """Which of the rows contents[offsets[i]:offsets[i + 1]] repeat an item; `is_user` (t,) says which turns ask.

        About 30 ns a word on one core, 50 with a million words of items, more in rows that match. Raises `InputError`
        as `text_of` does and where `is_user` has another length than `contents`.
        """
        text, wanted = _asked(contents, offsets, is_user)
        found, turn = [_NONE], 0
        for row, block in text.blocks():
            turns = len(block.starts) - 1
            found.append(self._match(row, block, wanted[turn : turn + turns]))
            turn += turns
        columns = [np.concatenate([getattr(part, field.name) for part in found]) for field in fields(Matches)]
        return Matches(*columns)

    def _match(self, first: int, text: Text, wanted: NDArray[np.bool_]) -> Matches:
        words, signs = words_of(text, signs=False), words_of(text)
        same, twins = self._same(hash_runs(signs.hashes, signs.turns, wanted, text.rows))
        sharing, shares = self.any_turn.best(text, words, np.ones_like(wanted))
        covering, covered = self.user_turns.best(text, words, wanted)
        hits = np.stack([same, sharing >= 0, covered > self.share], axis=1)
        rows, rules = np.nonzero(hits)
        items = np.stack([twins, sharing, covering], axis=1)[hits]
        scores = np.stack([same, shares, covered], axis=1)[hits]
        return Matches(rows + first, rules.astype(np.int8), items, scores)

    def _same(self, asked: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(n,) whether some item asks the same, and the first that does; nothing is the same as no question."""
        at = np.searchsorted(self.exact, asked)
        keys, items = np.append(self.exact, np.uint64(0)), np.append(self.exact_items, -1)
        return (keys[at] == asked) & (asked != 0), items[at]


_NONE = Matches(np.zeros(0, np.int64), np.zeros(0, np.int8), np.zeros(0, np.int64), np.zeros(0, np.float64))


def _asked(
    contents: pa.Array | pa.ChunkedArray, offsets: NDArray[np.int64], is_user: NDArray[np.bool_]
) -> tuple[Text, NDArray[np.bool_]]:
    """The text of the rows, and which of its turns are the user's."""
    text, wanted = text_of(contents, offsets), np.asarray(is_user, np.bool_)
    if wanted.shape != (len(contents),):
        raise InputError(f"`is_user` has shape {wanted.shape}, expected ({len(contents)},), one a turn")
    return text, wanted[offsets[0] : offsets[-1]]


def _grams(words: Words, wanted: NDArray[np.bool_], n: int, boilerplate: int) -> _Grams:
    """The n-grams of the wanted turns; an occurrence covers the place at which it begins."""
    hashes, places = np.empty(len(words.hashes), np.uint64), np.empty(len(words.hashes), np.int64)
    count = hash_ngrams(words.hashes, words.turns, wanted, n, hashes, places)
    order = np.argsort(hashes[:count], kind="stable")  # so that places ascend within an n-gram, and items with them
    hashes, places = hashes[order], places[order]
    items = np.repeat(np.arange(len(words.rows) - 1), np.diff(words.rows))
    new = np.append(True, hashes[1:] != hashes[:-1])[:count]
    another = new | np.append(True, np.diff(items[places]) != 0)[:count]
    gram = np.cumsum(new) - 1
    common = np.bincount(gram, another, minlength=1) > boilerplate
    left = ~common[gram]
    grams, postings = np.unique(hashes[left], return_index=True)
    places = places[left]
    return _Grams(
        n=n,
        width=1,
        bitmap=_bitmap(grams),
        buckets=_buckets(grams),
        hashes=grams,
        postings=np.append(postings, len(places)).astype(np.int64),
        places=places.astype(np.int32),
        items=items.astype(np.int32),
        sizes=np.bincount(items[places], minlength=len(words.rows) - 1).astype(np.int32),
        dropped=int(common.sum()),
    )


def _bitmap(grams: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A Bloom filter of two bits in one word each; a power of two of words, `BITS_A_GRAM` or more for each n-gram."""
    bitmap = np.zeros(1 << (BITS_A_GRAM * len(grams) // 64).bit_length(), np.uint64)
    fill_bitmap(grams, bitmap)
    return bitmap


def _buckets(grams: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Where the n-grams with the same first bits begin, ascending: about one n-gram each."""
    bits = max(1, len(grams).bit_length())
    firsts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    return np.append(np.searchsorted(grams, firsts), len(grams)).astype(np.int32)
