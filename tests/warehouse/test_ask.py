"""Asking: what is shown, what is written, and what an analyst's mistakes say; nothing heavy is loaded on the way."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pool_files import write_pool

from warehouse import ask as module
from warehouse import catalogue
from warehouse.ask import COPIES, Answer, ask, copy, first_rows, is_current
from warehouse.errors import InputError
from warehouse.records import Example, Message
from warehouse.store import Store, Work


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a pool of 50 rows; ask it, never change it."""
    store = Store.open(tmp_path_factory.mktemp("ask") / "home")
    work = Work("ingest", 1, {"name": "one"})
    rows = [Example((Message("user", f"ask {i}"), Message("assistant", "yes, 'é'")), "made") for i in range(50)]
    with store.write(work) as draft:
        write_pool(rows, draft.folder, pool_key=work.key, name="one")
    return store.home


@pytest.fixture
def own_home(home: Path, tmp_path: Path) -> Path:
    """A copy of the home, to change."""
    return Path(shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("catalogue.json")))


@pytest.mark.parametrize(("most", "shown", "left"), [(1, 1, 49), (49, 49, 1), (50, 50, 0), (51, 50, 0), (0, 50, 0)])
@pytest.mark.parametrize("end", ["", ";", "; -- all of them\n", " -- all; of them"])
def test_first_rows_and_the_rest_are_all_rows(home: Path, most: int, shown: int, left: int, end: str) -> None:
    answer = first_rows(home, f'SELECT "row", source FROM samples ORDER BY 1{end}', most)
    assert answer == Answer(("row", "source"), [(row, "made") for row in range(shown)], left)


def test_statements_run_in_order_and_the_last_one_answers(home: Path) -> None:
    script = """SET VARIABLE least = 47;
        CREATE TEMP TABLE few AS SELECT "row" FROM samples WHERE "row" > getvariable('least');
        SELECT count(*) AS n FROM few;"""
    assert first_rows(home, script, 9).dicts() == [{"n": 2}]


def test_a_copy_of_ones_own_says_how_many_rows_it_wrote(home: Path, tmp_path: Path) -> None:
    said = first_rows(home, f"COPY (SELECT source FROM samples) TO '{tmp_path / 'own.csv'}'", 40)
    assert said.rows == [(50,)]
    assert len((tmp_path / "own.csv").read_text().splitlines()) == 51


@pytest.mark.parametrize("form", COPIES)
def test_every_format_holds_the_rows_that_a_table_shows(home: Path, tmp_path: Path, form: str) -> None:
    sql = 'SELECT "row", messages[2].content AS reply, [1, 2] AS list FROM samples ORDER BY 1; -- it\'s all'
    out = tmp_path / f"it's.{form}"
    assert copy(home, sql, form, out) == 50
    if form == "parquet":
        found = pq.read_table(out).to_pylist()
    elif form == "csv":
        with out.open(newline="", encoding="utf-8") as file:
            found = [row | {"row": int(row["row"]), "list": json.loads(row["list"])} for row in csv.DictReader(file)]
    else:
        text = out.read_text(encoding="utf-8")
        found = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert found == first_rows(home, sql, 0).dicts()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_file_is_whole_or_as_it_was(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("old")
    with pytest.raises(InputError, match="Conversion Error"):
        copy(home, "SELECT source::INT FROM samples", "csv", out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    with pytest.raises(InputError, match="it is a folder"):
        copy(home, "SELECT 1", "csv", tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        copy(home, "SELECT 1", "csv", tmp_path / "none" / "a.csv")


@pytest.mark.parametrize(
    "sql", ["SHOW TABLES", "DESCRIBE pools", "SUMMARIZE pools", "EXPLAIN SELECT 1", "PRAGMA version"]
)
def test_what_is_no_select_can_be_shown(home: Path, sql: str) -> None:
    assert first_rows(home, sql, 40).rows


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM smples", "smples"),
        ("SELEC", "syntax error"),
        ("DROP VIEW pools", "read-only"),
        ("CREATE TABLE t (i INT)", "read-only"),
        ("SELECT 1; DROP VIEW pools", "read-only"),
        ("SET threads = 1", "answers nothing to show"),
        ("", "no SQL statement"),
        ("-- only a remark", "no SQL statement"),
    ],
)
def test_a_mistake_is_named(home: Path, sql: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        first_rows(home, sql, 40)
    with pytest.raises(InputError, match=said):
        copy(home, sql, "csv", home.parent / "a.csv")


def test_a_refusal_lists_the_tables(home: Path) -> None:
    with pytest.raises(InputError, match="Tables: pools, samples"):
        ask(home, "SELECT * FROM smples")


def test_parameters_are_values_and_never_sql(home: Path) -> None:
    assert ask(home, "SELECT count(*) FROM samples WHERE source = ?", ["made"]).rows == [(50,)]
    assert ask(home, "SELECT count(*) FROM samples WHERE source = ?", ["' OR true --"]).rows == [(0,)]


def test_the_catalogue_is_made_once_and_again_when_its_code_or_place_changes(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_current(own_home)
    ask(own_home, "SELECT 1")
    assert is_current(own_home)
    made = (own_home / "winnow.duckdb").stat().st_mtime_ns
    monkeypatch.setattr(module, "definition", lambda: "other code, the same views")
    assert not is_current(own_home)
    catalogue.ensure(own_home)
    assert is_current(own_home)
    assert (own_home / "winnow.duckdb").stat().st_mtime_ns == made
    moved = own_home.rename(tmp_path / "moved")
    assert not is_current(moved)
    assert ask(moved, "SELECT count(*) FROM samples").rows == [(50,)]
    (moved / "catalogue.json").write_text("{")
    assert not is_current(moved)


def test_a_home_that_cannot_be_written_answers_under_other_code(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(own_home, "SELECT 1")
    stamp = (own_home / "catalogue.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(catalogue, "write_atomically", full)
    monkeypatch.setattr(module, "definition", lambda: "other code, the same views")
    assert ask(own_home, "SELECT count(*) FROM samples").rows == [(50,)]
    assert (own_home / "catalogue.json").read_bytes() == stamp


def test_a_question_loads_duckdb_and_nothing_else_that_is_heavy(home: Path) -> None:
    ask(home, "SELECT 1")
    probe = (
        "import sys; from pathlib import Path; from flows.tables import answer\n"
        "assert 'made' in answer(Path(sys.argv[1]), 'SELECT * FROM samples', None, None, 40)\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'rich', 'torch', 'prefect', 'pydantic', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(home)], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_an_answer_to_a_pipe_that_closes_is_no_error(home: Path) -> None:
    probe = (
        "import sys; from pathlib import Path; from warehouse.ask import copy\n"
        "copy(Path(sys.argv[1]), 'SELECT * FROM range(3000000)', 'csv', None)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", probe, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        assert done.stdout is not None
        assert done.stdout.readline() == b"range\n"
        done.stdout.close()
        assert done.wait() == 0
