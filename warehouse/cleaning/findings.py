"""What a row filter is, and what it finds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block, Mask
from warehouse.records import Rows
from warehouse.rejects import excerpt

Action = Literal["drop", "flag"]


@dataclass(frozen=True, slots=True)
class Findings:
    """Rows of a block that a filter objects to, each once, with its reason and an excerpt.

    rows     (k,) ascending positions in the block
    reasons  (k,) of the filter's closed list; where several fit, the one that stands first in it
    details  (k,) what was found, at most `EXCERPT` characters
    """

    rows: Rows
    reasons: Sequence[str]
    details: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.reasons) == len(self.details):
            raise ValueError(f"{len(self.rows)} rows, {len(self.reasons)} reasons and {len(self.details)} details")
        if (np.diff(self.rows) <= 0).any():
            raise ValueError("the rows of findings must ascend")


class RowFilter(Protocol):
    """A frozen dataclass of thresholds. It looks at each row alone, so how rows are cut into blocks changes nothing.

    `reads` names the facts it needs as columns of the block; `default_action` is for recipes that state none.
    """

    reasons: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]]
    default_action: ClassVar[Action]

    def __call__(self, block: Block) -> Findings: ...


@dataclass(frozen=True, slots=True)
class Found:
    """Rows (k,), in any order and with repeats, to which one reason applies, and their details (k,)."""

    reason: str
    rows: Rows
    details: Sequence[str]


def findings(found: Iterable[Found]) -> Findings:
    """One finding per row: of several the first of the earliest in `found`."""
    parts = list(found)
    rows = np.concatenate([np.zeros(0, np.int64), *(part.rows for part in parts)])
    unique, first = np.unique(rows, return_index=True)
    reasons = [part.reason for part in parts for _ in part.details]
    details = [detail for part in parts for detail in part.details]
    return Findings(unique, [reasons[at] for at in first], [excerpt(details[at]) for at in first])


def of_mask(reason: str, rows: Mask, detail: Callable[[int], str]) -> Found:
    """`reason` for the rows in the mask `rows` (n,); `detail` says what was found in a row."""
    places = np.flatnonzero(rows)
    return Found(reason, places, [detail(row) for row in places.tolist()])


def of_turns(reason: str, block: Block, turns: Rows, details: Sequence[str]) -> Found:
    """`reason` for the rows of the ascending turn positions `turns` (k,)."""
    return Found(reason, block.row_of_turn[turns], details)


def of_pattern(reason: str, block: Block, turns: Rows, texts: pa.StringArray, matching: Mask, pattern: str) -> Found:
    """`reason` where `texts` (k,), taken from the turn positions `turns`, are `matching` the RE2 `pattern`.

    The details are the first match and the text around it.
    """
    shown = pc.extract_regex(texts.filter(pa.array(matching)), rf"(?P<found>.{{0,20}}(?:{pattern}).{{0,40}})")
    details = [" ".join((match or "").split()) for match in pc.struct_field(shown, "found").to_pylist()]
    return of_turns(reason, block, turns[matching], details)


def tail(text: str, characters: int = 60) -> str:
    """The end of `text` on one line."""
    return " ".join(text[-characters:].split())
