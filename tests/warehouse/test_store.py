"""The artifact store: atomic, verified, safe beside other runs, and honest when killed."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse import store as module
from warehouse.errors import InputError
from warehouse.store import Store, Work, sha256_file

WORK = Work("make", 1, {"n": 3}, {"pool": "p"}, seed=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def fill(store: Store, work: Work, text: str = "rows") -> None:
    with store.write(work) as draft:
        (draft.folder / "rows.txt").write_text(text)
        draft.facts["rows_out"] = 3


def leftovers(store: Store) -> list[Path]:
    return list((store.home / "tmp").iterdir())


def test_written_then_found(store: Store) -> None:
    assert store.find(WORK) is None
    fill(store, WORK)
    artifact = store.find(WORK)
    assert artifact is not None
    assert (artifact.folder / "rows.txt").read_text() == "rows"
    assert artifact.manifest["facts"] == {"rows_out": 3}
    assert leftovers(store) == []


@given(
    st.fixed_dictionaries({"n": st.integers(), "name": st.text()}),
    st.fixed_dictionaries({"n": st.integers(), "name": st.text()}),
)
def test_key_changes_iff_a_part_changes(a: dict[str, object], b: dict[str, object]) -> None:
    assert (Work("s", 1, a).key == Work("s", 1, b).key) == (a == b)
    assert Work("s", 1, a).key == Work("s", 1, dict(reversed(a.items()))).key


def test_every_part_is_in_the_key() -> None:
    others = [
        Work("other", 1, {"n": 3}, {"pool": "p"}, seed=0),
        Work("make", 2, {"n": 3}, {"pool": "p"}, seed=0),
        Work("make", 1, {"n": 4}, {"pool": "p"}, seed=0),
        Work("make", 1, {"n": 3}, {"pool": "q"}, seed=0),
        Work("make", 1, {"n": 3}, {"pool": "p"}, "model", 0),
        Work("make", 1, {"n": 3}, {"pool": "p"}, seed=1),
    ]
    assert len({WORK.key, *(work.key for work in others)}) == 7


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, float("nan"), object()])
def test_a_value_without_one_spelling_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        _ = Work("make", 1, {"n": value}).key


def test_links_to_a_finished_artifact_keep_its_hashes_and_all_else_is_hashed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, WORK)
    whole, hashed = Work("assemble", 1), list[str]()

    def noting(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    with monkeypatch.context() as patch, store.write(whole) as draft:
        artifact = store.find(WORK)
        assert artifact is not None
        patch.setattr(module, "sha256_file", noting)
        draft.shares(artifact)
        os.link(artifact.folder / "rows.txt", draft.folder / "linked.txt")
        shutil.copyfile(artifact.folder / "rows.txt", draft.folder / "copied.txt")
        (draft.folder / "other.txt").write_text("more")
    made = store.find(whole)
    assert made is not None
    assert made.faults() == []
    assert hashed == ["copied.txt", "other.txt"]
    assert made.manifest["files"]["linked.txt"] == artifact.manifest["files"]["rows.txt"]


def test_beyond_what_is_hashed_sizes_alone_are_checked(store: Store) -> None:
    fill(store, WORK, "rows")
    rows = store.folder(WORK.stage, WORK.key) / "rows.txt"
    rows.write_text("rowx")
    found = store.find(WORK, hash_up_to=3)
    assert found is not None
    assert found.bytes == 4
    assert store.find(WORK, hash_up_to=4) is None
    rows.write_text("row")
    assert store.find(WORK, hash_up_to=0) is None


def test_a_failed_block_leaves_nothing(store: Store) -> None:
    def half() -> None:
        with store.write(WORK) as draft:
            (draft.folder / "rows.txt").write_text("half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        half()
    assert store.find(WORK) is None
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "manifest"])
def test_damage_is_seen_and_repaired(store: Store, damage: str) -> None:
    fill(store, WORK)
    folder = store.folder(WORK.stage, WORK.key)
    file = folder / "rows.txt"
    if damage == "cut":
        file.write_text("ro")
    elif damage == "changed":
        file.write_text("r0ws")
    elif damage == "gone":
        file.unlink()
    else:
        (folder / "manifest.json").write_text('{"half')
    assert store.find(WORK) is None
    fill(store, WORK)
    artifact = store.find(WORK)
    assert artifact is not None
    assert file.read_text() == "rows"


def test_the_second_of_two_writers_keeps_the_first_copy(store: Store) -> None:
    with store.write(WORK) as slow:
        (slow.folder / "rows.txt").write_text("rows")
        fill(store, WORK)
        kept = (store.folder(WORK.stage, WORK.key) / "rows.txt").stat().st_ino
    assert (store.folder(WORK.stage, WORK.key) / "rows.txt").stat().st_ino == kept
    assert leftovers(store) == []


def _race(home: Path, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    fill(Store.open(home), WORK)


def test_many_processes_write_one_key_at_once(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    writers = [context.Process(target=_race, args=(store.home, start)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert store.find(WORK) is not None


def test_kill_9_while_writing_leaves_nothing_but_scratch(store: Store) -> None:
    program = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from warehouse.store import Store, Work
        store = Store.open(Path({str(store.home)!r}))
        with store.write(Work("make", 1, {{"n": 3}}, {{"pool": "p"}}, seed=0)) as draft:
            (draft.folder / "rows.txt").write_text("half")
            print("writing", flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert store.find(WORK) is None
    assert leftovers(store) != []
    assert leftovers(Store.open(store.home)) == []  # the next to open the home sweeps up after the dead


def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store.open(tmp_path / "file" / "home")


def test_manifest_names_every_file_and_part(store: Store) -> None:
    fill(store, WORK)
    manifest = json.loads((store.folder(WORK.stage, WORK.key) / "manifest.json").read_text())
    assert manifest["files"]["rows.txt"]["bytes"] == 4
    assert {key: manifest[key] for key in WORK.parts()} == WORK.parts()


def test_ids_of_runs_sort_as_they_start() -> None:
    from warehouse.runs import new_run_id

    ids = [new_run_id() for _ in range(50)]
    starts = [name[:-3] for name in ids]
    assert starts == sorted(starts)
    assert len(set(starts)) > 1, "runs of one second are told apart"
