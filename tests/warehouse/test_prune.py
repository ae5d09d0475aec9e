"""Pruning: what a kept run needs stays, all else goes, and the bytes it says are the bytes that came free."""

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warehouse.ids import as_ids
from warehouse.prune import Pruned, prune
from warehouse.records import Spec, digest
from warehouse.runs import RunLog, StageRecord
from warehouse.signals import SignalStore
from warehouse.store import Artifact, Store, Work

NEVER = datetime.max.replace(tzinfo=UTC)  # nothing is newer: what did not finish is not kept
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def add(store: Store, name: str, size: int = 10, **parts: Any) -> Artifact:
    work = Work("stage", 1, {"name": name}, **parts)
    with store.write(work) as draft:
        (draft.folder / "rows.txt").write_bytes(name.encode() * size)
    found = store.find(work)
    assert found is not None
    return found


def measured(store: Store, name: str) -> Spec:
    spec = Spec(name)
    SignalStore(store.home).append(spec, as_ids([digest("row")]), np.zeros((1, 8)))
    return spec


def log(store: Store, day: int, *keys: str, status: str | None = "done") -> None:
    entry = RunLog(store.home, f"202601{day:02}T000000-00000000")
    entry.start(recipe="r", command="run", recipe_text="", version="1")
    for key in keys:
        entry.stage(StageRecord("s", "s", key, True, datetime.now(UTC), 0.1, 1, 1, {}))
    if status:
        entry.end(status)


def left(store: Store) -> set[str]:
    signals = {spec.parent.name for spec in (store.home / "signals").glob("*/spec.json")} - {"empty"}
    return {artifact.key for artifact in store.artifacts()} | signals


def used(folder: Path) -> int:
    """Bytes of all files, each content once."""
    stats = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(stats.values())


def checked(store: Store, keep: int, since: datetime = NEVER) -> Pruned:
    """Prune, after a dry run that must touch nothing and promise the same; what was freed must be what came free."""
    before = left(store)
    promised = prune(store.home, keep, since, dry_run=True)
    assert left(store) == before
    size = used(store.home)
    done = prune(store.home, keep, since, dry_run=False)
    assert done == promised
    assert size - used(store.home) == done.bytes
    assert list((store.home / "tmp").iterdir()) == []
    return done


def test_what_a_kept_run_needs_stays(store: Store) -> None:
    spec, unused = measured(store, "used"), measured(store, "unused")
    shard = add(store, "shard")
    pool = add(store, "pool", inputs={"shards": [shard.key]})
    pilot = add(store, "pilot")
    loss = Spec("loss", {"checkpoint": pilot.key})
    SignalStore(store.home).append(loss, as_ids([digest("row")]), np.zeros(1))
    chosen = add(store, "chosen", inputs={"pool": pool.key, "signals": {"x": spec.key, "y": loss.key}})
    old = add(store, "old", inputs={"pool": pool.key})
    log(store, 1, old.key, unused.key)
    log(store, 2, chosen.key)
    assert checked(store, 2) == Pruned(0, 0, 0, 0)
    done = checked(store, 1)
    assert (done.artifacts, done.signals) == (1, 1)
    assert left(store) == {spec.key, loss.key, shard.key, pool.key, pilot.key, chosen.key}
    assert checked(store, 0).artifacts == 4
    assert left(store) == set()


def test_of_the_selections_of_the_same_rows_those_of_kept_runs_stay(store: Store) -> None:
    """The checkpoint was trained for the first; a later run chose the same rows, and found it."""
    chosen = [Work("select", 1, {"n": n}) for n in range(2)]
    tuned = Work("train", 1, {}, {"data": digest("rows")})
    for work, facts in [*((each, {"data": digest("rows")}) for each in chosen), (tuned, {"rows_from": chosen[0].key})]:
        with store.write(work) as draft:
            draft.facts.update(facts)
    log(store, 1, chosen[0].key, tuned.key)
    log(store, 2, chosen[1].key, tuned.key)
    assert checked(store, 1).artifacts == 1
    assert left(store) == {chosen[1].key, tuned.key}
    log(store, 3, tuned.key)  # an evaluation of what is there: it names no selection, and one is needed
    assert checked(store, 1).artifacts == 0


@pytest.mark.parametrize("status", [None, "failed", "cancelled"])
def test_a_run_that_did_not_finish_keeps_its_things_for_a_while(store: Store, status: str | None) -> None:
    one = add(store, "one")
    log(store, 1, one.key, status=status)
    now = datetime.now(UTC)
    assert checked(store, 0, now - timedelta(hours=1)).artifacts == 0
    assert checked(store, 0, now + timedelta(hours=1)).artifacts == 1


