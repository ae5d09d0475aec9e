"""A pool of 100 thousand, 1 and 5 million rows through every stage, beside `datasets` and `datasketch`; 40 minutes.

python -m benchmarks.warehouse_scale [--json] [--rows 100000,1000000,5000000] [--scratch FOLDER]
Each size is one process tree; peak memory is the proportional set size of all its processes, Ray's own included.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.frame import Row, run
from benchmarks.warehouse_rows import grow, write_pool

PEER_ROWS = 100_000
MEMORY_MB = 4096
FLAT = 1.5  # the largest pool may take this many times the memory of the one before
GROWTH, GROWN_COST = 0.01, 0.15  # a source that grew by this share may cost this share of the whole


def call(module: str, *words: object) -> list[dict[str, Any]]:
    """The JSON objects that a script of this folder prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def measure(sizes: Sequence[int], scratch: Path) -> Iterator[Row]:
    before: dict[str, float] = {}
    for n in sizes:
        place = scratch / str(n)
        write_pool(place / "rows", n)
        stages = call("warehouse_stages", place / "home", place / "rows", place / "test.jsonl")
        seconds = {row["stage"]: row["seconds"] for row in stages}
        for row in stages:
            name = f"{n:,} rows: {row['stage']}"
            yield Row(f"{name}, {row['seconds']:.0f} s", row["rows"] / row["seconds"], "rows/s", 0, more_is_better=True)
            held = row["bytes"] / 2**20
            yield Row(f"{name}, peak memory", held, "MiB", MEMORY_MB)
            if row["stage"] in before and n > 200_000:
                yield Row(f"{name}, memory to the pool before", held / before[row["stage"]], "times", FLAT)
            before[row["stage"]] = held
        if n == PEER_ROWS:
            yield from _beside_peers(place, seconds)
        if n == max(sizes):
            yield from _grown(place, n, sum(seconds.values()))
        shutil.rmtree(place)


def _beside_peers(place: Path, seconds: dict[str, float]) -> Iterator[Row]:
    for peer, stage, work in (
        ("datasets", "ingest", "import with ids and facts; datasets: load_dataset and map"),
        ("datasketch", "near-duplicates", "near-duplicates at 0.8; datasketch"),
    ):
        (theirs,) = call("warehouse_peers", peer, place / "rows", place / peer)
        yield Row(f"{PEER_ROWS:,} rows: {work}", seconds[stage], "s", 1.0, peer=theirs["seconds"])


def _grown(place: Path, n: int, whole: float) -> Iterator[Row]:
    more = int(n * GROWTH)
    grow(place / "rows", n, more)
    stages = call("warehouse_stages", place / "home", place / "rows", place / "test.jsonl")
    for row in stages:
        yield Row(f"{n:,} rows and {more:,} more: {row['stage']}", row["seconds"], "s", whole)
    again = sum(row["seconds"] for row in stages)
    yield Row(f"{n:,} rows and {more:,} more: all stages, share of the whole", again / whole, "", GROWN_COST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rows", default="100000,1000000,5000000")
    parser.add_argument("--scratch", type=Path)
    given, sys.argv[1:] = parser.parse_known_args()
    sizes = [int(text) for text in given.rows.split(",")]
    if given.scratch is not None:
        given.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        raise SystemExit(run(lambda: measure(sizes, Path(scratch))))
