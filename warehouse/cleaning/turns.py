"""Conversations of the wrong shape."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from warehouse.block import Block, Mask
from warehouse.cleaning.findings import Action, Findings, findings, of_mask
from warehouse.cleaning.parameters import check_range, check_switch


@dataclass(frozen=True, slots=True)
class Turns:
    """How many turns a row has (all of them, a system prompt too), whether it ends with a reply, and whether roles
    alternate: no user or assistant turn right after one of its own kind. System turns do not come between.
    """

    min_turns: int = 2
    max_turns: int | None = None
    ends_with_reply: bool = True
    alternating: bool = False

    reasons: ClassVar[tuple[str, ...]] = (
        "too_few_turns", "too_many_turns", "ends_without_reply", "roles_do_not_alternate",
    )  # fmt: skip
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_range("min_turns", self.min_turns, "max_turns", self.max_turns)
        check_switch("ends_with_reply", self.ends_with_reply)
        check_switch("alternating", self.alternating)

    def __call__(self, block: Block) -> Findings:
        def count(row: int) -> str:
            return f"{block.turns[row]} turns"

        def roles(row: int) -> str:
            start, stop = block.turn_offsets[row : row + 2].tolist()
            return ", ".join(block.roles.slice(start, stop - start).to_pylist())

        many = np.zeros(block.n, bool) if self.max_turns is None else block.turns > self.max_turns
        no_reply = block.last_reply_turn != block.turn_offsets[1:] - 1
        found = [
            of_mask("too_few_turns", block.turns < self.min_turns, count),
            of_mask("too_many_turns", many, count),
        ]
        if self.ends_with_reply:
            found.append(of_mask("ends_without_reply", no_reply | (block.turns == 0), roles))
        if self.alternating:
            found.append(of_mask("roles_do_not_alternate", _repeated_roles(block), roles))
        return findings(found)


def _repeated_roles(block: Block) -> Mask:
    """(n,) rows in which a user or an assistant speaks twice in a row, system turns left out."""
    kept = np.flatnonzero(~block.is_system)
    roles = np.asarray(block.roles.take(pa.array(kept)).dictionary_encode().indices)
    spoken = (block.is_user | block.is_assistant)[kept]
    row = block.row_of_turn[kept]
    again = (roles[1:] == roles[:-1]) & (row[1:] == row[:-1]) & spoken[1:]
    repeated = np.zeros(block.n, bool)
    repeated[row[1:][again]] = True
    return repeated
