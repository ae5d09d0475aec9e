"""Rows that are too short or too long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, Found, findings, of_mask
from warehouse.cleaning.parameters import check_range
from warehouse.records import Rows


@dataclass(frozen=True, slots=True)
class Length:
    """Limits in characters, both ends included, None for no limit: of the row's turns together, of its user turns
    together, and of its last reply. White space around a prompt or a reply does not count.
    """

    min_chars: int = 0
    max_chars: int | None = 100_000
    min_prompt: int = 0
    max_prompt: int | None = None
    min_reply: int = 1
    max_reply: int | None = None

    reasons: ClassVar[tuple[str, ...]] = (
        "too_short", "too_long", "too_short_prompt", "too_long_prompt", "too_short_reply", "too_long_reply",
    )  # fmt: skip
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_range("min_chars", self.min_chars, "max_chars", self.max_chars)
        check_range("min_prompt", self.min_prompt, "max_prompt", self.max_prompt)
        check_range("min_reply", self.min_reply, "max_reply", self.max_reply)

    def __call__(self, block: Block) -> Findings:
        return findings(
            [
                *_outside("", block.sum_of_turns(block.chars_of_turn), self.min_chars, self.max_chars),
                *_outside("_prompt", _trimmed_chars(block.user_text), self.min_prompt, self.max_prompt),
                *_outside("_reply", _trimmed_chars(block.last_replies), self.min_reply, self.max_reply),
            ]
        )


def _outside(part: str, chars: Rows, low: int, high: int | None) -> Iterator[Found]:
    def detail(row: int) -> str:
        return f"{chars[row]} characters"

    yield of_mask(f"too_short{part}", chars < low, detail)
    if high is not None:
        yield of_mask(f"too_long{part}", chars > high, detail)


def _trimmed_chars(texts: pa.StringArray) -> Rows:
    return np.asarray(pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)).astype(np.int64)
