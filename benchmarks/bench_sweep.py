"""How time and memory of a method grow with the pool: 100 thousand, 1 million and 5 million rows x 384, float32.

    python -m benchmarks.bench_sweep [--json] [--folder FOLDER] [--sizes N ...] [--methods NAME ...]    8 GB of disk

Rows lie in the shards that a home keeps signals in, read as a run reads them. Time is of the processor; memory is by
how much what the process holds and is no file's page grew at most while the method worked. Each size of each method
runs in a process of its own. The goals: a row costs no more in a larger pool (a ratio of 0.8 at least of the smaller
pool's time by the row over the larger's), and memory stays under a limit whatever the size.
"""

import argparse
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.frame import Row, best_of, run
from selection.k_center import KCenter
from selection.problem import Method, Problem
from selection.rds_plus import RdsPlus
from warehouse.errors import InputError
from warehouse.records import Spec
from warehouse.signals import SignalStore

D, SHARD = 384, 100_000
SIZES = (100_000, 1_000_000, 5_000_000)
VECTORS = Spec("representation", {"of": "the sweep"})
SPARE = 1.2  # of the disk that the rows take


@dataclass(frozen=True, slots=True)
class Work:
    """A method, its budget and targets, and the memory in MB that it may take: `fixed`, and `a_row` bytes of each."""

    make: Callable[[], Method]
    budget: int
    targets: int
    fixed: float
    a_row: float = 0.0

    def limit(self, n: int) -> float:
        return self.fixed + n * self.a_row / 2**20


METHODS: Mapping[str, Work] = {
    "rds_plus": Work(partial(RdsPlus, VECTORS), 10_000, 1_000, 400),
    "k_center": Work(partial(KCenter, VECTORS), 200, 0, 400, 100),
}


def ids_of(n: int) -> NDArray[np.bytes_]:
    """(n,) ids as evenly spread as the hashes that they stand for; those of a smaller pool begin a larger one's."""
    return np.frombuffer(np.random.default_rng(1).bytes(16 * n).hex().encode("ascii"), "S32")


def write(home: Path, n: int) -> None:
    """Vectors of n rows, shard by shard: one shard's with its dimensions in another order and with other signs."""
    rng, ids, store = np.random.default_rng(0), ids_of(n), SignalStore(home)
    base = vectors(min(SHARD, n), rng)
    for start in range(0, n, SHARD):
        shard = ids[start : start + SHARD]
        turned = base[: len(shard), rng.permutation(D)] * rng.choice(np.array([-1, 1], np.float32), D)
        store.append(VECTORS, shard, turned)


def vectors(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, D) rows of unit length around 200 centres, as embeddings of real text crowd."""
    centres = rng.standard_normal((200, D), dtype=np.float32)
    rows = centres[rng.integers(0, 200, n)] + rng.standard_normal((n, D), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@dataclass(frozen=True, slots=True)
class Cost:
    """What a choice took: seconds of the processor, seconds on the clock, MB that are no file's."""

    cpu: float
    wall: float
    memory: float


def cost(home: Path, method: str, n: int) -> Cost:
    """What `method` takes of the first n rows kept in `home`. To be run in a process of its own."""
    work = METHODS[method]
    targets = vectors(work.targets, np.random.default_rng(2)) if work.targets else np.zeros((0, D), np.float32)
    problem = Problem(
        budget=work.budget,
        keys=np.arange(n, dtype=np.uint64),
        candidates={"representation": SignalStore(home).read(VECTORS, ids_of(n))},
        targets={"representation": targets} if work.targets else {},
        target_task=np.zeros(work.targets, np.int64),
    )
    start = time.perf_counter()
    cpu, memory = peak(partial(work.make(), problem, np.random.default_rng(0)))
    return Cost(cpu, time.perf_counter() - start, memory)


def peak(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of `work`, and by how many MB the memory that is no file's grew meanwhile at most."""
    seen, done = [_private()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(_private())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, _ = best_of(1, work, time.process_time)
    done.set()
    watcher.join()
    return seconds, (max(seen) - seen[0]) / 1024


def _private() -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


def check_disk(folder: Path, n: int) -> None:
    """Raise `InputError` where `folder` has no room for n rows."""
    needed, free = SPARE * n * (D * 4 + 40), shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free and {n:,} rows take {needed / 1e9:.1f}: "
            "give another `--folder` or smaller `--sizes`"
        )


def measure(folder: Path, sizes: Sequence[int], methods: Sequence[str]) -> Iterator[Row]:
    check_disk(folder, max(sizes))
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=folder) as made:
        write(Path(made), max(sizes))
        for method in methods:
            yield from swept(Path(made), sorted(sizes), method)


def swept(home: Path, sizes: Sequence[int], method: str) -> Iterator[Row]:
    """The rows of one method, a process for each size."""
    before: float | None = None
    name = f"{method} {METHODS[method].budget:,} of"
    for n in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            found = alone.submit(cost, home, method, n).result()
        yield Row(f"{name} {n:,} rows, on the clock", found.wall, "s", np.inf)
        a_row = found.cpu / n * 1e6
        if before is None:
            yield Row(f"{name} {n:,} rows, by the million", a_row, "CPU s", np.inf)
        else:
            yield Row(f"{name} {n:,} rows, by the million, against the smaller", a_row, "CPU s", 0.8, before)
        yield Row(f"{name} {n:,} rows, memory", found.memory, "MB", METHODS[method].limit(n))
        before = a_row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    given, sys.argv[1:] = parser.parse_known_args()
    sys.exit(run(partial(measure, given.folder, given.sizes, given.methods)))
