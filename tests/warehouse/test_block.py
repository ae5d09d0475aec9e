"""A block's flat columns say what a loop over rows and turns would, whatever the table was cut from."""

import numpy as np
import pyarrow as pa
import pytest
from cleaning_rows import table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.block import Block

TURN = st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text("aé语 \n", max_size=5))
CONVERSATIONS = st.lists(st.lists(TURN, max_size=5), max_size=8)


@settings(max_examples=60, deadline=None)
@given(CONVERSATIONS, st.data())
def test_columns_are_those_of_a_loop_over_rows(rows: list[list[tuple[str, str]]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    table = pa.concat_tables([table_of(rows), table_of(rows)]).slice(start, stop - start + len(rows))
    rows = (rows + rows)[start : stop + len(rows)]
    batch = table.combine_chunks().to_batches()[0] if rows else table
    for block in (Block(table), Block(batch)):
        turns = [turn for row in rows for turn in row]
        assert block.n == len(rows)
        assert block.turn_offsets.dtype == np.int64
        assert block.turn_offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
        assert block.roles.to_pylist() == [role for role, _ in turns]
        assert block.contents.to_pylist() == [content for _, content in turns]
        assert block.turns.tolist() == [len(row) for row in rows]
        assert block.row_of_turn.tolist() == [at for at, row in enumerate(rows) for _ in row]
        assert block.chars_of_turn.tolist() == [len(content) for _, content in turns]
        assert block.is_user.tolist() == [role == "user" for role, _ in turns]
        assert block.is_assistant.tolist() == [role == "assistant" for role, _ in turns]
        assert block.is_system.tolist() == [role == "system" for role, _ in turns]
        assert block.replies.to_pylist() == [content for role, content in turns if role == "assistant"]
        last = [next((text for role, text in reversed(row) if role == "assistant"), None) for row in rows]
        assert block.last_replies.to_pylist() == last
        assert [at >= 0 for at in block.last_reply_turn.tolist()] == [text is not None for text in last]
        assert block.user_text.to_pylist() == ["\n".join(text for role, text in row if role == "user") for row in rows]
        user_chars = [sum(len(text) for role, text in row if role == "user") for row in rows]
        assert block.sum_of_turns(block.chars_of_turn, block.is_user).tolist() == user_chars
        tools = [any(role == "tool" for role, _ in row) for row in rows]
        assert block.any_turn(np.array([role == "tool" for role, _ in turns], bool)).tolist() == tools


def test_contents_share_the_tables_memory() -> None:
    table = table_of([[("user", "one"), ("assistant", "two")], [("user", "three")]])
    column = table["messages"].chunk(0).values.field("content")
    block = Block(table.slice(1))
    assert block.contents.to_pylist() == ["three"]
    assert block.contents.buffers()[2].address == column.buffers()[2].address


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="language"):
        Block(table_of([])).column("language")
