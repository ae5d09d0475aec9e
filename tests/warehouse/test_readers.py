"""Every container gives the same rows; every kind of damage is a counted reject or a clear error."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warehouse import csv_rows, json_rows, readers
from warehouse.errors import InputError
from warehouse.readers import holds_bytes, read
from warehouse.rejects import Reason, Refused
from warehouse.sources import HubDataset, locate

ROWS = [
    {"instruction": "Add 1 and 2.", "input": "", "output": "3"},
    {"instruction": "Übersetze: «né»", "input": "zwei\nZeilen", "output": 'line\u2028separator, "quotes" and 日本語'},
    {"instruction": "x, y", "input": " \ttab", "output": "\r\nend "},
]
MESSAGE_ROWS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"messages": [{"role": "user", "content": "c\n"}, {"role": "assistant", "content": "d"}]},
]


def all_of(source: Path | str) -> list[tuple[str, Any]]:
    return [
        (part.name + place, row) for part in locate(str(source)).parts for place, row in read(part, lambda note: None)
    ]


def rows_of(source: Path | str) -> list[Any]:
    return [row for _, row in all_of(source)]


def reasons_of(source: Path | str) -> list[Any]:
    return [row.reason if isinstance(row, Refused) else "kept" for row in rows_of(source)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_bytes(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


CONTAINERS = {
    "a.jsonl": jsonl(ROWS),
    "crlf.jsonl": jsonl(ROWS).replace(b"}\n", b"}\r\n"),
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl(ROWS),
    "blank.jsonl": b"\n" + jsonl(ROWS).replace(b"}\n", b"}\n \n"),
    "a.jsonl.gz": gzip.compress(jsonl(ROWS)),
    "parts.jsonl.gz": gzip.compress(jsonl(ROWS[:1])) + gzip.compress(jsonl(ROWS[1:])),
    "a.jsonl.zst": zstandard.compress(jsonl(ROWS)),
    "really_lines.json": jsonl(ROWS),
    "really_array.jsonl": json.dumps(ROWS, indent=1).encode(),
    "array.json": json.dumps(ROWS).encode(),
    "array.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "one_list.json": json.dumps({"version": "1", "tags": {"x": [1]}, "data": ROWS}).encode(),
    "one_list_lines.json": b'{"data": [\n' + b",\n".join(json.dumps(row).encode() for row in ROWS) + b"\n]}\n",
    "columns.json": json.dumps(columns_of(ROWS), ensure_ascii=False).encode(),
    "columns.json.zst": zstandard.compress(json.dumps(columns_of(ROWS), indent=2).encode()),
    "pandas.json": json.dumps(
        {name: dict(enumerate(values)) for name, values in columns_of(ROWS).items()}
    ).encode(),
    "a.csv": csv_bytes(ROWS),
    "semicolon.csv": csv_bytes(ROWS, ";"),
    "a.csv.gz": gzip.compress(csv_bytes(ROWS)),
    "bom.csv": b"\xef\xbb\xbf" + csv_bytes(ROWS),
    "a.tsv": csv_bytes(ROWS, "\t"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTAINERS[name])
    assert rows_of(tmp_path / name) == ROWS


@pytest.mark.parametrize("rows", [ROWS, MESSAGE_ROWS])
def test_parquet_and_saved_data_sets_give_the_same_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2)
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(
        train=datasets.Dataset.from_list(rows[:1]), test=datasets.Dataset.from_list(rows)
    ).save_to_disk(tmp_path / "many")
    assert rows_of(tmp_path / "a.parquet") == rows
    assert rows_of(tmp_path / "one") == rows
    assert rows_of(tmp_path / "many") == rows[:1]
    assert rows_of(f"{tmp_path / 'many'}:test") == rows


def test_column_oriented_conversations(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(columns_of(MESSAGE_ROWS)))
    assert rows_of(tmp_path / "a.json") == MESSAGE_ROWS


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("row", [ROWS[0], MESSAGE_ROWS[0]])
def test_a_single_object_is_a_single_row(tmp_path: Path, row: dict[str, Any], indent: int | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps(row, indent=indent))
    assert rows_of(tmp_path / "a.json") == [row]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cells=st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=1, max_size=5))
def test_csv_keeps_text_exactly(tmp_path: Path, cells: list[tuple[str, str]]) -> None:
    rows = [{"prompt": asked, "completion": reply} for asked, reply in cells]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows))
    assert rows_of(tmp_path / "a.csv") == rows


def test_a_place_names_the_line_or_the_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n" + jsonl(ROWS))
    (tmp_path / "b.csv").write_bytes(csv_bytes(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    places = [place for place, _ in all_of(tmp_path)]
    assert places == [
        "a.jsonl:2", "a.jsonl:3", "a.jsonl:4", "b.csv:2", "b.csv:3", "b.csv:5",
        "c.parquet row 0", "c.parquet row 1", "c.parquet row 2",
    ]  # fmt: skip


def test_bad_lines_are_refused_one_by_one(tmp_path: Path) -> None:
    good = jsonl(ROWS[:1])
    lines = [good, b'{"instruction": \n', b'["a list"]\n', b'{"output": "\xff"}\n', b"[" * 100_000 + b"\n", good]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    bad = [Reason.MALFORMED, Reason.MALFORMED, Reason.INVALID_UTF8, Reason.MALFORMED]
    assert reasons_of(tmp_path / "a.jsonl") == ["kept", *bad, "kept"]
    assert all(len(row.detail) <= 200 for row in rows_of(tmp_path / "a.jsonl") if isinstance(row, Refused))


def test_a_line_beyond_the_limit_is_skipped_without_being_read_whole(tmp_path: Path) -> None:
    giant = b'{"instruction": "' + b"x" * (20 * 2**20) + b'", "output": "y"}\n'
    (tmp_path / "a.jsonl").write_bytes(giant + jsonl(ROWS[:1]) + giant)
    assert reasons_of(tmp_path / "a.jsonl") == [Reason.TOO_LARGE, "kept", Reason.TOO_LARGE]
    (tmp_path / "b.json").write_bytes(b"[" + giant + b"," + jsonl(ROWS[:1]) + b"]")
    assert reasons_of(tmp_path / "b.json") == [Reason.TOO_LARGE, "kept"]


@pytest.mark.parametrize("giant", ['"{}"', '"{}\n{}"', '"a ""quoted"" {}\n"" {} "', "{}"])
def test_a_csv_record_beyond_the_limit_is_skipped_to_its_end(tmp_path: Path, giant: str) -> None:
    big = giant.replace("{}", "x" * 900)
    long = "y\n" * 90
    text = f'prompt,completion\na,{big}\nb,"{long}"\nc,{big}\nd,last\n'
    path = tmp_path / "a.csv"
    path.write_text(text)
    found = list(csv_rows.csv_rows(lambda: path.open("rb"), "a.csv", limit=500))
    assert [getattr(row, "reason", row) for _, row in found] == [
        Reason.TOO_LARGE, {"prompt": "b", "completion": long}, Reason.TOO_LARGE,
        {"prompt": "d", "completion": "last"},
    ]  # fmt: skip
    assert found[-1][0] == f":{text.count(chr(10))}"


def test_bad_csv_records_are_refused_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'prompt,completion\na,b\nonly\nx,y,z\n\nc,\xff\n"d"e,f\ng,h\n')
    malformed = Reason.MALFORMED
    assert reasons_of(tmp_path / "a.csv") == ["kept", malformed, malformed, Reason.INVALID_UTF8, malformed, "kept"]


def test_a_csv_quote_that_never_closes_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\na,b\nc,"d\ne,f\n')
    assert reasons_of(tmp_path / "a.csv") == ["kept", Reason.MALFORMED]


def test_a_csv_header_that_repeats_a_column_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion,prompt\na,b,c\n")
    with pytest.raises(InputError, match="twice: 'prompt'"):
        rows_of(tmp_path / "a.csv")


def test_parquet_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": broken, "completion": ["x", "y", "z"]}), tmp_path / "a.parquet")
    assert reasons_of(tmp_path / "a.parquet") == ["kept", Reason.INVALID_UTF8, "kept"]


def test_columns_of_bytes_are_dropped_by_name_but_text_stored_as_bytes_is_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": pa.array([b"ask"], pa.binary()),
            "completion": ["reply"],
            "image": pa.array([{"bytes": b"\x89PNG", "path": "x.png"}]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    notes: list[str] = []
    (part,) = locate(str(tmp_path / "a.parquet")).parts
    assert [row for _, row in read(part, notes.append)] == [{"prompt": b"ask", "completion": "reply"}]
    assert len(notes) == 1
    assert notes[0].startswith("column 'image' dropped")


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary(4), pa.list_(pa.binary()), pa.binary_view()]
)
def test_bytes_are_seen_at_any_depth(kind: pa.DataType) -> None:
    assert holds_bytes(kind)
    assert holds_bytes(pa.struct([("a", pa.list_(pa.struct([("b", kind)])))]))
    assert not holds_bytes(pa.struct([("a", pa.list_(pa.string())), ("b", pa.large_string())]))


def test_fat_rows_make_small_batches(tmp_path: Path) -> None:
    table = pa.table({"prompt": [str(i) * 2**18 for i in range(10, 20)], "completion": ["y"] * 10})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="none")
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert readers._batch_rows(metadata) * 2**19 <= readers.BATCH_BYTES


def damaged(path: Path) -> Path:
    whole = CONTAINERS["a.jsonl.gz"] if path.suffix == ".gz" else CONTAINERS["a.jsonl.zst"]
    path.write_bytes(whole[:-6])
    return path


def test_files_that_cannot_be_read_name_themselves(tmp_path: Path) -> None:
    paths = [damaged(tmp_path / "cut.jsonl.gz"), damaged(tmp_path / "cut.jsonl.zst")]
    for name in ["no.parquet", "no.jsonl.gz", "no.json.zst"]:
        (tmp_path / name).write_bytes(b"this is something else entirely")
        paths.append(tmp_path / name)
    for path in paths:
        with pytest.raises(InputError, match=f"cannot read .*{path.name}"):
            rows_of(path)


def test_a_file_without_permission_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))

    def refuse(part: object) -> io.BufferedReader:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(readers, "_bytes", refuse)  # the tests may run as root, whom no mode keeps out
    with pytest.raises(InputError, match=r"cannot read .*a\.jsonl: .*Permission denied"):
        rows_of(tmp_path / "a.jsonl")


def test_utf16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl(ROWS).decode(), encoding="utf-16")
    with pytest.raises(InputError, match="UTF-16"):
        rows_of(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"train": ROWS, "test": ROWS}), "found train, test"),
        (json.dumps({"instruction": ["a", "b"], "output": ["c"]}), "differ in length: instruction 2, output 1"),
        (json.dumps({"version": 1, "name": "x"}), "found version, name"),
        ('"only a string"', "found no object or array"),
        ('[{"instruction": "a", "output": "b"}', "it is cut short|expected , or ]"),
        ('{\n "data": [1, 2', "line 2"),
    ],
)
def test_json_documents_that_hold_no_rows_say_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path / "a.json")


def test_a_giant_first_line_does_not_hide_that_a_file_is_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "ROW_LIMIT", 200)
    giant = {"instruction": "x" * 900, "output": "y"}
    (tmp_path / "a.json").write_bytes(jsonl([giant, *ROWS]))
    assert rows_of(tmp_path / "a.json") == [giant, *ROWS]  # the limit of the sniffing alone was lowered


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one data set, `org/tiny`, as a download would have left it; the hub is out of reach."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "tiny.jsonl").write_bytes(jsonl(ROWS))
    builder = datasets.load_dataset_builder(
        "json", data_files=str(tmp_path / "tiny.jsonl"), cache_dir=tmp_path / "made"
    )
    builder.download_and_prepare()
    made = Path(builder.cache_dir)
    cached = tmp_path / "cache" / "org___tiny" / "default" / "0.0.0" / made.name
    cached.parent.mkdir(parents=True)
    made.rename(cached)
    (cached / "json-train.arrow").rename(cached / "tiny-train.arrow")
    info = json.loads((cached / "dataset_info.json").read_text())
    (cached / "dataset_info.json").write_text(json.dumps(info | {"config_name": "default", "dataset_name": "tiny"}))
    return tmp_path


@pytest.mark.usefixtures("hub_cache")
def test_a_hub_name_is_streamed_from_the_cache_where_there_is_no_network() -> None:
    rows = [row for _, row in read(HubDataset("org/tiny"), lambda note: None)]
    assert rows == ROWS
    with pytest.raises(InputError, match="no split 'test'; splits found: train"):
        list(read(HubDataset("org/tiny", split="test"), lambda note: None))


@pytest.mark.usefixtures("hub_cache")
def test_a_hub_name_that_cannot_be_had_says_what_was_looked_for() -> None:
    with pytest.raises(InputError, match=r"org/absent: there is no such local file .* Give the path"):
        list(read(HubDataset("org/absent"), lambda note: None))