def test_what_came_without_a_run_stays_for_a_while(store: Store) -> None:
    add(store, "pulled")
    measured(store, "pulled")
    now = datetime.now(UTC)
    assert checked(store, 0, now - timedelta(hours=1)) == Pruned(0, 0, 0, 0)
    assert (done := checked(store, 0, now + timedelta(hours=1))).artifacts == 1
    assert done.signals == 1


def test_what_an_old_run_was_made_from_goes_with_it(store: Store) -> None:
    shard = add(store, "shard")
    log(store, 1, add(store, "pool", inputs={"shards": [shard.key]}).key)
    assert checked(store, 0, datetime.now(UTC) - timedelta(days=7)).artifacts == 2


def test_a_shared_file_is_freed_with_its_last_link(store: Store) -> None:
    first, second = add(store, "first", 5000), add(store, "second", 7)
    os.link(first.folder / "rows.txt", second.folder / "shared.txt")
    log(store, 1, second.key)
    log(store, 2, first.key)
    assert checked(store, 1).bytes < 5000  # `shared.txt` has a link in the kept one
    assert left(store) == {first.key}
    third = add(store, "third")
    os.link(first.folder / "rows.txt", third.folder / "shared.txt")
    assert checked(store, 0).bytes > 5000 * 5


def test_what_another_process_found_stays_with_all_it_needs(store: Store) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from warehouse.store import Store, Work
        assert Store(Path(sys.argv[1])).find(Work("stage", 1, {"name": "found"}, {"pool": sys.argv[2]}))
        print("found", flush=True)
        sys.stdin.readline()
    """)
    pool = add(store, "pool")
    found = add(store, "found", inputs={"pool": pool.key})
    add(store, "other")
    words = [sys.executable, "-c", program, str(store.home), pool.key]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "found\n"
        checked(store, 0)
        assert left(store) == {pool.key, found.key}
        process.communicate("go\n")
    checked(store, 0)
    assert left(store) == set()


def test_scratch_that_nobody_wants_goes(store: Store) -> None:
    tmp = store.home / "tmp"
    for name in ("train-abandoned", "train-resumable", "train-going-on", "elsewhere-7-0123"):
        (tmp / name / "work").mkdir(parents=True)
        (tmp / name / "work" / "weights").write_bytes(bytes(100))
    (tmp / "train-abandoned.lock").touch()
    long_ago = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    for path in [*tmp.rglob("*")]:
        if "train-resumable" not in path.parts:
            os.utime(path, (long_ago, long_ago))
    with (tmp / "train-going-on.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune(store.home, 0, ALWAYS, dry_run=False).scratch == 0
        two_days_ago = datetime.now(UTC) - timedelta(days=2)
        done = prune(store.home, 0, two_days_ago, dry_run=False)
        assert done == Pruned(200, 0, 0, 3)
        names = {path.name for path in tmp.iterdir()}
    assert names == {"train-resumable", "train-going-on", "train-going-on.lock"}
    shutil.rmtree(tmp)


def test_run_logs_and_reports_stay(store: Store) -> None:
    one = add(store, "one")
    log(store, 1, one.key)
    report = store.home / "runs" / "20260101T000000-00000000" / "report.html"
    report.write_text("<p>what was found</p>")
    assert checked(store, 0).artifacts == 1
    assert report.exists()
    assert len(RunLog(store.home, report.parent.name).stages()) == 1


def test_prunes_at_once_share_the_work(store: Store) -> None:
    for i in range(30):
        add(store, f"old {i}")
    measured(store, "unused")
    shutil.rmtree(store.home / "leases")  # this process made them, and would hold them
    program = textwrap.dedent("""
        import sys
        from datetime import UTC, datetime
        from pathlib import Path
        from warehouse.prune import prune
        sys.stdout.write(str(prune(Path(sys.argv[1]), 0, datetime.max.replace(tzinfo=UTC), dry_run=False)))
    """)
    words = [sys.executable, "-c", program, str(store.home)]
    prunes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [prune.communicate()[0] for prune in prunes]
    assert [prune.returncode for prune in prunes] == [0, 0, 0]
    assert sum(int(text.split("artifacts=")[1].split(",")[0]) for text in said) == 30
    assert left(store) == set()
