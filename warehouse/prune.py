"""Pruning: what no kept run needs goes, beside running flows too.

Kept is what the last finished runs used, what runs that did not finish used until lately, what came lately without a
run (a pull), what any living process relies on (`warehouse.leases`), and all that these were made from. Run logs and
reports stay: they are small, and the memory of what went.
"""

import contextlib
import fcntl
import math
import os
import shutil
import socket
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from warehouse import catalogue, leases
from warehouse.lineage import SIGNAL, ancestry, keys
from warehouse.store import MANIFEST, Store, alive

SCRATCH_AGE = timedelta(days=1)
RUNS = """
SELECT r.run, any_value(r.status) = 'done' AS done, greatest(max(r.started), max(s.started)) AS latest,
       list(s.key) AS keys
FROM runs r LEFT JOIN stages s USING (run) GROUP BY r.run ORDER BY r.run DESC
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go: bytes that the disk got back (shared files count with their last link), and counts."""

    bytes: int
    artifacts: int
    signals: int
    scratch: int


def prune(home: Path, keep: int, since: datetime, *, dry_run: bool) -> Pruned:
    """Remove what neither the last `keep` finished runs nor runs unfinished `since` (aware) nor any process needs."""
    store = Store.open(home)
    with leases.undisturbed(home):  # another prune waits
        kept = ancestry(home, _roots(home, keep, since))
        going = [folder for key, folder in _folders(home) if key not in kept]
    scratch = list(_stale(home / "tmp", min(since, datetime.now(UTC) - SCRATCH_AGE)))
    if dry_run:
        with leases.closed(home) as held:
            going = _unneeded(home, going, held)
        return _counted(going, [*going, *scratch], scratch)
    grave = store.scratch()
    with leases.closed(home) as held:
        going = [folder for folder in _unneeded(home, going, held) if _bury(folder, grave)]
    dead = []
    for entry in scratch:
        with _unused(entry) as free:
            dead += [entry] if free and _bury(entry, grave) else []
    pruned = _counted(going, grave.iterdir(), dead)
    shutil.rmtree(grave)
    return pruned


def _roots(home: Path, keep: int, since: datetime) -> set[str]:
    """The keys that kept runs name, and those that no run has to do with and that came after `since`."""
    runs = catalogue.query(home, RUNS).to_pylist()
    kept = [run for run in runs if run["done"]][:keep]
    kept += [run for run in runs if not run["done"] and run["latest"] >= since]
    asked = ancestry(home, _named(runs))
    new = {key for key, folder in _folders(home) if key not in asked and _came(folder) >= since.timestamp()}
    return _named(kept) | new


def _named(runs: Iterable[Mapping[str, Any]]) -> set[str]:
    return {key for run in runs for key in run["keys"] if key}


def _folders(home: Path) -> list[tuple[str, Path]]:
    """(key, folder) of every artifact and signal, the newest first: what was made goes before what it was made from."""
    places = {key: home / ("signals" if stage == SIGNAL else f"artifacts/{stage}") / key
              for key, stage in keys(home).items()}  # fmt: skip
    return sorted(places.items(), key=lambda place: -_came(place[1]))


def _came(folder: Path) -> float:
    """When what is in `folder` was written, in seconds since the epoch; 0 where another prune just took it."""
    for name in (MANIFEST, "spec.json"):
        try:
            return (folder / name).stat().st_mtime
        except FileNotFoundError:
            continue
    return 0.0


def _unneeded(home: Path, going: Iterable[Path], held: frozenset[str]) -> list[Path]:
    needed = ancestry(home, held)
    return [folder for folder in going if folder.name not in needed and folder.is_dir()]


def _stale(tmp: Path, before: datetime) -> Iterator[Path]:
    """Scratch that nobody touched since `before`: an abandoned training, what processes of other machines left."""
    for entry in sorted(tmp.iterdir()):  # a folder before the lock that is named like it
        host, pid, _ = ("--" + entry.name).rsplit("-", 2)  # a host's name may hold hyphens
        living = host.removeprefix("--") == socket.gethostname() and pid.isdigit() and alive(int(pid))
        if not living and _touched(entry) < before.timestamp():
            with _unused(entry) as free:
                if free:
                    yield entry


def _touched(entry: Path) -> float:
    try:
        return max(path.lstat().st_mtime for path in (entry, *entry.rglob("*")))
    except FileNotFoundError:
        return math.inf  # somebody is at work in it


@contextlib.contextmanager
def _unused(entry: Path) -> Iterator[bool]:
    """Whether no process works in `entry`, which would hold the lock of that name; none begins while the block runs."""
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(entry.with_suffix(".lock").open())
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            yield True
        except BlockingIOError:
            yield False
        else:
            yield True


def _bury(folder: Path, grave: Path) -> bool:
    """Move `folder` away, all at once as seen by others; false where its owner was faster."""
    try:
        os.replace(folder, grave / uuid.uuid4().hex)
    except FileNotFoundError:
        return False
    return True


def _counted(going: Iterable[Path], gone: Iterable[Path], scratch: Sequence[Path]) -> Pruned:
    """`going` and `scratch` as they were; `gone` is where all of it lies now."""
    places = Counter(folder.parent.name == "signals" for folder in going)
    return Pruned(_freed(gone), places[False], places[True], len(scratch))


def _freed(folders: Iterable[Path]) -> int:
    """Bytes that the disk gets back when all of `folders` go: a file with a link elsewhere stays."""
    stats = [path.lstat() for folder in folders for path in (folder, *folder.rglob("*")) if not path.is_dir()]
    going = Counter((stat.st_dev, stat.st_ino) for stat in stats)
    sizes = {
        (stat.st_dev, stat.st_ino): stat.st_size for stat in stats if stat.st_nlink <= going[stat.st_dev, stat.st_ino]
    }
    return sum(sizes.values())
