"""Import into a pool and reading it back: nothing lost, nothing uncounted, the same rows every time."""

import json
import resource
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pool_files import ingest, write_pool

from warehouse import pool_writer, pools, shards
from warehouse.errors import InputError
from warehouse.pool_writer import Prepared, identify, prepare
from warehouse.pools import Funnel, PoolReader, probe
from warehouse.records import ROLES, Example, Message
from warehouse.rejects import Reason, Refused
from warehouse.sources import locate
from warehouse.tables import POOL, REJECTS, SAMPLES

GOOD = {"instruction": "ask", "output": "reply"}
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
CONVERSATIONS = st.lists(st.builds(Message, st.sampled_from(ROLES), st.text()), min_size=1, max_size=6).map(tuple)


def lines(path: Path, *rows: dict[str, Any] | bytes) -> Path:
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def pool(out: Path, *sources: Path) -> Funnel:
    return ingest([str(source) for source in sources], out)


def rejects(out: Path) -> list[tuple[str, str, str]]:
    rows = [row for path in sorted(out.glob("rejects-*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [(row["source"], row["location"], row["reason"]) for row in rows]


def asked(reader: PoolReader) -> list[str]:
    return [example.messages[0].content for example in reader.examples(range(reader.n))]


def test_every_bad_row_is_a_counted_reject_with_its_place(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "mix.jsonl",
        GOOD | {"id": 1},
        {"messages": [{"role": "user", "content": "m"}, {"role": "assistant", "content": "n"}]},  # another schema
        b"{broken\n",
        {"text": "x"},
        {"messages": [{"role": "user", "content": "m"}]},
        {"messages": [{"role": "assistant", "content": "n"}]},
        GOOD | {"instruction": "  "},
        GOOD | {"output": " \n"},
        GOOD | {"output": None},
        {"messages": [{"role": "witch", "content": "m"}]},
        b'{"instruction": "\xff", "output": "x"}\n',
        b'{"instruction": "' + b"x" * 9_000_000 + b'", "output": "y"}\n',
        b'{"instruction": "\\ud800", "output": "y"}\n',
        b'{"instruction": "a", "output": "y", "tag": "\\ud800"}\n',
        {"messages": [{"role": "user", "content": "m"}, {"role": "assistant", "content": "", "tool_calls": [1]}]},
        GOOD | {"output": {"a": 1}},
        GOOD | {"output": ""} | {"id": 2},
        GOOD | {"id": 2},
    )
    funnel = pool(tmp_path / "out", path)
    assert funnel == Funnel(
        18, 3,
        {
            "malformed": 1, "unknown_columns": 1, "no_assistant_turn": 1, "no_user_turn": 2, "empty_reply": 2,
            "null_content": 1, "unknown_role": 1, "invalid_utf8": 1, "too_large": 1,
            "lone_surrogate": 2, "tool_calls": 1, "not_text": 1,
        },
    )  # fmt: skip
    assert set(funnel.dropped) == set(Reason)  # the closed list, whole
    places = rejects(tmp_path / "out")
    assert [place for _, place, _ in places] == [f"mix.jsonl:{n}" for n in [*range(3, 18)]]
    assert {source for source, _, _ in places} == {"mix"}


def test_a_funnel_cannot_leak() -> None:
    with pytest.raises(ValueError, match="leaks"):
        Funnel(3, 1, {"malformed": 1})


def test_the_artifact_has_typed_tables(tmp_path: Path) -> None:
    bad = GOOD | {"output": ""}
    paths = (
        lines(tmp_path / "b.jsonl", GOOD | {"source": "s"}, GOOD),
        lines(tmp_path / "a.jsonl", bad, GOOD | {"id": 7}),
    )
    pool(tmp_path / "out", *paths)
    schemas = {
        "samples-000000000000.parquet": SAMPLES, "samples-000000000002.parquet": SAMPLES,
        "rejects-000001.parquet": REJECTS, "pool.parquet": POOL,
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(schemas)
    assert all(pq.read_schema(tmp_path / "out" / name).equals(schema) for name, schema in schemas.items())
    (row,) = pq.read_table(tmp_path / "out" / "pool.parquet").to_pylist()
    assert {name: value for name, value in row.items() if name != "made"} == {
        "pool": "k", "name": "p", "n": 3, "rows_in": 4, "rejected": 1,
        "sources": [{"source": "a", "rows": 1}, {"source": "b", "rows": 1}, {"source": "s", "rows": 1}],
    }  # fmt: skip
    row = pq.read_table(tmp_path / "out" / "samples-000000000002.parquet").to_pylist()[0]
    assert (row["source"], row["turns"], row["chars"], row["location"], row["given_id"]) == (
        "a",
        2,
        8,
        "a.jsonl:2",
        "7",
    )


@QUIET
@given(examples=st.lists(st.builds(Example, CONVERSATIONS, st.text(min_size=1)), min_size=1, max_size=8))
def test_rows_in_are_rows_out_and_rejects_and_kept_rows_are_unchanged(tmp_path: Path, examples: list[Example]) -> None:
    kept = [example for example in examples if isinstance(prepare(example), Prepared)]
    if not kept:
        with pytest.raises(InputError, match=f"none of {len(examples)} rows could be kept"):
            write_pool(examples, tmp_path / "out")
        return
    funnel = write_pool(examples, tmp_path / "out")
    assert funnel.rows_in == len(examples) == funnel.rows_out + sum(funnel.dropped.values())
    reader = PoolReader(tmp_path / "out")
    assert reader.examples(range(reader.n)) == kept
    assert reader.sample_ids().tolist() == [example.sample_id.encode() for example in kept]
    assert reader.prompt_ids().tolist() == [example.prompt_id.encode() for example in kept]
    assert len(rejects(tmp_path / "out")) == sum(funnel.dropped.values())


@given(messages=CONVERSATIONS)
def test_ids_written_are_those_of_the_records(messages: tuple[Message, ...]) -> None:
    example = Example(messages, "s")
    assert identify(example) == (example.sample_id, example.prompt_id)


def example_of(text: str, **meta: Any) -> Example:
    return Example((Message("user", text), Message("assistant", "reply")), "s", meta)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (Example((), "s"), Reason.NO_ASSISTANT_TURN),
        (
            Example((Message("user", "a"), Message("assistant", " "), Message("assistant", "b")), "s"),
            Reason.EMPTY_REPLY,
        ),
        (Example((Message("system", "a"), Message("assistant", "b")), "s"), Reason.NO_USER_TURN),
        (example_of("x" * 9_000_000), Reason.TOO_LARGE),
        (example_of("a", blob="x" * 9_000_000), Reason.TOO_LARGE),
        (example_of("a\udfff"), Reason.LONE_SURROGATE),
        (example_of("a", tag="\udfff"), Reason.LONE_SURROGATE),
        (Example(example_of("a").messages, "\udfff"), Reason.LONE_SURROGATE),
    ],
)
def test_generated_rows_obey_the_same_laws(example: Example, reason: Reason) -> None:
    refused = prepare(example)
    assert isinstance(refused, Refused)
    assert refused.reason is reason
    refused.detail.encode("utf-8")


@pytest.mark.parametrize(
    ("roles", "kept", "kept_without_a_reply"),
    [
        ("user", False, True),
        ("system user", False, True),
        ("user assistant", True, True),
        ("user assistant user", True, True),
        ("user system", False, False),
        ("system", False, False),
        ("assistant", False, False),
        ("", False, False),
    ],
)
def test_a_test_set_keeps_rows_that_end_with_what_a_user_asks(
    roles: str, kept: bool, kept_without_a_reply: bool
) -> None:
    example = Example(tuple(Message(role, role) for role in roles.split()), "s")  # type: ignore[arg-type]
    assert isinstance(prepare(example), Prepared) is kept
    assert isinstance(prepare(example, unanswered=True), Prepared) is kept_without_a_reply


def test_a_test_set_may_hold_prompts_alone(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "b"}, {"question": "c"}, {"question": "d", "answer": None}, {"question": " "}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [piece] = shards.pieces(locate(str(tmp_path / "rows.jsonl")))
    assert shards.write_shard(piece, tmp_path / "test", unanswered=True) == (4, 3, {"no_user_turn": 1})
    dropped = {"null_content": 1, "unknown_columns": 2}
    assert shards.write_shard(piece, tmp_path / "pool") == (4, 1, dropped)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "kwargs": []}\n')
    pools.probe(str(tmp_path / "prompts.jsonl"), unanswered=True)
    with pytest.raises(InputError, match="no known format has these columns: prompt, kwargs"):
        pools.probe(str(tmp_path / "prompts.jsonl"))


def test_meta_comes_back_as_it_was(tmp_path: Path) -> None:
    meta = {"n": 2**70, "words": "né\n\u2028", "nested": {"list": [1, None, True, 0.1]}}
    write_pool([example_of("a", **meta)], tmp_path / "out")
    assert PoolReader(tmp_path / "out").examples([0])[0].meta == meta


def test_the_same_sources_give_the_same_pool_in_their_order(tmp_path: Path) -> None:
    first = lines(tmp_path / "z.jsonl", *({"prompt": f"z{i}", "completion": "r"} for i in range(5)))
    second = lines(tmp_path / "a.jsonl", *({"prompt": f"a{i}", "completion": "r"} for i in range(5)))
    pool(tmp_path / "one", first, second)
    pool(tmp_path / "two", first, second)
    assert asked(PoolReader(tmp_path / "one")) == [f"{name}{i}" for name in "za" for i in range(5)]
    for name in ["samples-000000000000.parquet", "samples-000000000005.parquet"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_skip_and_limit_take_a_window_of_each_source(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in "ab":
        lines(tmp_path / "folder" / f"{name}.jsonl", *({"prompt": f"{name}{i}", "completion": "r"} for i in range(2)))
    last = lines(tmp_path / "c.jsonl", *({"prompt": f"c{i}", "completion": "r"} for i in range(9)))
    windows = [replace(locate(str(tmp_path / "folder")), skip=1), replace(locate(str(last)), skip=2, limit=3)]
    assert ingest(windows, tmp_path / "out").rows_in == 6
    assert asked(PoolReader(tmp_path / "out")) == ["a1", "b0", "b1", "c2", "c3", "c4"]


def refusal(tmp_path: Path, *sources: Path) -> str:
    with pytest.raises(InputError) as error:
        pool(tmp_path / "out", *sources)
    return str(error.value)


def test_what_can_be_known_before_work_starts_is_said_before_anything_is_written(tmp_path: Path) -> None:
    good = lines(tmp_path / "good.jsonl", GOOD)
    (tmp_path / "empty").mkdir()
    cases = {
        "no such file": tmp_path / "missing.jsonl",
        "no data file in this folder": tmp_path / "empty",
        "is empty: no rows": lines(tmp_path / "empty.jsonl"),
        "blank.jsonl is empty: no rows": lines(tmp_path / "blank.jsonl", b" \n\n"),
        "header.csv is empty: no rows": lines(tmp_path / "header.csv", b"prompt,completion\n"),
        "list.json is empty: no rows": lines(tmp_path / "list.json", b"[]"),
        "columns: text, label.\nKnown formats": lines(tmp_path / "other.jsonl", {"text": "a", "label": 1}),
        "none of the first 2 rows can be read; junk.jsonl:1: malformed": lines(tmp_path / "junk.jsonl", b"{\n{\n"),
        "which another source names already": good,
    }
    for message, path in cases.items():
        assert message in refusal(tmp_path, good, path)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no source"):
        ingest([], tmp_path / "out")


def test_an_empty_file_beside_others_in_a_folder_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines(tmp_path / "in" / "part-0.jsonl")
    lines(tmp_path / "in" / "part-1.jsonl", GOOD)
    assert pool(tmp_path / "out", tmp_path / "in").rows_out == 1
    probe(str(tmp_path / "in"))


def test_a_source_whose_rows_are_all_rejected_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    bad = lines(tmp_path / "bad.jsonl", GOOD | {"output": ""}, GOOD | {"output": ""}, GOOD | {"output": None})
    assert refusal(tmp_path, bad) == "p: none of 3 rows could be kept (empty_reply 2, null_content 1)"


def test_notes_say_what_was_left_out_of_kept_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]}
    funnel = pool(tmp_path / "out", lines(tmp_path / "a.jsonl", row))
    assert funnel.notes == ("a.jsonl: turn field 'weight' dropped",)


def test_a_pool_can_be_imported_again(tmp_path: Path) -> None:
    rows = [GOOD | {"instruction": f"ask {i}", "skill": "s", "source": f"from{i % 2}"} for i in range(5)]
    pool(tmp_path / "first", lines(tmp_path / "a.jsonl", *rows, {"text": "rejected"}))
    assert pool(tmp_path / "again", tmp_path / "first") == Funnel(5, 5, {})
    first, again = PoolReader(tmp_path / "first"), PoolReader(tmp_path / "again")
    assert first.examples(range(5)) == again.examples(range(5))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PoolReader:
    monkeypatch.setattr(pool_writer, "GROUP_ROWS", 4)
    write_pool((example_of(f"q{i}", n=i) for i in range(30)), tmp_path / "out", size=8)
    return PoolReader(tmp_path / "out")


def test_files_and_row_groups_have_their_sizes(reader: PoolReader) -> None:
    sizes = [[group(file.path, i) for i in range(pq.read_metadata(file.path).num_row_groups)] for file in reader.files]
    assert sizes == [[4, 4], [4, 4], [4, 4], [4, 2]]
    assert [(file.first, file.n) for file in reader.files] == [(0, 8), (8, 8), (16, 8), (24, 6)]
    assert reader.n == 30


def group(path: Path, index: int) -> int:
    return int(pq.read_metadata(path).row_group(index).num_rows)


@pytest.mark.parametrize("chars", [1, 20, 10_000])
def test_rows_come_in_any_order_in_parts(reader: PoolReader, monkeypatch: pytest.MonkeyPatch, chars: int) -> None:
    monkeypatch.setattr(pools, "PART_CHARS", chars)
    rows = np.random.default_rng(0).permutation(30)[:20]
    parts = list(reader.in_order(rows, ["location", "chars"]))
    assert [start for start, _ in parts] == np.cumsum([0, *(len(table) for _, table in parts)])[:-1].tolist()
    assert all(len(table) == 1 or sum(table["chars"].to_pylist()) <= chars for _, table in parts)
    assert (len(parts) == 1) == (chars == 10_000)
    assert [name for _, table in parts for name in table["location"].to_pylist()] == [f"row {row}" for row in rows]


@pytest.mark.parametrize("rows", [[], [0], [29, 0, 13, 13, 7], range(30), np.array([5, 4], np.int64)])
def test_examples_come_in_the_order_asked_for(reader: PoolReader, rows: Sequence[int]) -> None:
    assert [example.meta["n"] for example in reader.examples(rows)] == list(rows)


@pytest.mark.parametrize("row", [-1, 30])
def test_a_row_that_is_not_there_is_an_index_error(reader: PoolReader, row: int) -> None:
    with pytest.raises(IndexError, match="of a pool of 30"):
        reader.examples([0, row])


@pytest.mark.parametrize("size", [1, 3, 4, 7, 30, 100])
def test_batches_cover_every_row_once(reader: PoolReader, size: int) -> None:
    batches = list(reader.batches(size))
    assert [first for first, _ in batches] == list(range(0, 30, size))
    assert [example.meta["n"] for _, batch in batches for example in batch] == list(range(30))
    assert all(len(batch) == size for _, batch in batches[:-1])


def test_keys_sort_as_the_ids_do(reader: PoolReader) -> None:
    ids, keys = reader.sample_ids(), reader.keys()
    assert keys.dtype == np.uint64
    assert keys.tolist() == [int(sample_id[:16], 16) for sample_id in ids.tolist()]
    assert np.array_equal(np.argsort(keys), np.argsort(ids))


def test_columns_are_read_by_name(reader: PoolReader) -> None:
    assert set(reader.sources()) == {"s"}
    assert reader.column("turns").tolist() == [2] * 30
    for name in ["messages", "skill"]:
        with pytest.raises(KeyError, match="no flat column"):
            reader.column(name)


def test_a_folder_that_is_no_pool_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no pool"):
        PoolReader(tmp_path)


def test_much_text_closes_a_row_group_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_writer, "GROUP_CHARS", 100)
    write_pool((example_of("x" * 60) for _ in range(4)), tmp_path / "out")
    assert pq.read_metadata(tmp_path / "out" / "samples-000000000000.parquet").num_row_groups == 2


def test_memory_does_not_grow_with_giant_rows(tmp_path: Path) -> None:
    giant = b'{"instruction": "' + b"x" * (20 * 2**20) + b'", "output": "y"}\n'
    with (tmp_path / "a.jsonl").open("wb") as file:
        for _ in range(15):  # 300 MiB
            file.write(giant)
        file.write(json.dumps(GOOD).encode())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="none of the first"):
        probe(lines(tmp_path / "only_giants.jsonl", giant * 2).as_posix())
    assert pool(tmp_path / "out", tmp_path / "a.jsonl").dropped == {"too_large": 15}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120 * 1024  # KiB
