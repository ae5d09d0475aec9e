"""Turns with a code fence that is never closed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_turns, tail

LINE_FENCE = r"(?m)^[ \t>]*```"


@dataclass(frozen=True, slots=True)
class CodeFence:
    """An odd number of fences in one turn, both of those at the start of a line and of all: a sentence about fences
    has one of the latter only, and a fence closed behind its last line of code one of the former.
    """

    reasons: ClassVar[tuple[str, ...]] = ("unclosed_fence",)
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __call__(self, block: Block) -> Findings:
        odd = np.flatnonzero(np.asarray(pc.count_substring(block.contents, "```")) % 2)
        texts = block.contents.take(pa.array(odd))
        open_turns = np.asarray(pc.count_substring_regex(texts, LINE_FENCE)) % 2 == 1
        details = [tail(text) for text in texts.filter(pa.array(open_turns)).to_pylist()]
        return findings([of_turns("unclosed_fence", block, odd[open_turns], details)])
