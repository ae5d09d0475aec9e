"""Which test items a training document gives away: the share of an item's words in n-grams that the document holds too.

The score of an item against one document is the share of the words of its user turns that lie in 8-grams which the
document's user turns hold as well, and its score is that of the best document; above a half it counts as contaminated.
Beside it stands the older rule of any shared 13-gram, whoever speaks (Brown et al. 2020, appendix C). An item of fewer
than 8 words is given away by a document that asks exactly the same. Words are those of `warehouse.words`; all n-grams
of the test are held, the documents stream past once, and nothing is sampled.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.kernels import compiled, hash_ngrams, hash_runs, read_only
from warehouse.records import Floats, Rows
from warehouse.words import Text, Words, text_of, words_of

COVERING = 8
ANY = 13
FLAGGED = 0.5
BOILERPLATE = 100
TEMPLATE, TEMPLATE_SHARE = 3, 0.05
NO_DOCUMENT = np.iinfo(np.int64).max
SIEVE_SHARE = 16  # cells of the sieve for each n-gram: 1 in 16 of the others, or fewer, is looked up in vain

Contents: TypeAlias = pa.Array | pa.ChunkedArray
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]


def boilerplate_of(items: int) -> int:
    """How many of `items` may share an n-gram before it is a template: 100, of a small test a twentieth, or 3.

    Ten questions of one form would else be given away by any eleventh.
    """
    return min(BOILERPLATE, max(TEMPLATE, int(TEMPLATE_SHARE * items)))


@dataclass(frozen=True, slots=True)
class Exposure:
    """What some documents give away of m items.

    share      (m,) float64 in [0, 1]: the best document's share of the item's words
    document   (m,) its number, the lowest of equals; -1 where no document shares anything
    any_match  (m,) lowest number of a document that shares a 13-gram; -1 where none does
    """

    share: Floats
    document: Rows
    any_match: Rows

    @classmethod
    def none(cls, m: int) -> "Exposure":
        """Of no documents."""
        return cls(np.zeros(m), np.full(m, -1, np.int64), np.full(m, -1, np.int64))

    @property
    def contaminated(self) -> Mask:
        """(m,) items of which one document covers more than `FLAGGED`."""
        return self.share > FLAGGED

    def merge(self, other: "Exposure") -> "Exposure":
        """Of both sets of documents; whatever the order of merging, the answer is the same."""
        ours = (self.share > other.share) | ((self.share == other.share) & _before(self.document, other.document))
        earlier = _before(self.any_match, other.any_match)
        return Exposure(
            np.where(ours, self.share, other.share),
            np.where(ours, self.document, other.document),
            np.where(earlier, self.any_match, other.any_match),
        )


@dataclass(frozen=True, slots=True)
class Grams:
    """The g distinct n-grams of all items, but those that more items share than `boilerplate` allowed.

    hashes ascend; n-gram i begins at the words places[postings[i]:postings[i + 1]], ascending. `sieve` is a power of
    two of cells that rules out most other n-grams.
    """

    n: int
    hashes: Hashes
    postings: Rows
    places: Rows
    sieve: Mask

    @classmethod
    def of(cls, words: Words, wanted: Mask, item_of: Rows, n: int, boilerplate: int) -> "Grams":
        hashes, places = _ngrams(words, wanted, n)
        order = np.argsort(hashes, kind="stable")  # places ascend within an n-gram
        hashes, places = hashes[order], places[order]
        new = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
        another = new | np.append(True, np.diff(item_of[places]) != 0)[: len(hashes)]
        gram = np.cumsum(new) - 1
        rare = (np.bincount(gram, another, minlength=1) <= boilerplate)[gram] if len(gram) else new
        kept, postings = np.unique(hashes[rare], return_index=True)
        sieve = np.zeros(1 << (SIEVE_SHARE * len(kept)).bit_length(), np.bool_)
        sieve[kept & np.uint64(len(sieve) - 1)] = True
        return cls(n, kept, np.append(postings, int(rare.sum())), places[rare], sieve)

    def held(self, words: Words, wanted: Mask) -> tuple[Rows, Rows]:
        """(k,) document and (k,) n-gram for each of these n-grams that the documents hold, each once, by document."""
        hashes, places = _ngrams(words, wanted, self.n)
        if not len(self.hashes):
            return places[:0], places[:0]
        maybe = np.flatnonzero(self.sieve[hashes & np.uint64(len(self.sieve) - 1)])
        at = np.searchsorted(self.hashes, hashes[maybe])
        same = self.hashes[np.minimum(at, len(self.hashes) - 1)] == hashes[maybe]
        document = np.searchsorted(words.rows, places[maybe[same]], side="right") - 1
        pairs = np.unique(document * len(self.hashes) + at[same])
        return pairs // len(self.hashes), pairs % len(self.hashes)


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """The m items of a test set in the form in which documents are held against them.

    item_of (w,) the item of each word; sizes (m,) words of the user turns; asked (m,) hash of all of these.
    """

    covering: Grams
    any_turn: Grams
    item_of: Rows
    sizes: Rows
    asked: Hashes

    @classmethod
    def build(
        cls, contents: Contents, offsets: Rows, is_user: Mask, *, covering: int = COVERING, ngram: int = ANY,
        boilerplate: int = BOILERPLATE,
    ) -> "ItemIndex":  # fmt: skip
        """Item e is the turns contents[offsets[e]:offsets[e + 1]]; `is_user` (t,) says which of them ask.

        An n-gram that more than `boilerplate` items share says nothing of any of them and counts for none. Raises
        `InputError` as `warehouse.words.text_of` does, and for n-grams of no word.
        """
        if min(covering, ngram, boilerplate) < 1:
            raise InputError(
                f"n-grams of {covering} and {ngram} words, boilerplate {boilerplate}: give at least 1 of each"
            )
        text = text_of(contents, offsets)
        wanted = _turns(is_user, contents, offsets)
        words, signs = words_of(text, signs=False), words_of(text)
        item_of = np.repeat(np.arange(text.n), np.diff(words.rows))
        spoken = np.append(0, np.cumsum(np.diff(words.turns) * wanted))[text.rows]
        return cls(
            Grams.of(words, wanted, item_of, covering, boilerplate),
            Grams.of(words, np.ones_like(wanted), item_of, ngram, boilerplate),
            item_of,
            np.diff(spoken),
            hash_runs(signs.hashes, signs.turns, wanted, text.rows),
        )

    @property
    def m(self) -> int:
        return len(self.sizes)

    def expose(self, contents: Contents, offsets: Rows, is_user: Mask, numbers: Rows) -> Exposure:
        """What the documents contents[offsets[i]:offsets[i + 1]] give away; `numbers` (d,) ascend and name them."""
        text = text_of(contents, offsets)
        wanted, turn, found = _turns(is_user, contents, offsets), 0, Exposure.none(self.m)
        for first, block in text.blocks():
            turns = len(block.starts) - 1
            mine = self._expose(block, wanted[turn : turn + turns], numbers[first : first + block.n])
            found, turn = found.merge(mine), turn + turns
        return found

    def _expose(self, text: Text, wanted: Mask, numbers: Rows) -> Exposure:
        words, signs = words_of(text, signs=False), words_of(text)
        same = self._same(hash_runs(signs.hashes, signs.turns, wanted, text.rows), numbers)
        found = Exposure.none(self.m)
        documents, grams = self.covering.held(words, wanted)
        each = self.covering
        cover(
            read_only(documents), read_only(grams), read_only(numbers), read_only(each.postings),
            read_only(each.places), read_only(self.item_of), read_only(self.sizes), each.n, found.share, found.document,
        )  # fmt: skip
        return same.merge(found).merge(self._any(*self.any_turn.held(words, np.ones_like(wanted)), numbers))

    def _any(self, documents: Rows, grams: Rows, numbers: Rows) -> Exposure:
        """The first document of each item that shares one of `grams`: documents ascend, so the first of each n-gram."""
        found = Exposure.none(self.m)
        gram, first = np.unique(grams, return_index=True)
        sizes = np.diff(self.any_turn.postings)[gram]
        items = self.item_of[self.any_turn.places[_ranges(self.any_turn.postings[gram], sizes)]]
        lowest = np.full(self.m, NO_DOCUMENT)
        np.minimum.at(lowest, items, np.repeat(numbers[documents[first]], sizes))
        found.any_match[:] = np.where(lowest < NO_DOCUMENT, lowest, -1)
        return found

    def _same(self, asked: Hashes, numbers: Rows) -> Exposure:
        """Of documents that ask all that an item asks and nothing else; what asks nothing is the same as nothing."""
        keys, first = np.unique(asked, return_index=True)
        at = np.minimum(np.searchsorted(keys, self.asked), len(keys) - 1)
        same = (keys[at] == self.asked) & (self.asked != 0)
        return Exposure(same.astype(np.float64), np.where(same, numbers[first[at]], -1), np.full(self.m, -1, np.int64))


@compiled
def cover(
    documents: Rows,
    grams: Rows,
    numbers: Rows,
    postings: Rows,
    places: Rows,
    item_of: Rows,
    sizes: Rows,
    n: int,
    share: Floats,
    best: Rows,
) -> None:
    """Raise `share` (m,) to the largest share of each item that one document's n-grams cover, and name it in `best`.

    Pairs of `documents`, ascending, and the `grams` that they hold. Each n-gram covers the n words from each of its
    places; none is counted twice for a document. A loop, because few n-grams may lead to very many places.
    """
    covered = np.full(len(item_of) + n, -1, np.int64)
    counts, touched = np.zeros(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    k = 0
    while k < len(grams):
        document, some = documents[k], 0
        while k < len(grams) and documents[k] == document:
            for posting in range(postings[grams[k]], postings[grams[k] + 1]):
                place = places[posting]
                item = item_of[place]
                if counts[item] == 0:
                    touched[some] = item
                    some += 1
                for p in range(place, place + n):
                    if covered[p] != document:
                        covered[p] = document
                        counts[item] += 1
            k += 1
        for t in range(some):
            value = counts[touched[t]] / sizes[touched[t]]
            if value > share[touched[t]]:
                share[touched[t]], best[touched[t]] = value, numbers[document]
            counts[touched[t]] = 0


def _before(a: Rows, b: Rows) -> Mask:
    """Where the document `a` is to be named rather than `b`: the lower number, and any rather than none."""
    return (a >= 0) & ((b < 0) | (a <= b))


def _turns(is_user: Mask, contents: Contents, offsets: Rows) -> Mask:
    wanted = np.asarray(is_user, np.bool_)
    if wanted.shape != (len(contents),):
        raise InputError(f"`is_user` has shape {wanted.shape}, expected ({len(contents)},), one a turn")
    return wanted[offsets[0] : offsets[-1]]


def _ngrams(words: Words, wanted: Mask, n: int) -> tuple[Hashes, Rows]:
    """Hash and first word of every n consecutive words inside one wanted turn."""
    hashes, places = np.empty(len(words.hashes), np.uint64), np.empty(len(words.hashes), np.int64)
    count = hash_ngrams(words.hashes, words.turns, wanted, n, hashes, places)
    return hashes[:count], places[:count]


def _ranges(starts: Rows, sizes: Rows) -> Rows:
    """starts[0], starts[0] + 1, ... sizes[0] of them, then those of starts[1], and so on."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
