"""What a name means: a path wins, a path that is missing says so, a hub name is the last resort."""

import json
from pathlib import Path

import pytest

from warehouse.errors import InputError
from warehouse.sources import File, HubDataset, SavedDataset, content, locate

ROW = '{"instruction": "a", "output": "b"}\n'


def write(path: Path, text: str = ROW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "compression", "label"),
    [
        ("a.jsonl", "jsonl", None, "a"),
        ("a.b.ndjson", "jsonl", None, "a.b"),
        ("A.JSON", "json", None, "A"),
        ("a.jsonl.gz", "jsonl", "gzip", "a"),
        ("a.csv.zst", "csv", "zstd", "a"),
        ("a.tsv", "tsv", None, "a"),
        ("a.parquet", "parquet", None, "a"),
        ("a.pq", "parquet", None, "a"),
    ],
)
def test_a_file_is_known_by_its_suffix(
    tmp_path: Path, name: str, kind: str, compression: str | None, label: str
) -> None:
    path = write(tmp_path / name)
    assert locate(str(path)).parts == (File(path, name, label, kind, compression),)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.parquet.gz", "a.gz", "a.jsonl.bz2"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.jsonl, .*\.parquet"):
        locate(str(write(tmp_path / name)))


def test_a_folder_is_its_data_files_in_order_of_their_relative_names(tmp_path: Path) -> None:
    for name in ["b.jsonl", "a/z.csv", "README.md", ".hidden.jsonl", "_SUCCESS.json", "dataset_info.json", "b.parquet"]:
        write(tmp_path / name)
    assert [part.name for part in locate(str(tmp_path)).parts] == ["a/z.csv", "b.jsonl", "b.parquet"]


def test_a_folder_without_data_files_says_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "README.md")
    with pytest.raises(InputError, match=r"no data file in this folder; looked for \.json"):
        locate(str(tmp_path))


@pytest.mark.parametrize("missing", ["alpaca_dta.jsonl", "./alpaca_data", "sub/deep/alpaca", "/nowhere/x", "../y"])
def test_what_looks_like_a_path_and_is_missing_is_no_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        locate(missing)


def test_a_missing_file_names_its_close_matches(tmp_path: Path) -> None:
    write(tmp_path / "alpaca_data.jsonl")
    with pytest.raises(InputError, match=r"Did you mean alpaca_data\.jsonl\?"):
        locate(str(tmp_path / "alpaca_dta.jsonl"))


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("gsm8k", HubDataset("gsm8k")),
        ("org/name", HubDataset("org/name")),
        ("org/name-v1.5", HubDataset("org/name-v1.5")),
        ("org/name@main", HubDataset("org/name", "main")),
        ("org/name:test", HubDataset("org/name", split="test")),
        ("org/name@0abc:main/test", HubDataset("org/name", "0abc", "main", "test")),
    ],
)
def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, hub: HubDataset) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate(text).parts == (hub,)


def test_a_local_path_wins_over_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "org" / "name" / "a.jsonl")
    assert isinstance(locate("org/name").parts[0], File)


def saved(folder: Path, *splits: str) -> Path:
    """The files that mark a saved data set; what is in them is another test's matter."""
    for split in splits:
        write(folder / split / "state.json", "{}")
        write(folder / split / "data-00000-of-00001.arrow", split)
    write(folder / "dataset_dict.json", json.dumps({"splits": splits}))
    return folder


def test_a_saved_data_set_gives_its_train_split_or_the_one_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mix", "test", "train")
    assert locate(str(folder)).parts == (SavedDataset(folder / "train", "mix"),)
    assert locate(f"{folder}:test").parts == (SavedDataset(folder / "test", "mix"),)


def test_several_splits_are_never_mixed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mix", "dev", "test")
    with pytest.raises(InputError, match="splits found: dev, test"):
        locate(str(folder))
    with pytest.raises(InputError, match="no split 'tset'; splits found: dev, test"):
        locate(f"{folder}:tset")


def test_splits_of_a_saved_data_set_differ_in_content(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mix", "test", "train")
    assert content(locate(f"{folder}:test").parts[0]) != content(locate(str(folder)).parts[0])
