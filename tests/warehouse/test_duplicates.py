"""Repeated ids, conversations and questions: the first live row stays."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_files import ingest, write_pool

from warehouse.duplicates import Found, duplicate_ids, exact_duplicates, found, repeats
from warehouse.pools import PoolReader
from warehouse.records import Example, Message


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=40))
def test_every_row_but_the_first_live_one_of_its_key_repeats_it(rows: list[tuple[int, bool]]) -> None:
    keys, alive = np.array([k for k, _ in rows], np.uint64), np.array([a for _, a in rows], np.bool_)
    first: dict[int, int] = {}
    expected = []
    for row, (key, live) in enumerate(rows):
        if live and first.setdefault(key, row) != row:
            expected.append((row, first[key]))
    repeated, firsts = repeats(keys, alive)
    assert list(zip(repeated.tolist(), firsts.tolist(), strict=True)) == expected


def test_ids_are_compared_within_a_file(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        rows = [
            {"prompt": f"{name}{i}", "completion": "r", "id": given} for i, given in enumerate([1, "1", 2, None, None])
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(str(path))
    ingest(paths, tmp_path / "pool")
    pool = PoolReader(tmp_path / "pool")
    answer = duplicate_ids(pool, np.ones(10, np.bool_))
    assert (answer.rows.tolist(), answer.others.tolist()) == ([1, 6], [0, 5])
    assert set(answer.other_pools) == {"pool"}
    alive = np.ones(10, np.bool_)
    alive[0] = False
    assert duplicate_ids(pool, alive).rows.tolist() == [6]


def test_conversations_and_questions(tmp_path: Path) -> None:
    def row(asked: str, reply: str) -> Example:
        return Example((Message("user", asked), Message("assistant", reply)), "s")

    write_pool([row("A b", "x"), row("a  B", "y"), row("A b", "x "), row("c", "x")], tmp_path / "pool", size=2)
    pool, everyone = PoolReader(tmp_path / "pool"), np.ones(4, np.bool_)
    assert exact_duplicates(pool, everyone, "messages").rows.tolist() == [2]
    assert exact_duplicates(pool, everyone, "prompt").rows.tolist() == [1, 2]
    assert exact_duplicates(pool, everyone, "prompt").reasons == ["same_prompt"] * 2


def test_what_is_found_fits_together() -> None:
    with pytest.raises(ValueError, match="ascend"):
        found(np.array([2, 1]), ["a", "b"])
    with pytest.raises(ValueError, match="lengths"):
        Found(np.array([1]), [], [], np.array([1]), [""], np.array([0.5]))
