"""Replies that say nothing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_turns
from warehouse.facts import matches

LONGEST = 60  # bytes; a reply beyond it says something
AROUND = r"[\s\pP<>|`]*"
BLANK = r"\A[\s\pP`]*\z"
NO_ANSWER = (
    rf"(?i)\A{AROUND}(?:n/?a|none|null|nil|nan|no ?-?_?(?:output|input|answer|response|reply)|undefined|empty|blank"
    rf"|todo|tbd|not (?:applicable|available)){AROUND}\z"
)


@dataclass(frozen=True, slots=True)
class EmptyReply:
    """Replies of white space and punctuation alone, or of a word that stands for nothing (`N/A`, `<nooutput>`).

    A bare word that the row's prompt has too ("None" among the options) is an answer.
    """

    reasons: ClassVar[tuple[str, ...]] = ("blank_reply", "no_answer")
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __call__(self, block: Block) -> Findings:
        short = np.flatnonzero(np.asarray(pc.binary_length(block.replies)) <= LONGEST)
        texts, turns = block.replies.take(pa.array(short)), block.reply_turns[short]
        blank, no_answer = matches(texts, BLANK), matches(texts, NO_ANSWER)
        no_answer[no_answer] = [not _is_offered(block, turn) for turn in turns[no_answer].tolist()]
        return findings(
            [
                of_turns(reason, block, turns[hit], texts.filter(pa.array(hit)).to_pylist())
                for reason, hit in zip(self.reasons, (blank, no_answer), strict=True)
            ]
        )


def _is_offered(block: Block, turn: int) -> bool:
    reply = block.contents[turn].as_py().strip(" \n.").casefold()
    return reply in block.user_text[int(block.row_of_turn[turn])].as_py().casefold() and "<" not in reply
