"""Replies that stop in the middle.

Precision first: a reply counts only where its own style shows that its end is none. Code, lists, tables, addresses,
numbers, short answers and scripts without full stops are left alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block, Mask
from warehouse.cleaning.findings import Action, Findings, findings, of_turns, tail
from warehouse.cleaning.parameters import check_count, check_switch
from warehouse.facts import matches
from warehouse.records import Rows

TAIL = 600  # characters at the end of a reply that are looked at
CLOSED = 3
LAST_LINE = r"(?P<line>[^\n]*)\z"
OPEN_WORDS = (
    "and|or|but|because|the|a|an|of|which|whose|although|my|your|their|its|our|und|oder|aber|weil|der|das|ein|eine"
    "|et|ou|mais|le|les|une|pero|porque|el|los|las|una"
)
OPEN_END = rf"[\p{{L}}\d)'’\"”](?:,| ?[(\[“‘«–—])\z|[\p{{Ll}},;] (?:{OPEN_WORDS})\z|[,;] \p{{Ll}}+,\z|[、，（「『《]\z"
WORD_END = r"\p{Ll}\z|[\p{Han}\p{Hiragana}]\z"
DOTS = r"\p{L}(?:\.\.\.|…|……)\z"
LISTED = r"^\s*(?:[-*•·–+>|#$]|\d+[.):]|\(?[a-zA-Z][.)] |[^\s.!?]{1,20}: |<)|\||https?://\S*\z|www\.\S*\z|\S*[/\\_=@#{}<>~^]\S*\z"
LIST_BEFORE = r"\n[ \t]*(?:[-*•+]|\d+[.)])[ \t][^\n]*\n?[^\n]*\z"
SENTENCE_END = r"[\p{Ll}\d)\"”’][.!?][\"”’)]*\s|[。！？]"
WORDS = r"\S+"
LETTERS = r"[\p{Han}\p{Hiragana}\p{Katakana}]"


@dataclass(frozen=True, slots=True)
class TruncatedReply:
    """The last reply of a row ends on a comma, an open bracket or a word like "and", or in dots. Only where its last
    line has `min_words` words or more (or, where words are not parted, twice as many letters).

    With `unclosed_sentences` also where the last sentence has no end and `CLOSED` before it have: most such replies
    only lack a full stop, so this is off by default.
    """

    min_words: int = 12
    unclosed_sentences: bool = False

    reasons: ClassVar[tuple[str, ...]] = ("ends_open", "ends_in_dots", "ends_mid_sentence")
    reads: ClassVar[tuple[str, ...]] = ("has_code",)
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_count("min_words", self.min_words, lowest=3)
        check_switch("unclosed_sentences", self.unclosed_sentences)

    def __call__(self, block: Block) -> Findings:
        turns, tails = self._prose(block)
        closed = np.asarray(pc.count_substring_regex(tails, SENTENCE_END)) >= CLOSED
        hits = [matches(tails, OPEN_END), matches(tails, DOTS)]
        if self.unclosed_sentences:
            hits.append(matches(tails, WORD_END) & closed)
        found = []
        for reason, hit in zip(self.reasons, hits, strict=False):
            details = [tail(text) for text in tails.filter(pa.array(hit)).to_pylist()]
            found.append(of_turns(reason, block, turns[hit], details))
        return findings(found)

    def _prose(self, block: Block) -> tuple[Rows, pa.StringArray]:
        """Turn positions of last replies that end in prose, and their ends."""
        rows = np.flatnonzero((block.last_reply_turn >= 0) & ~np.asarray(block.column("has_code")))
        turns = block.last_reply_turn[rows]
        texts = block.contents.take(pa.array(turns))
        tails = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(texts, -TAIL))
        suspect = matches(tails, f"{OPEN_END}|{WORD_END}|{DOTS}")
        turns, tails = turns[suspect], tails.filter(pa.array(suspect))
        lines = pc.struct_field(pc.extract_regex(tails, LAST_LINE), "line")
        kept = self._long(lines) & ~matches(lines, LISTED) & ~matches(tails, LIST_BEFORE)
        return turns[kept], tails.filter(pa.array(kept))

    def _long(self, lines: pa.StringArray) -> Mask:
        words = np.asarray(pc.count_substring_regex(lines, WORDS))
        letters = np.asarray(pc.count_substring_regex(lines, LETTERS))
        return (words >= self.min_words) | (letters >= 2 * self.min_words)
