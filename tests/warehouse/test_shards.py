"""Sources in pieces: every row once, in order, whatever the cut; a grown source keeps the pieces it had."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pool_files import ingest

from warehouse import shards
from warehouse.errors import InputError
from warehouse.pools import PoolReader
from warehouse.shards import Groups, Lines, Piece, Window, identity, pieces
from warehouse.sources import locate

QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)


def row(i: int, text: str = "") -> bytes:
    return json.dumps({"instruction": f"ask {i} {text}", "output": "reply"}, ensure_ascii=False).encode() + b"\n"


def known(path: Path) -> list[tuple[str, str]]:
    """What the shards of a source are keyed by."""
    return [(piece.content, json.dumps(identity(piece))) for piece in pieces(locate(str(path)))]


def asked(out: Path) -> list[str]:
    reader = PoolReader(out)
    return [example.messages[0].content for example in reader.examples(range(reader.n))]


@QUIET
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=20), size=st.integers(1, 400), ends=st.booleans())
def test_lines_are_cut_between_rows(
    tmp_path: Path, monkeypatch_piece: Any, texts: list[str], size: int, ends: bool
) -> None:
    path = tmp_path / "a.jsonl"
    whole = b"".join(row(i, text) for i, text in enumerate(texts))
    path.write_bytes(whole if ends else whole.rstrip(b"\n"))
    monkeypatch_piece(size)
    cut = list(pieces(locate(str(path))))
    assert all(isinstance(piece, Lines) for piece in cut)
    assert sum(piece.size for piece in cut) == path.stat().st_size
    first_line = [piece.line for piece in cut]
    assert first_line == sorted(set(first_line))
    out = tmp_path / "out"
    assert ingest([str(path)], out).rows_in == len(texts)
    assert asked(out) == [f"ask {i} {text}" for i, text in enumerate(texts)]
    assert PoolReader(out).column("location").tolist() == [f"a.jsonl:{i + 1}" for i in range(len(texts))]
    zipped = tmp_path / "z" / "a.jsonl.gz"
    zipped.parent.mkdir(exist_ok=True)
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert [piece.content for piece in pieces(locate(str(zipped)))] == [piece.content for piece in cut]
    ingest([str(zipped)], out)
    assert asked(out) == [f"ask {i} {text}" for i, text in enumerate(texts)]


@pytest.fixture
def monkeypatch_piece(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda size: monkeypatch.setattr(shards, "PIECE_BYTES", size)


def test_a_source_that_grew_keeps_the_pieces_it_had(tmp_path: Path, monkeypatch_piece: Any) -> None:
    path = tmp_path / "a.jsonl"
    monkeypatch_piece(200)
    path.write_bytes(b"".join(map(row, range(100))))
    before = known(path)
    path.write_bytes(b"".join(map(row, range(101))))
    after = known(path)
    assert len(before) > 10
    assert after[: len(before) - 1] == before[:-1]
    assert len(after) <= len(before) + 1


def test_a_piece_is_known_by_content_name_and_place_and_not_by_path_or_time(tmp_path: Path) -> None:
    first, moved, other = tmp_path / "a.jsonl", tmp_path / "x" / "a.jsonl", tmp_path / "b.jsonl"
    moved.parent.mkdir()
    for path in (first, moved, other):
        path.write_bytes(row(1))
    assert known(first) == known(moved)
    assert known(first) != known(other)
    assert len(known(first)[0][0]) == 32
    other.write_bytes(b"\n" + row(1))
    assert known(other)[0][0] != known(first)[0][0]


@pytest.mark.parametrize("group_rows", [3, 10, 1000])
def test_parquet_is_cut_at_its_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int) -> None:
    monkeypatch.setattr(shards, "PIECE_ROWS", 10)
    table = pa.table({"prompt": [f"p{i}" for i in range(40)], "completion": ["r"] * 40})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows)
    cut = list(pieces(locate(str(tmp_path / "a.parquet"))))
    assert all(isinstance(piece, Groups) for piece in cut)
    assert len(cut) == {3: 4, 10: 4, 1000: 1}[group_rows]
    ingest([str(tmp_path / "a.parquet")], tmp_path / "out")
    assert asked(tmp_path / "out") == [f"p{i}" for i in range(40)]
    assert PoolReader(tmp_path / "out").column("location").tolist() == [f"a.parquet row {i}" for i in range(40)]


@pytest.mark.parametrize(("name", "data"), [("a.csv", b"prompt,completion\na,b\n"), ("a.json", b"[" + row(1) + b"]")])
def test_what_cannot_be_cut_is_one_piece(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    (piece,) = pieces(locate(str(tmp_path / name)))
    assert isinstance(piece, Window)
    (windowed,) = pieces(replace(locate(str(tmp_path / name)), limit=1))
    assert identity(windowed) != identity(piece)


def test_windows_of_one_file_are_different_shards(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(map(row, range(9))))
    source = locate(str(tmp_path / "a.jsonl"))
    windows = [replace(source, limit=3), replace(source, skip=5)]
    assert ingest(windows, tmp_path / "out").rows_in == 7
    assert asked(tmp_path / "out") == [f"ask {i} " for i in (0, 1, 2, 5, 6, 7, 8)]
    with pytest.raises(InputError, match="which another source names already"):
        ingest([replace(source, limit=3), replace(source, skip=2)], tmp_path / "no")


def test_damage_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(row(i, "x" * 50) for i in range(2000)))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"cannot read .*a\.jsonl\.gz"):
        list(pieces(locate(str(tmp_path / "a.jsonl.gz"))))


@pytest.mark.parametrize("other", ["org/name@v2", "org/name:test"])
def test_a_hub_data_set_is_known_without_a_network(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def one(text: str) -> Piece:
        (piece,) = pieces(locate(text))
        return piece

    assert one("org/name").content == one("org/name").content
    assert one("org/name").content != one(other).content


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(row(1))
    (piece,) = pieces(locate(str(path)))
    path.write_bytes(row(2))
    with pytest.raises(InputError, match="changed while it was read"):
        shards.write_shard(piece, tmp_path / "out")


def test_a_long_line_of_a_compressed_file_is_not_held_whole(tmp_path: Path, monkeypatch_piece: Any) -> None:
    monkeypatch_piece(1000)
    path = tmp_path / "a.jsonl.gz"
    giant = b'{"instruction": "' + b"x" * 9_000_000 + b'", "output": "y"}\n'
    path.write_bytes(gzip.compress(row(1) + giant + row(2)))
    cut = list(pieces(locate(str(path))))
    assert max(len(piece.text) for piece in cut if isinstance(piece, Lines) and piece.text) < 8_500_000
    assert ingest([str(path)], tmp_path / "out").dropped == {"too_large": 1}


@pytest.mark.parametrize("limit", [None, 1])
def test_notes_are_kept_where_a_window_ends_before_its_part(tmp_path: Path, limit: int | None) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 3)
    funnel = ingest([replace(locate(str(tmp_path / "a.jsonl")), limit=limit)], tmp_path / "out")
    assert funnel.notes == ("a.jsonl: turn field 'weight' dropped",)


def test_the_same_rows_under_two_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("in/a.jsonl", "in/sub/b.jsonl"):
        (tmp_path / name).write_bytes(row(1) * 5)
    whole = locate(str(tmp_path / "in"))
    for other in (locate(str(tmp_path / "in" / "sub")), replace(locate(str(tmp_path / "in/a.jsonl")), skip=4)):
        for sources in ([whole, other], [replace(whole, skip=8), other]):
            with pytest.raises(InputError, match="which another source names already"):
                ingest(sources, tmp_path / "out")


def test_a_stored_format_hides_no_column(tmp_path: Path) -> None:
    from datasets import Dataset

    data = Dataset.from_dict({"prompt": ["a"], "completion": ["b"], "skill": ["s"]})
    data.set_format("numpy", columns=["prompt", "completion"])
    data.save_to_disk(tmp_path / "saved")
    ingest([str(tmp_path / "saved")], tmp_path / "out")
    assert PoolReader(tmp_path / "out").examples([0])[0].meta == {"skill": "s"}
