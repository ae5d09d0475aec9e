"""Text that was decoded with the wrong character set."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_pattern
from warehouse.facts import matches

# A byte of UTF-8 that continues a letter, as Windows-1252 or Latin-1 read it.
CONTINUED = (
    "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-\u201a\u201c-\u201e"
    "\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
)
WRONG = (  # the lead bytes of accented letters, of punctuation, of Cyrillic (two letters) and of Chinese (two letters)
    f"\u00c3{CONTINUED}|\u00c2[\u0080-\u00bf]|\u00e2[\u20ac\u0080]{CONTINUED}|\u00ef\u00bb\u00bf"
    f"|(?:[\u00d0\u00d1]{CONTINUED}){{2}}|(?:[\u00e3-\u00e9]{CONTINUED}{{2}}){{2}}"
)
LOST = "\ufffd"


@dataclass(frozen=True, slots=True)
class Mojibake:
    """UTF-8 read as Windows-1252 or Latin-1 (`Ã©` for é, `â€™` for ’), and U+FFFD, which stands for lost bytes."""

    reasons: ClassVar[tuple[str, ...]] = ("mojibake", "lost_characters")
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __call__(self, block: Block) -> Findings:
        turns = np.flatnonzero(np.asarray(pc.binary_length(block.contents)) > block.chars_of_turn)  # all but ASCII
        texts = block.contents.take(pa.array(turns))
        wrong, lost = matches(texts, WRONG), matches(texts, LOST)
        return findings(
            [
                of_pattern("mojibake", block, turns, texts, wrong, WRONG),
                of_pattern("lost_characters", block, turns, texts, lost, LOST),
            ]
        )
