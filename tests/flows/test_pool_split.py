"""`winnow pool split`: every row in one file, with its level, and read back with it."""

import json
from pathlib import Path

import pytest
from pool_files import ingest, write_pool
from typer.testing import CliRunner

from eval.splits import Shares
from flows.cli import app
from flows.pool_split import Wanted, split_pool
from warehouse.errors import InputError
from warehouse.pools import PoolReader
from warehouse.records import Example, Message
from warehouse.store import Store, Work

ROWS = [
    Example(
        (Message("user", f"question {row} of {task} in {source}"), Message("assistant", "yes")), source, {"skill": task}
    )
    for source in ("books", "code", "web")
    for task in ("copy", "sort", "sum", "write")
    for row in range(20)
]
WANTED = Wanted(task="skill", shares=Shares(0.34, 0.25, 0.2), seed=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store.open(tmp_path_factory.mktemp("split") / "home")
    with store.write(work := Work("ingest", 1)) as draft:
        write_pool(ROWS, draft.folder, pool_key=work.key, name="mine")
    return store.home


def read(folder: Path) -> dict[str, list[dict[str, object]]]:
    return {file.stem: [json.loads(line) for line in file.open()] for file in sorted(folder.iterdir())}


def test_every_row_is_in_the_file_of_its_level(home: Path, tmp_path: Path) -> None:
    said = split_pool(home, "mine", tmp_path / "parts", WANTED)
    files = read(tmp_path / "parts")
    assert {name: len(rows) for name, rows in files.items() if name != "train" and name != "held_out_instance"} == {
        "held_out_category": 80,
        "held_out_task": 40,
    }
    assert sum(len(rows) for rows in files.values()) == len(ROWS)
    assert all(row["level"] == name for name, rows in files.items() for row in rows)
    (held,) = {row["source"] for row in files["held_out_category"]}
    assert held not in {
        row["source"] for name in ("train", "held_out_task", "held_out_instance") for row in files[name]
    }
    assert "held_out_category             80 rows" in said


def test_the_level_is_read_back_with_the_row(home: Path, tmp_path: Path) -> None:
    split_pool(home, "mine", tmp_path / "parts", WANTED)
    ingest([str(tmp_path / "parts" / "held_out_task.jsonl")], tmp_path / "pool")
    assert {row.meta["level"] for row in PoolReader(tmp_path / "pool").examples(range(40))} == {"held_out_task"}


def test_what_no_row_names_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row names its 'topic'; give one of source, family"):
        split_pool(home, "mine", tmp_path / "parts", Wanted(category="topic"))
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="holds other files"):
        split_pool(home, "mine", tmp_path, WANTED)
    assert (tmp_path / "mine.txt").exists()


def test_from_the_command_line(home: Path, tmp_path: Path) -> None:
    options = ["--task", "skill", "--categories", "0", "--tasks", "0", "--instances", "0.2", "--home", str(home)]
    answer = CliRunner().invoke(app, ["pool", "split", "mine", str(tmp_path / "parts"), *options])
    assert answer.exit_code == 0, answer.output
    assert set(read(tmp_path / "parts")) == {"train", "held_out_instance"}
