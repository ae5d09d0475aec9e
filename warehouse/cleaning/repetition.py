"""Replies that say the same over and over (the repetition rules of Gopher, Rae et al. 2021, table A1, on replies)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_turns
from warehouse.cleaning.parameters import check_count, check_share
from warehouse.records import Rows

LINE_LETTERS = r"\p{L}[^\n]*\p{L}[^\n]*\p{L}[^\n]*\p{L}"  # `}` and `end` come again in any code
WORD = 10  # n of the word n-grams
UNSPACED = 40  # mean bytes of a word from which characters are counted instead: Chinese, or one endless word
CHARACTERS = 4  # of them count as a word then
MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Repetition:
    """The share of a reply's lines, and of its word 10-grams, that came before in it; a share above the limit counts.

    Lines of fewer than four letters do not count, nor replies of fewer than `min_lines` lines or `min_words` words.
    Where words are not parted by spaces, the n-grams are of characters, four of which count as a word in `min_words`.
    """

    max_line_share: float = 0.5
    max_word_share: float = 0.3
    min_lines: int = 6
    min_words: int = 40

    reasons: ClassVar[tuple[str, ...]] = ("repeated_lines", "repeated_words")
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_share("max_line_share", self.max_line_share)
        check_share("max_word_share", self.max_word_share)
        check_count("min_lines", self.min_lines, lowest=2)
        check_count("min_words", self.min_words, lowest=WORD + 1)

    def __call__(self, block: Block) -> Findings:
        turns, texts = block.reply_turns, block.replies
        found = []
        for reason, limit, (places, shares) in (
            ("repeated_lines", self.max_line_share, repeated_lines(texts, self.min_lines)),
            ("repeated_words", self.max_word_share, repeated_words(texts, self.min_words)),
        ):
            over = shares > limit
            details = [f"{share:.0%} repeated" for share in shares[over].tolist()]
            found.append(of_turns(reason, block, turns[places[over]], details))
        return findings(found)


def repeated_lines(texts: pa.StringArray, fewest: int) -> tuple[Rows, NDArray[np.float64]]:
    """Places (k,) in `texts` of those with `fewest` lines or more, and the share of their lines that came before."""
    places = np.flatnonzero(np.asarray(pc.count_substring(texts, "\n")) >= fewest - 1)
    lines = pc.split_pattern(texts.take(pa.array(places)), "\n")
    owner = np.repeat(np.arange(len(places)), np.diff(np.asarray(lines.offsets)))
    flat = pc.utf8_trim_whitespace(lines.flatten())
    counted = np.asarray(pc.match_substring_regex(flat, LINE_LETTERS)).astype(bool)
    ids = np.asarray(flat.filter(pa.array(counted)).dictionary_encode().indices).astype(np.uint64)
    shares, count = _repeated_share(owner[counted], ids, len(places))
    enough = count >= fewest
    return places[enough], shares[enough]


def repeated_words(texts: pa.StringArray, fewest: int) -> tuple[Rows, NDArray[np.float64]]:
    """Places (k,) in `texts` of those with `fewest` words or more, and the share of their 10-grams that came before."""
    sizes = np.asarray(pc.binary_length(texts)).astype(np.int64)
    places = np.flatnonzero(sizes >= fewest)
    parted = pc.utf8_split_whitespace(texts.take(pa.array(places)))
    counts = np.diff(np.asarray(parted.offsets)).astype(np.int64)
    spaced = sizes[places] < UNSPACED * np.maximum(counts, 1)
    words = parted.filter(pa.array(spaced))
    ids = np.asarray(words.flatten().dictionary_encode().indices).astype(np.uint64)
    first = _shares_of_grams(places[spaced], counts[spaced], ids, fewest)
    letters = [
        np.frombuffer("".join(text.split()).encode("utf-32-le"), np.uint32)
        for text in texts.take(pa.array(places[~spaced])).to_pylist()
    ]
    sizes = np.array([len(each) for each in letters], np.int64)
    flat = np.concatenate([np.zeros(0, np.uint32), *letters]).astype(np.uint64)
    second = _shares_of_grams(places[~spaced], sizes, flat, CHARACTERS * fewest)
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _shares_of_grams(
    places: Rows, counts: Rows, ids: NDArray[np.uint64], fewest: int
) -> tuple[Rows, NDArray[np.float64]]:
    """`ids` are the words of texts of `counts` (k,) words each, one text after the other."""
    if len(ids) < WORD:
        return places[:0], np.zeros(0)
    grams = np.zeros(len(ids) - WORD + 1, np.uint64)
    for offset in range(WORD):
        grams = (grams ^ (ids[offset : len(ids) - WORD + 1 + offset] + np.uint64(1))) * MIX
        grams ^= grams >> np.uint64(29)
    owner = np.repeat(np.arange(len(places)), counts)
    inside = owner[: len(grams)] == owner[WORD - 1 :]
    shares, _ = _repeated_share(owner[: len(grams)][inside], grams[inside], len(places))
    enough = counts >= fewest
    return places[enough], shares[enough]


def _repeated_share(owner: Rows, ids: NDArray[np.uint64], owners: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(owners,) share of an owner's ids that it had before, and how many it has. `owner` ascends."""
    total = np.bincount(owner, minlength=owners)
    order = np.lexsort((ids, owner))
    again = (ids[order][1:] == ids[order][:-1]) & (owner[order][1:] == owner[order][:-1])
    repeats = np.bincount(owner[order][1:][again], minlength=owners)
    return repeats / np.maximum(total, 1), total
