"""One file with what a home knows of some pools: the same tables, only theirs, and nothing of the home's place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pool_files import write_pool

from warehouse import materialize as module
from warehouse.ask import ask
from warehouse.errors import InputError
from warehouse.materialize import KEEP, materialize
from warehouse.records import Example, Message, digest
from warehouse.store import Store, Work
from warehouse.tables import CHECKPOINT, DROPS, SELECTED, SELECTION, write_rows
from warehouse.views import VIEWS


def add(store: Store, name: str, n: int) -> str:
    """A pool of `n` rows with a selection of its first row, a dropped last row and a checkpoint; its key."""
    work = Work("ingest", 1, {"name": name, "n": n})
    rows = [Example((Message("user", f"{name} {i}"), Message("assistant", "yes")), name) for i in range(n)]
    with store.write(work) as draft:
        write_pool([*rows, Example((Message("user", "?"),), name)], draft.folder, pool_key=work.key, name=name)
    chosen = Work("select", 1, {"budget": 1}, {"pool": work.key})
    about = {"selection": chosen.key, "pool": work.key, "row": 0, "sample_id": rows[0].sample_id, "rank": 1}
    with store.write(chosen) as draft:
        summary = {"selection": chosen.key, "pool": work.key, "method": "random", "budget": 1, "seed": 0, "rows": 1}
        write_rows(draft.folder / "selection.parquet", SELECTION, [summary])
        write_rows(draft.folder / "selected.parquet", SELECTED, [about])
    cleaned = Work("clean", 1, {}, {"pool": work.key})
    with store.write(cleaned) as draft:
        row = {"cleaning": cleaned.key, "pool": work.key, "row": n - 1, "filter": "length", "reason": "too_long"}
        write_rows(draft.folder / "drops.parquet", DROPS, [row])
    tuned = Work("train", 1, {"base": str(store.home / "model")}, {"data": chosen.key})
    with store.write(tuned) as draft:
        row = {"checkpoint": tuned.key, "base": str(store.home / "model"), "data": chosen.key}
        write_rows(draft.folder / "checkpoint.parquet", CHECKPOINT, [row])
    return work.key


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "it's home")
    for name, n in (("one", 5), ("two", 7), ("one", 6)):
        add(store, name, n)
    return store.home


def told(_: str, __: int) -> None:
    """Hears of the progress, and says nothing."""


@contextmanager
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection


def test_tables_and_columns_are_the_views(home: Path, tmp_path: Path) -> None:
    assert list(KEEP) == list(VIEWS)
    heard: dict[str, int] = {}
    written = materialize(home, ["one", "two"], tmp_path / "m.duckdb", force=False, tell=heard.__setitem__)
    assert dict(written.rows) == heard
    assert written.bytes == (tmp_path / "m.duckdb").stat().st_size
    with opened(tmp_path / "m.duckdb") as connection:
        for name in VIEWS:
            assert connection.execute(f"DESCRIBE {name}").fetchall() == ask(home, f"DESCRIBE {name}").rows
            counted = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
            assert counted == [(written.rows[name],)]
        kinds = connection.execute("SELECT DISTINCT table_type FROM information_schema.tables").fetchall()
        assert kinds == [("BASE TABLE",)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["one"], [("one", 2)]),
        (["one@1"], [("one", 1)]),
        (["one@1", "one", "two"], [("one", 1), ("one", 2), ("two", 1)]),
    ],
)
def test_only_what_was_asked_for_is_in_it(
    home: Path, tmp_path: Path, names: list[str], expected: list[tuple[str, int]]
) -> None:
    materialize(home, names, tmp_path / "m.duckdb", force=False, tell=told)
    joined = "FROM pools JOIN {} USING (pool)"
    with opened(tmp_path / "m.duckdb") as connection:
        for table in ("samples", "rejects", "drops", "selections", "selected"):
            sql = f"SELECT DISTINCT name, version {joined.format(table)} ORDER BY ALL"
            assert connection.execute(sql).fetchall() == expected, table
        (orphans,) = connection.execute("SELECT count(*) FROM samples ANTI JOIN pools USING (pool)").fetchall()[0]
        assert orphans == 0
        tuned = connection.execute("SELECT count(*) FROM checkpoints JOIN selections USING (data)").fetchall()
        assert tuned == [(len(expected),)]


def test_a_pool_comes_without_another_that_gave_the_same_rows(tmp_path: Path) -> None:
    """The checkpoint was trained for a selection of the first pool; the one of the second chose the same rows."""
    store = Store.open(tmp_path / "home")
    pools = [add(store, name, n) for n, name in enumerate(("one", "two"), 2)]
    chosen = [Work("select", 2, {}, {"pool": pool}) for pool in pools]
    data = digest("rows")
    for pool, work in zip(pools, chosen, strict=True):
        with store.write(work) as draft:
            summary = {"selection": work.key, "pool": pool, "method": "random", "budget": 1, "seed": 0, "data": data}
            write_rows(draft.folder / "selection.parquet", SELECTION, [summary])
            draft.facts["data"] = data
    tuned = Work("train", 2, {}, {"data": data})
    with store.write(tuned) as draft:
        write_rows(draft.folder / "checkpoint.parquet", CHECKPOINT, [{"checkpoint": tuned.key, "data": data}])
        draft.facts["rows_from"] = chosen[0].key
    materialize(store.home, ["two"], tmp_path / "m.duckdb", force=False, tell=told)
    with opened(tmp_path / "m.duckdb") as connection:
        assert connection.execute("SELECT name FROM pools").fetchall() == [("two",)]
        joined = "SELECT selection FROM checkpoints JOIN selections USING (data) WHERE checkpoint = ?"
        assert connection.execute(joined, [tuned.key]).fetchall() == [(chosen[1].key,)]


def test_no_path_of_the_home_is_in_it(home: Path, tmp_path: Path) -> None:
    assert ask(home, "SELECT count(*) FROM checkpoints WHERE contains(base, ?)", [str(home)]).rows == [(3,)]
    materialize(home, ["one", "two"], tmp_path / "m.duckdb", force=False, tell=told)
    with opened(tmp_path / "m.duckdb") as connection:
        for name in VIEWS:
            texts = connection.execute(f"SELECT to_json(t)::VARCHAR FROM {name} t").fetchall()
            assert [text for (text,) in texts if str(home) in text] == [], name
        assert connection.execute("SELECT DISTINCT base FROM checkpoints").fetchall() == [("model",)]


def test_a_file_that_is_there_is_replaced_only_by_force_and_only_whole(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.duckdb"
    materialize(home, ["one"], out, force=False, tell=told)
    before = out.read_bytes()
    with pytest.raises(InputError, match="--force"):
        materialize(home, ["two"], out, force=False, tell=told)

    def broken(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "replace", broken)
        with pytest.raises(InputError, match=r"cannot write .*m\.duckdb: No space left"):
            materialize(home, ["two"], out, force=True, tell=told)
    assert out.read_bytes() == before
    materialize(home, ["two"], out, force=True, tell=told)
    with opened(out) as connection:
        assert connection.execute("SELECT DISTINCT name FROM pools").fetchall() == [("two",)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's home", "m.duckdb"]


def test_what_is_broken_off_leaves_nothing(home: Path, tmp_path: Path) -> None:
    def stopped(table: str, _: int) -> None:
        if table == "drops":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        materialize(home, ["one"], tmp_path / "[m].duckdb", force=False, tell=stopped)
    assert [path.name for path in tmp_path.iterdir()] == ["it's home"]


def test_what_cannot_be_written_is_said(home: Path, tmp_path: Path) -> None:
    wrong = {
        tmp_path / "m.db": ".duckdb",
        tmp_path / "none" / "m.duckdb": "folder",
        home / "m.duckdb": "lies in the home",
    }
    for out, said in wrong.items():
        with pytest.raises(InputError, match=said):
            materialize(home, ["one"], out, force=True, tell=told)
    with pytest.raises(InputError, match="no pool is named 'three'"):
        materialize(home, ["three"], tmp_path / "m.duckdb", force=False, tell=told)
    assert [path.name for path in tmp_path.iterdir()] == ["it's home"]
