"""What is exported comes back by import, message for message, in every format and container."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pool_files import ingest

from warehouse import export as export_module
from warehouse.errors import InputError
from warehouse.export import FORMATS, SUFFIXES, check_export, export, export_rows, save
from warehouse.pool_writer import Prepared, prepare
from warehouse.pools import PoolReader
from warehouse.records import ROLES, Example, Message, Messages

QUIET = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
    deadline=None,
    max_examples=25,
)
SAID = st.text().filter(lambda text: bool(text.strip()))
META = st.dictionaries(st.sampled_from(["skill", "n"]), SAID | st.integers(), max_size=2)


def pairs(asked_and_replied: list[tuple[str, str]]) -> Messages:
    return tuple(m for asked, reply in asked_and_replied for m in (Message("user", asked), Message("assistant", reply)))


DIALOGUES = st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3).map(pairs)
LED = st.builds(lambda system, turns: (Message("system", system), *turns), SAID, DIALOGUES)
ANYTHING = st.lists(st.builds(Message, st.sampled_from(ROLES), st.text()), min_size=2, max_size=5).map(tuple)
PAIRED = st.builds(Example, DIALOGUES | LED, SAID, META)
FREE = st.builds(Example, ANYTHING, SAID, META).filter(lambda example: isinstance(prepare(example), Prepared))
EXAMPLES = {"alpaca": PAIRED, "messages": FREE, "sharegpt": FREE}


def imported(path: Path) -> list[Example]:
    ingest([str(path)], path.parent / f"pool of {path.name}", pool_key="k", name="p")
    reader = PoolReader(path.parent / f"pool of {path.name}")
    return reader.examples(range(reader.n))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", FORMATS)
@settings(QUIET, max_examples=10)
@given(data=st.data())
def test_round_trip(tmp_path: Path, name: str, suffix: str, data: st.DataObject) -> None:
    examples = data.draw(st.lists(EXAMPLES[name], min_size=1, max_size=4))
    path = tmp_path / f"out{suffix}"
    assert export(examples, path, name) == len(examples)
    assert imported(path) == examples


@QUIET
@given(examples=st.lists(FREE, min_size=1, max_size=4))
def test_a_saved_folder_comes_back_by_import(tmp_path: Path, examples: list[Example]) -> None:
    folder = tmp_path / "saved"
    assert save([(example, {}) for example in examples], folder) == len(examples)
    assert imported(folder) == examples
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_that_bring_their_columns_along_are_streamed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    rows = ((PLAIN, {"rank": rank, "note": None}) for rank in range(5000))
    assert export_rows(rows, path, types={"rank": pa.int64(), "note": pa.string()}) == 5000
    assert [example.meta["rank"] for example in imported(path)] == list(range(5000))
    with pytest.raises(ValueError, match="columns of its own named source"):
        export_rows([], path, types={"source": pa.string()})


@pytest.mark.parametrize("target", FORMATS)
@QUIET
@given(rows=st.lists(st.tuples(SAID, st.text(), SAID, st.text()), min_size=1, max_size=4))
def test_instruction_and_input_are_parted_again(
    tmp_path: Path, target: str, rows: list[tuple[str, str, str, str]]
) -> None:
    given_rows = [dict(zip(("instruction", "input", "output", "system"), row, strict=True)) for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given_rows))
    export(imported(tmp_path / "in.jsonl"), tmp_path / "between.jsonl", target)
    export(imported(tmp_path / "between.jsonl"), tmp_path / "out.jsonl", "alpaca")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").open(encoding="utf-8", newline="\n")]
    expected = [row | {"input": row["input"] if row["input"].strip() else ""} for row in given_rows]
    assert [{name: row[name] for name in expected[0]} for row in found] == expected


PLAIN = Example(pairs([("ask", "reply")]), "s", {"skill": "x"})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_of_a_selection_stand_beside_each_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"chosen{suffix}"
    export([PLAIN] * 3, path, columns={"rank": [1, 2, 3], "score": np.array([0.5, 0.25, 0.125]), "reason": ["a"] * 3})
    metas = [example.meta for example in imported(path)]
    assert metas == [{"rank": i, "score": 1 / 2**i, "reason": "a", "skill": "x"} for i in (1, 2, 3)]


def test_lines_and_tables_have_plain_columns(tmp_path: Path) -> None:
    export([PLAIN], tmp_path / "a.jsonl.gz", "sharegpt", columns={"rank": [1]})
    assert json.loads(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes())) == {
        "conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "reply"}],
        "source": "s", "rank": 1, "meta": {"skill": "x"},
    }  # fmt: skip
    export([PLAIN], tmp_path / "a.parquet", "alpaca", columns={"score": [0.5]})
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [
        {
            "instruction": "ask", "input": "", "output": "reply", "system": "", "history": [], "source": "s",
            "score": 0.5, "meta": '{"skill":"x"}',
        }
    ]  # fmt: skip


def test_no_rows_make_a_valid_file(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        assert export([], tmp_path / f"none{suffix}", columns={"rank": []}) == 0
    assert json.loads((tmp_path / "none.json").read_text()) == []
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_columns_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        export([PLAIN] * 2, tmp_path / "a.jsonl", columns={"rank": [1]})
    with pytest.raises(ValueError, match="columns of its own named messages, source"):
        export([PLAIN], tmp_path / "a.jsonl", columns={"source": ["x"], "messages": [1], "rank": [1]})
    assert not list(tmp_path.iterdir())


def message(*roles: str, content: str = "x") -> Example:
    return Example(tuple(Message(role, content) for role in roles), "s")  # type: ignore[arg-type]  # the tests' own roles


@pytest.mark.parametrize(
    ("example", "what"),
    [
        (message("user", "assistant", "tool", "assistant"), "pairs of user and assistant"),
        (message("user", "user", "assistant"), "pairs of user and assistant"),
        (message("user", "assistant", "user"), "pairs of user and assistant"),
        (message("user", "system", "assistant"), "pairs of user and assistant"),
        (message("system"), "pairs of user and assistant"),
        (message("system", "user", "assistant", content=""), "an empty system turn"),
    ],
)
def test_a_conversation_that_alpaca_cannot_hold_is_an_error_and_leaves_no_file(
    tmp_path: Path, example: Example, what: str
) -> None:
    with pytest.raises(InputError, match=f"row 1: alpaca has no place for .*{what}.*; write messages or sharegpt"):
        export([PLAIN, example], tmp_path / "a.jsonl", "alpaca")
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    export([PLAIN], path)
    before = path.read_bytes()
    with pytest.raises(InputError):
        export([PLAIN, message("tool")], path, "alpaca")
    assert path.read_bytes() == before
    export([PLAIN] * 2, path)
    assert len(imported(path)) == 2


@pytest.mark.parametrize("suffix", ["", ".txt", ".csv", ".jsonl.bz2"])
def test_an_unknown_suffix_or_format_lists_the_known_ones(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match=r"\.jsonl, .*\.parquet"):
        export([PLAIN], tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match="unknown format 'chatml'; known formats: messages, alpaca, sharegpt"):
        export([PLAIN], tmp_path / "a.jsonl", "chatml")
    with pytest.raises(InputError, match="unknown format 'chatml'"):
        check_export(tmp_path / "a.jsonl", "chatml")


def test_an_input_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    export([PLAIN], path)
    (tmp_path / "link.jsonl").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for target, source in [(path, path), (Path("a.jsonl"), path), (tmp_path / "link.jsonl", path), (path, tmp_path)]:
        with pytest.raises(InputError, match="is an input of this run"):
            export([PLAIN] * 2, target, inputs=[source])
    assert len(imported(path)) == 1


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        export([PLAIN], tmp_path / "a.jsonl")


def test_a_disk_that_takes_no_more_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(export_module.os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.jsonl: No space left on device"):
        export([PLAIN], tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([(PLAIN, {})], tmp_path / "saved")
    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(28, os.strerror(28))
        rename(source, target)

    monkeypatch.setattr(export_module.os, "rename", full)
    with pytest.raises(InputError, match=r"cannot write .*saved: No space left on device"):
        save([(PLAIN, {})] * 2, tmp_path / "saved")
    assert imported(tmp_path / "saved") == [PLAIN]
    assert not list(tmp_path.glob(".*"))


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    export([PLAIN], tmp_path / "x" / "y" / "a.jsonl")
    assert len(imported(tmp_path / "x" / "y" / "a.jsonl")) == 1
