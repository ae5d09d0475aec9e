"""The catalogue: views over files, valid from the first moment, never in anybody's way."""

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest
from pool_files import write_pool

from warehouse import catalogue, page
from warehouse.catalogue import VIEWS, ensure, query
from warehouse.errors import InputError
from warehouse.records import Example, Message
from warehouse.store import Store, Work

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without anything in it; ask it, never write to it."""
    return Store.open(tmp_path_factory.mktemp("empty") / "home").home


def add_pool(store: Store, name: str, n: int) -> str:
    work = Work("ingest", 1, {"name": name, "n": n})
    rows = [
        Example((Message("user", f"{name} {i}"), Message("assistant", "yes")), "made", {"skill": "s"}) for i in range(n)
    ]
    with store.write(work) as draft:
        write_pool(rows, draft.folder, pool_key=work.key, name=name)
    return work.key


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_works_on_an_empty_home_with_its_documented_columns(empty: Path, name: str) -> None:
    table = query(empty, f"SELECT * FROM {name}")
    assert table.num_rows == 0
    assert set(table.column_names) >= set(VIEWS[name].columns)


@pytest.mark.parametrize("name", VIEWS)
def test_every_example_runs(empty: Path, name: str) -> None:
    query(empty, VIEWS[name].example)


def test_columns_without_a_word_are_only_those_of_the_log(empty: Path) -> None:
    for name, view in VIEWS.items():
        undocumented = set(query(empty, f"SELECT * FROM {name}").column_names) - set(view.columns)
        assert undocumented == set(), name


def test_new_artifacts_appear_by_themselves(store: Store) -> None:
    ensure(store.home)
    stamp = (store.home / "winnow.duckdb").stat().st_mtime_ns
    key = add_pool(store, "one", 3)
    assert query(store.home, "SELECT pool, name, n FROM pools").to_pylist() == [{"pool": key, "name": "one", "n": 3}]
    assert query(store.home, "SELECT meta->>'skill' AS skill FROM samples LIMIT 1").to_pylist() == [{"skill": "s"}]
    assert (store.home / "winnow.duckdb").stat().st_mtime_ns == stamp


def test_a_deleted_catalogue_is_rebuilt(store: Store) -> None:
    add_pool(store, "one", 3)
    ensure(store.home).unlink()
    assert query(store.home, "SELECT count(*) AS n FROM samples").to_pylist() == [{"n": 3}]


def test_a_moved_home_is_noticed(store: Store, tmp_path: Path) -> None:
    add_pool(store, "one", 3)
    ensure(store.home)
    moved = store.home.rename(tmp_path / "it's [moved]*")
    assert query(moved, "SELECT count(*) AS n FROM samples").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("sql", ["SELECT * FROM nothing", "DROP VIEW pools", "CREATE TABLE t (i INT)", "SELEC", ""])
def test_what_cannot_be_asked_is_a_clear_error(store: Store, sql: str) -> None:
    with pytest.raises(InputError):
        query(store.home, sql)


def test_an_open_shell_does_not_block_writers_nor_a_rebuild(store: Store) -> None:
    program = (
        "import sys, duckdb; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); "
        "sys.stdin.readline(); print(c.sql('SELECT count(*) FROM samples').fetchall()[0][0])"
    )
    path = ensure(store.home)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "open\n"
        add_pool(store, "one", 3)
        catalogue.rebuild(store.home)
        out, _ = shell.communicate("go\n")
    assert out == "3\n"


def test_readers_and_writers_at_once(store: Store) -> None:
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                query(store.home, "SELECT count(*) AS n FROM samples")
            except (InputError, duckdb.Error, OSError) as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(12):
        add_pool(store, f"pool {i}", 5)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert query(store.home, "SELECT count(*) AS n FROM samples").to_pylist() == [{"n": 60}]


def test_the_page_is_made_from_the_views() -> None:
    assert (DOCS / "warehouse.md").read_text() == page.page(), "run: python -m warehouse.page > docs/warehouse.md"
