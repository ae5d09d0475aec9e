"""The key of what a training run reads: every part of it counts, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.tables import SELECTED
from warehouse.trained_rows import key_of_rows, weights_of

Row = dict[str, Any]


def row(*contents: str, **other: Any) -> Row:
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(contents)]
    return {"messages": turns, "meta": None, "weight": 1.0} | other


ROWS = [row("a", "b"), row("c", "d", meta="{}"), row("e", "f", "g", "h", meta='{"x":1}')]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def key(folder: Path, rows: list[Row], group: int = 1000) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=SELECTED), folder / "rows.parquet", row_group_size=group)
    return key_of_rows(folder / "rows.parquet")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
conversations = st.lists(
    st.builds(lambda contents, meta: row(*contents, meta=meta), st.lists(texts, max_size=3), st.none() | texts),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(conversations, conversations)
def test_the_key_is_the_same_only_for_the_same_rows(folder: Path, first: list[Row], second: list[Row]) -> None:
    assert (key(folder, first) == key(folder, second)) == (first == second)


def test_text_that_moves_to_a_neighbour_is_another_text(folder: Path) -> None:
    variants = [
        ROWS,
        ROWS[::-1],
        ROWS[:2],
        [row("ab", ""), *ROWS[1:]],
        [row("a"), row("b"), *ROWS[1:]],
        [row("a", " b"), *ROWS[1:]],
        [row("a", "b", meta=""), *ROWS[1:]],
        [row("a", "b", meta="{}"), row("c", "d"), ROWS[2]],
        [{**ROWS[0], "messages": [{**turn, "role": "user"} for turn in ROWS[0]["messages"]]}, *ROWS[1:]],
    ]
    assert len({key(folder, rows) for rows in variants}) == len(variants)


@pytest.mark.parametrize("group", [1, 2, 3])
def test_row_groups_and_other_columns_change_nothing(folder: Path, group: int) -> None:
    others = [{**each, "row": i, "score": i / 7, "reason": "why", "selection": "s"} for i, each in enumerate(ROWS)]
    assert key(folder, others, group) == key(folder, ROWS)


def test_weights_count_where_they_are_not_all_alike(folder: Path) -> None:
    plain = key(folder, ROWS)
    assert key(folder, [{**each, "weight": 2.0} for each in ROWS]) == plain
    assert weights_of(folder / "rows.parquet") is None
    weighed = [{**each, "weight": weight} for each, weight in zip(ROWS, (1.0, 2.0, 1.0), strict=True)]
    assert key(folder, weighed) not in {
        plain,
        key(folder, [{**each, "weight": 1.0 + i} for i, each in enumerate(ROWS)]),
    }
    key(folder, weighed)
    found = weights_of(folder / "rows.parquet")
    assert found is not None
    assert found.tolist() == [1, 2, 1]


def test_a_file_without_weights(folder: Path) -> None:
    table = pa.Table.from_pylist(ROWS, schema=SELECTED).select(["messages", "meta"])
    pq.write_table(table, folder / "blend.parquet")
    assert key_of_rows(folder / "blend.parquet") == key(folder, ROWS)
    assert weights_of(folder / "blend.parquet") is None
    assert json.loads(table["meta"].to_pylist()[2]) == {"x": 1}
