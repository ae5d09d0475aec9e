"""What an analyst types: `sql`, `pool` and `export`, on a small real home."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_world import Winnow
from datasets import load_from_disk

from flows.exports import export_named
from flows.tables import as_text
from warehouse import named
from warehouse.ask import Answer, ask
from warehouse.errors import InputError
from warehouse.export import SUFFIXES
from warehouse.store import Store, Work
from warehouse.tables import SELECTED, SELECTION, write_rows

POOL = "asked pool"


def shell(*words: object) -> subprocess.CompletedProcess[str]:
    """`winnow` in a process of its own, where answers go to a real stdout."""
    entry = [sys.executable, "-c", "from flows.cli import main; main()"]
    return subprocess.run([*entry, *map(str, words)], capture_output=True, text=True, check=False, env=os.environ)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "shown", "more"),
    [((), 40, "(60 more rows"), (("--rows", 7), 7, "(93 more rows"), (("--rows", 0), 100, "")],
)
def test_a_table_says_how_many_rows_it_leaves_out(
    winnow: Winnow, asked_home: Path, words: tuple[object, ...], shown: int, more: str
) -> None:
    said = winnow("sql", "SELECT * FROM range(100)", *words, "--home", asked_home)
    numbers = [line for line in said.out.splitlines() if line.strip().isdigit()]
    assert [int(line) for line in numbers] == list(range(shown))
    assert more in said.out
    assert ("more rows" in said.out) is bool(more)


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_an_answer_in_a_format_is_all_of_stdout(asked_home: Path, form: str) -> None:
    said = shell("sql", "SELECT 1 AS a, 'x' AS b", "--format", form, "--home", asked_home)
    assert (said.returncode, said.stderr) == (0, "")
    expected = {"csv": "a,b\n1,x\n", "jsonl": '{"a":1,"b":"x"}\n'}
    assert json.loads(said.stdout) == [{"a": 1, "b": "x"}] if form == "json" else said.stdout == expected[form]


def test_sql_from_a_file_and_to_a_file(winnow: Winnow, asked_home: Path, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("CREATE TEMP TABLE t AS FROM range(3) r(i);\nSELECT i FROM t; -- all\n")
    words = ("--file", tmp_path / "q.sql", "--home", asked_home)
    said = winnow("sql", *words, "-o", tmp_path / "a.parquet")
    assert (said.code, said.out) == (0, f"wrote 3 rows to {tmp_path / 'a.parquet'}\n")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert winnow("sql", *words, "--format", "table", "-o", tmp_path / "a.txt").code == 0
    assert (tmp_path / "a.txt").read_text().split() == ["i", "0", "1", "2"]


def test_sql_from_stdin(asked_home: Path) -> None:
    entry = [sys.executable, "-c", "from flows.cli import main; main()", "sql", "-", "--home", str(asked_home)]
    done = subprocess.run(entry, input="SELECT 6 * 7 AS n", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["n", "42"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one query"),
        (["SELECT 1", "-f", "q.sql"], "give one query"),
        (["-f", "none.sql"], "cannot read none.sql"),
        (["SELECT 1", "-o", "a.txt"], "--format"),
        (["EXPLAIN SELECT 1", "--format", "csv"], "only what a SELECT"),
        (["SELECT 1", "--format", "xml"], "xml"),
    ],
)
def test_what_sql_cannot_do_is_said(winnow: Winnow, asked_home: Path, words: list[str], said: str) -> None:
    answer = winnow("sql", *words, "--home", asked_home)
    assert answer.code == 2
    assert said in answer.err


def test_text_steers_no_terminal_and_columns_stand_under_each_other() -> None:
    text = as_text(Answer(("a", "b"), [("\x1b[2J", 1), ("日本", 22), (None, 3.14159265), ("x" * 99, -1)]))
    assert "\x1b" not in text
    head, *rows = text.splitlines()
    assert {len(row) + sum(letter in "日本" for letter in row) for row in [head, *rows]} == {len(head)}
    assert rows[2].split() == ["3.14159"]
    assert "x" * 59 + "…" in rows[3]


def test_names_of_pools(asked_home: Path) -> None:
    latest = named.pool(asked_home, POOL)
    assert str(latest) == "asked pool@2"
    assert named.pool(asked_home, "asked pool@2") == latest == named.pool(asked_home, latest.key[:10])
    assert named.pool(asked_home, "asked pool@1") != latest
    for text, said in {
        "asked pool@3": r"has no version 3; it has 1, 2",
        "asked": "no pool is named 'asked'.*there are asked pool@1",
        "": "no pool is named ''",
    }.items():
        with pytest.raises(InputError, match=said):
            named.pool(asked_home, text)


def test_names_of_selections(asked_home: Path) -> None:
    key = named.selection(asked_home, "rds_plus:20:0")
    assert named.selection(asked_home, key[:8]) == key
    with pytest.raises(InputError, match=r"there are balanced_random:20:0, balanced_random:20:1, random:20:0"):
        named.selection(asked_home, "rds_plus:21:0")
    with pytest.raises(InputError, match="no selection is ''"):
        named.selection(asked_home, "")


def test_ls_names_every_version(winnow: Winnow, asked_home: Path) -> None:
    rows = [re.split(r"\s{2,}", line) for line in winnow("pool", "ls", "--home", asked_home).out.splitlines()]
    assert rows[0] == ["name", "version", "rows", "rejected", "made", "key"]
    assert [row[:4] for row in rows[1:]] == [
        ["asked pool", "1", "133", "2"],
        ["asked pool", "2", "143", "2"],
        ["asked target", "1", "6", "0"],
        ["asked test", "1", "8", "0"],
    ]


def test_show_says_what_a_pool_holds(winnow: Winnow, asked_home: Path) -> None:
    said = winnow("pool", "show", POOL, "--home", asked_home).out
    sections = {part.splitlines()[0]: part for part in said.split("\n\n")}
    heading, *titles = sections
    assert heading.startswith("asked pool@2  143 rows of 145 read, 2 rejected")
    assert titles == [
        "sources", "languages", "turns", "code and maths", "tokens", "licences", "families", "rejected on import",
        "filters of the last run over it", "selections from it",
    ]  # fmt: skip
    assert re.search(r"notes +33 +2 +\d+ +23\.1%", sections["sources"])
    assert re.search(r"cc-by-4\.0 +16 +11\.2%", sections["licences"])
    assert re.search(r"malformed +1", sections["rejected on import"])
    assert re.search(r"3 +length +drop +\d+ +1 ", sections["filters of the last run over it"])
    assert re.search(r"rds_plus +20 +1 +20", sections["selections from it"])
    assert "selections from it" not in winnow("pool", "show", "asked test", "--home", asked_home).out


def test_diff_counts_rows_on_each_side_and_mirrors(winnow: Winnow, asked_home: Path) -> None:
    there = winnow("pool", "diff", "asked pool@1", POOL, "--home", asked_home, "--rows", 2).out
    back = winnow("pool", "diff", POOL, "asked pool@1", "--home", asked_home, "--rows", 0).out
    assert re.search(r"^all +0 +10 +133$", there, re.MULTILINE)
    assert re.search(r"^all +10 +0 +133$", back, re.MULTILINE)
    assert re.search(r"^notes +0 +10 +23$", there, re.MULTILINE)
    assert there.count("  row ") == 2
    assert "only in A, for instance" not in there
    assert "apples fresh" in there
    assert "for instance" not in back
    same = winnow("pool", "diff", POOL, POOL, "--home", asked_home).out
    assert re.search(r"^all +0 +0 +143$", same, re.MULTILINE)
    assert "no other fact changed" in same


def test_a_sample_is_drawn_by_its_seed_and_answers_its_conditions(winnow: Winnow, asked_home: Path) -> None:
    def drawn(*words: object) -> list[dict[str, Any]]:
        said = winnow("pool", "sample", POOL, "--json", "--home", asked_home, *words)
        assert said.code == 0, said.err
        rows: list[dict[str, Any]] = json.loads(said.out)["rows"]
        return rows

    assert drawn("-n", 4) == drawn("-n", 4)
    assert drawn("-n", 4) != drawn("-n", 4, "--seed", 1)
    whole = drawn("-n", 1000)
    assert [row["row"] for row in whole] == list(range(143))
    stored = ask(
        asked_home, "SELECT sample_id FROM samples WHERE pool = ? ORDER BY 1", [named.pool(asked_home, POOL).key]
    )
    assert sorted(row["sample_id"] for row in whole) == [sample for (sample,) in stored.rows]
    assert {row["source"] for row in drawn("-n", 99, "--source", "notes")} == {"notes"}
    some = drawn("-n", 99, "--source", "notes", "--where", "licence = 'mit' OR false -- and so on")
    assert {(row["source"], row["licence"]) for row in some} == {("notes", "mit")}
    dropped = drawn("-n", 99, "--dropped", "length")
    assert [row["dropped"] for row in dropped] == ["too_long, 945 characters"]
    assert drawn("-n", 9, "--source", "nowhere") == []


def test_a_sample_reads_like_a_conversation(winnow: Winnow, asked_home: Path) -> None:
    said = winnow(
        "pool", "sample", POOL, "-n", 1, "--dropped", "exact_duplicate", "--source", "notes", "--home", asked_home
    )
    head, why, *turns = said.out.splitlines()
    assert re.match(r"── asked pool@2 row \d+  notes, en, advice", head)
    assert re.match(r"   dropped: same_messages, like row \d", why)
    assert [turns[0], turns[2]] == ["[user]", "[assistant]"]
    wrong = winnow("pool", "sample", POOL, "--where", "colour = 1", "--home", asked_home)
    assert wrong.code == 2
    assert "colour" in wrong.err


@pytest.mark.parametrize("form", ["messages", "alpaca", "sharegpt"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_selection_is_exported_in_its_order(
    winnow: Winnow, asked_home: Path, tmp_path: Path, form: str, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    said = winnow("export", "rds_plus:20:0", "-o", out, "--format", form, "--home", asked_home)
    assert (said.code, said.out) == (0, f"wrote 20 rows to {out}\n"), said.err
    found = duckdb.sql(f"SELECT \"row\" FROM '{out}' ORDER BY rank").fetchall()
    key = named.selection(asked_home, "rds_plus:20:0")
    assert found == ask(asked_home, 'SELECT "row" FROM selected WHERE selection = ? ORDER BY rank', [key]).rows
    columns = {name for name, *_ in duckdb.sql(f"DESCRIBE FROM '{out}'").fetchall()}
    assert {"rank", "score", "reason", "row", "source", "licence", "meta"} <= columns
    assert "weight" not in columns


def test_a_saved_folder_loads(winnow: Winnow, asked_home: Path, tmp_path: Path) -> None:
    words = ("export", "rds_plus:20:0", "-o", tmp_path / "set", "--format", "datasets", "--home", asked_home)
    assert winnow(*words).code == 0
    assert winnow(*words).code == 0
    assert load_from_disk(str(tmp_path / "set"))["rank"][:] == list(range(1, 21))
    (tmp_path / "set" / "mine.txt").touch()
    assert "holds other files (mine.txt)" in winnow(*words).err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_bundle_names_its_origin(winnow: Winnow, asked_home: Path, tmp_path: Path) -> None:
    words = ("export", "rds_plus:20:0", "-o", tmp_path / "set", "--bundle", "--home", asked_home)
    assert winnow(*words).code == 0
    page = (tmp_path / "set" / "README.md").read_text()
    assert f"- selection: {named.selection(asked_home, 'rds_plus:20:0')}" in page
    assert "- method: rds_plus, budget 20, seed 0" in page
    assert "- pool: asked pool@2" in page
    assert pq.read_metadata(tmp_path / "set" / "rows.parquet").num_rows == 20


def test_a_cleaned_pool_is_what_no_filter_dropped(winnow: Winnow, asked_home: Path, tmp_path: Path) -> None:
    assert winnow("export", f"pool:{POOL}", "-o", tmp_path / "a.parquet", "--home", asked_home).code == 0
    key = named.pool(asked_home, POOL).key
    dropped = ask(asked_home, 'SELECT count(DISTINCT "row") FROM drops WHERE pool = ?', [key]).rows[0][0]
    assert dropped > 0
    assert pq.read_metadata(tmp_path / "a.parquet").num_rows == 143 - dropped
    left = pq.read_table(tmp_path / "a.parquet")
    assert max(sum(len(turn["content"]) for turn in row) for row in left["messages"].to_pylist()) <= 400
    assert left.column_names == ["messages", "source", "licence", "meta"]


@pytest.fixture
def weighted(tmp_path: Path) -> tuple[Path, str]:
    """A home with a selection of four rows that weigh 4, 2, 1, 1; the home and the selection's key."""
    store = Store.open(tmp_path / "home")
    work = Work("select", 1, {"method": "weighed"}, {"pool": "0" * 32})
    about = {"selection": work.key, "pool": "0" * 32, "method": "weighed(power=0.5)", "budget": 4, "seed": 0, "rows": 4}
    messages = [[{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": "yes"}] for i in range(4)]
    rows = [
        {"selection": work.key, "row": i, "rank": i + 1, "score": 1.0, "weight": weight, "reason": "heavy",
         "source": "s", "messages": messages[i], "meta": "{}"}
        for i, weight in enumerate([4.0, 2.0, 1.0, 1.0])
    ]  # fmt: skip
    with store.write(work) as draft:
        write_rows(draft.folder / "selection.parquet", SELECTION, [about])
        write_rows(draft.folder / "selected.parquet", SELECTED, rows)
    return store.home, work.key


def test_weights_stand_beside_rows_or_repeat_them(weighted: tuple[Path, str], tmp_path: Path) -> None:
    home, key = weighted
    said = export_named(home, key, tmp_path / "a.jsonl", "messages", bundle=False, repeat_weights=False)
    assert "--repeat-weights" in said
    assert [row["weight"] for row in lines(tmp_path / "a.jsonl")] == [4.0, 2.0, 1.0, 1.0]
    said = export_named(home, key, tmp_path / "b.jsonl", "messages", bundle=False, repeat_weights=True)
    assert "1 rows stand here more than once, and 1 of the lightest not at all" in said
    found = lines(tmp_path / "b.jsonl")
    assert [row["rank"] for row in found] == [1, 1, 2, 3]  # shares 2, 1, 0.5, 0.5 of four rows
    assert "weight" not in found[0]
    assert np.all([row["reason"] == "heavy" for row in found])


def test_a_pool_is_materialized_for_who_has_no_home(winnow: Winnow, asked_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.duckdb"
    said = winnow("pool", "materialize", "asked pool@1", POOL, out, "--home", asked_home)
    assert said.code == 0, said.err
    assert re.search(r"samples +290 rows", said.err)
    assert f"{out.stat().st_size:,} bytes, to {out}" in said.out
    assert winnow("pool", "materialize", POOL, out, "--home", asked_home).code == 2
    assert winnow("pool", "materialize", POOL, out, "--force", "--home", asked_home).code == 0
