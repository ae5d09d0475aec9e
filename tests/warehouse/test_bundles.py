"""Bundles: weights as repeated rows, what trainers are told, and the page that goes with the rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from warehouse import bundles
from warehouse.bundles import AXOLOTL_ENTRIES, LLAMA_FACTORY_ENTRIES, NAMES, SAVED, alternates, entry_name, repeats
from warehouse.errors import InputError
from warehouse.export import FORMATS, Row
from warehouse.records import Example, Message

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60).map(np.array)
TYPES = {"rank": pa.int64(), "licence": pa.string()}


@given(weights=WEIGHTS)
def test_repeats_keep_the_number_of_rows_and_stay_next_to_the_shares(weights: np.ndarray) -> None:
    counts = repeats(weights)
    assert counts.sum() == len(weights)
    assert (counts >= 0).all()
    assert (np.abs(counts - len(weights) * weights / weights.sum()) < 1 + 1e-9).all()


@given(weights=WEIGHTS, factor=st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
def test_only_the_proportions_of_weights_count(weights: np.ndarray, factor: float) -> None:
    np.testing.assert_array_equal(repeats(weights), repeats(weights * factor))


@given(weights=WEIGHTS)
def test_a_heavier_row_is_never_written_less_often(weights: np.ndarray) -> None:
    heavier = weights[:, None] > weights[None, :] * (1 + 1e-9)
    counts = repeats(weights)
    assert (counts[:, None] >= counts[None, :])[heavier].all()


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([2, 1, 1], [1, 1, 1]),  # shares 1.5, 0.75, 0.75: two rows are missing, and 0.75 is the larger remainder
        ([5, 1], [2, 0]),  # 1.67, 0.33
        ([3, 2, 1], [2, 1, 0]),  # 1.5, 1, 0.5: a tie goes to the first
        ([0.5, 1.5], [1, 1]),  # 0.5, 1.5: as above
        ([9, 1, 1, 1], [3, 1, 0, 0]),  # 3, 0.33, 0.33, 0.33
        ([], []),
    ],
)
def test_repeats_by_hand(weights: Sequence[float], counts: Sequence[int]) -> None:
    assert repeats(np.array(weights, np.float64)).tolist() == list(counts)


def said(*roles: str) -> Example:
    return Example(tuple(Message(role, f"{role} {i}") for i, role in enumerate(roles)), "made")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("roles", "fits"),
    [
        (("user", "assistant"), True),
        (("system", "user", "assistant"), True),
        (("user", "assistant", "tool", "assistant"), True),
        (("user", "user", "assistant"), False),
        (("user", "assistant", "user"), False),
        (("assistant", "user"), False),
        (("user", "system", "assistant"), False),
        (("system",), False),
    ],
)
def test_taking_turns(roles: tuple[str, ...], fits: bool) -> None:
    assert alternates(said(*roles)) is fits


ROWS: list[Row] = [
    (said("system", "user", "assistant"), {"rank": 1, "licence": "mit"}),
    (said("user", "assistant", "user", "assistant"), {"rank": 2, "licence": "mit"}),
    (Example(said("user", "assistant").messages, "web | site", {"n": 1}), {"rank": 3, "licence": None}),
]


def made(folder: Path, form: str, rows: Sequence[Row] = ROWS, notes: Sequence[str] = ()) -> str:
    """The page of a bundle of `rows`."""
    assert bundles.write(rows, folder, form, TYPES, {"selection": "abc"}, notes) == len(rows)
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FORMATS)
def test_what_llama_factory_is_told_is_in_the_rows(tmp_path: Path, form: str) -> None:
    made(tmp_path / "my set", form)
    entry = json.loads((tmp_path / "my set" / "dataset_info.json").read_text())["my_set"]
    rows = pq.read_table(tmp_path / "my set" / entry["file_name"]).to_pylist()
    assert all(set(entry["columns"].values()) <= set(row) for row in rows)
    assert entry["formatting"] == ("alpaca" if form == "alpaca" else "sharegpt")
    if form != "alpaca":
        tags = entry["tags"]
        turns = rows[0][entry["columns"]["messages"]]
        assert [turn[tags["role_tag"]] for turn in turns] == [
            tags["system_tag"],
            tags["user_tag"],
            tags["assistant_tag"],
        ]
        assert [turn[tags["content_tag"]] for turn in turns] == ["system 0", "user 1", "assistant 2"]


@pytest.mark.parametrize("form", [*FORMATS, SAVED])
def test_what_axolotl_is_told_is_in_the_rows(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "set"
    made(folder, form)
    (entry,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    if form == SAVED:
        rows = load_from_disk(str(folder / entry["path"]))
    else:
        cache = str(tmp_path / "cache")
        data: Any = load_dataset(
            entry["ds_type"], data_files=str(folder / entry["path"]), split="train", cache_dir=cache
        )
        rows = data
    assert len(rows) == len(ROWS)
    row = rows[0]
    if form == "alpaca":
        assert {"instruction", "input", "output", "system"} <= set(row)
    else:
        names = entry["message_property_mappings"]
        turns = row[entry["field_messages"]]
        known = {said: role for role, all_said in entry.get("roles", {}).items() for said in all_said}
        assert [known.get(turn[names["role"]], turn[names["role"]]) for turn in turns] == [
            "system",
            "user",
            "assistant",
        ]
        assert [turn[names["content"]] for turn in turns] == ["system 0", "user 1", "assistant 2"]


def test_every_format_has_its_entries() -> None:
    assert set(LLAMA_FACTORY_ENTRIES) == set(FORMATS)
    assert set(AXOLOTL_ENTRIES) == {*FORMATS, SAVED}


def test_the_page_says_what_the_rows_are(tmp_path: Path) -> None:
    page = made(tmp_path / "set", "messages", notes=["Rows have weights."])
    for part in (
        "- selection: abc",
        "3 rows",
        "| mit | 2 | 66.7% |",
        "| not known | 1 | 33.3% |",
        "Rows have weights.",
    ):
        assert part in page
    assert "The licence of 1 rows is not known" in page
    assert r"| web \| site | 1 | 33.3% |" in page


def test_the_page_warns_of_rows_that_a_trainer_would_not_read_whole(tmp_path: Path) -> None:
    odd: Row = (said("user", "user", "assistant"), {"rank": 1, "licence": None})
    assert "skips 1 rows" in made(tmp_path / "odd", "messages", [odd, *ROWS])
    assert "skips" not in made(tmp_path / "even", "messages")
    assert "1 rows lose all but the last turns" in made(tmp_path / "alpaca", "alpaca")
    assert "rows lose" not in made(tmp_path / "one", "alpaca", [ROWS[0], ROWS[2]])


def test_a_bundle_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    made(folder, "messages")
    made(folder, SAVED)
    assert {path.name for path in folder.iterdir()} <= set(NAMES)
    assert not (folder / "rows.parquet").exists()
    (folder / "mine.txt").touch()
    with pytest.raises(InputError, match=r"holds other files \(mine\.txt\)"):
        made(folder, "messages")
    with pytest.raises(InputError, match="row 0: alpaca has no place"):
        made(tmp_path / "new", "alpaca", [(said("user", "user", "assistant"), {"rank": 1, "licence": None})])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(("name", "entry"), [("a b", "a_b"), ("é-1", "é-1"), ("...", "winnow")])
def test_names_of_entries(tmp_path: Path, name: str, entry: str) -> None:
    assert entry_name(tmp_path / name) == entry
