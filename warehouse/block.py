"""Rows of a pool as columns: every turn of every row in flat arrays, so that text is measured without a loop over rows.

A block is a row group or any other run of rows, not a pool: its text must stay below 2 GiB (32-bit string offsets).
"""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from warehouse.records import Rows

Mask = NDArray[np.bool_]


class Block:
    """Rows with the columns `messages`, `source` and `meta`, and the facts about them where they are described.

    A *turn position* counts the turns of all rows: row r has the turns `turn_offsets[r]` to `turn_offsets[r + 1]`.
    Arrays share memory with `table` where they can; what has to be computed is computed once, when it is asked for.
    """

    def __init__(self, table: pa.Table | pa.RecordBatch) -> None:
        self.table = table
        self.n: int = table.num_rows
        messages = self.column("messages")
        offsets = messages.offsets.to_numpy().astype(np.int64)
        turns = messages.values.slice(offsets[0], offsets[-1] - offsets[0])
        self.turn_offsets: Rows = offsets - offsets[0]
        self.roles: pa.StringArray = turns.field("role")
        self.contents: pa.StringArray = turns.field("content")

    def column(self, name: str) -> pa.Array:
        """One column of the table as one array. Raises `KeyError` where the table has none of that name."""
        column = self.table.column(name)
        if not isinstance(column, pa.ChunkedArray):
            return column
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # one chunk is not copied

    @cached_property
    def turns(self) -> Rows:
        """(n,) turns of each row."""
        return np.diff(self.turn_offsets)

    @cached_property
    def row_of_turn(self) -> Rows:
        """(turns,) the row of each turn position."""
        return np.repeat(np.arange(self.n), self.turns)

    @cached_property
    def chars_of_turn(self) -> Rows:
        """(turns,) characters of each turn."""
        return np.asarray(pc.utf8_length(self.contents)).astype(np.int64)

    @cached_property
    def is_system(self) -> Mask:
        """(turns,) which turns are system prompts."""
        return self._has_role("system")

    @cached_property
    def is_user(self) -> Mask:
        """(turns,) which turns a user wrote."""
        return self._has_role("user")

    @cached_property
    def is_assistant(self) -> Mask:
        """(turns,) which turns are replies."""
        return self._has_role("assistant")

    @cached_property
    def reply_turns(self) -> Rows:
        """Ascending turn positions of all replies."""
        return np.flatnonzero(self.is_assistant)

    @cached_property
    def replies(self) -> pa.StringArray:
        """The contents at `reply_turns`."""
        return self.contents.take(pa.array(self.reply_turns))

    @cached_property
    def last_reply_turn(self) -> Rows:
        """(n,) turn position of each row's last reply; -1 where it has none."""
        last = np.full(self.n, -1)
        last[self.row_of_turn[self.reply_turns]] = self.reply_turns  # the last of several assignments stays
        return last

    @cached_property
    def last_replies(self) -> pa.StringArray:
        """(n,) each row's last reply; null where it has none."""
        return self.contents.take(pa.array(self.last_reply_turn, mask=self.last_reply_turn < 0))

    @cached_property
    def user_text(self) -> pa.StringArray:
        """(n,) what the users of each row wrote, turns parted by a line break."""
        return self.joined(self.contents, self.is_user)

    def sum_of_turns(self, values: NDArray[Any], among: Mask | None = None) -> Rows:
        """(n,) sum over the turns of each row of `values` (turns,), of the turns in the mask `among` where given."""
        kept = np.asarray(values if among is None else np.where(among, values, 0), np.int64)
        totals: Rows = np.concatenate([[0], np.cumsum(kept)])
        return totals[self.turn_offsets[1:]] - totals[self.turn_offsets[:-1]]

    def any_turn(self, turns: Mask) -> Mask:
        """(n,) the rows in which any turn is in the mask `turns` (turns,)."""
        return self.sum_of_turns(turns) > 0

    def joined(self, texts: pa.StringArray, among: Mask) -> pa.StringArray:
        """(n,) per row `texts` (turns,) of the turns in `among`, parted by line breaks; empty where there is none."""
        kept = texts.filter(pa.array(among))
        offsets = np.concatenate([[0], np.cumsum(self.sum_of_turns(among))]).astype(np.int32)
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), kept), "\n")

    def _has_role(self, role: str) -> Mask:
        return np.asarray(pc.equal(self.roles, role))
