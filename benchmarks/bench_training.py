"""Fine-tuning on a processor: `sft_tiny` against trl's `SFTTrainer` as it comes, at equal loss after equal tokens.

python benchmarks/bench_training.py [--json] [--repeats N] [--folder FOLDER] [--threads N] [--only CASE ...]

Both sides read the same rows as often, with the same rate, schedule and rows a step; the peer keeps trl's other
defaults (float32, gradient checkpointing, rows in random order). Seconds are those of a whole run, from the rows' file
to the written weights, without the time that libraries take to load. Each run has a process of its own, the sides take
turns, and the medians of the repeats are shown; every repeat has a seed of its own. Tokens are those that a side reads,
padding left out; trl's include the line end after a row's last reply, from which nothing is learnt.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.frame import Row, run
from benchmarks.training_cases import CASES, Case

REPEATS = 3
GOAL = 2.0
MEMORY = 0.5  # the peer computes activations twice to save memory: ours may hold twice as much
APART = 0.05  # nats per token: runs that differ in seed alone lie about as far apart
MIB = 2**20
Found = dict[str, Any]


def side(name: str, case: Case, folder: Path, seed: int, **environment: str) -> Found:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training_side", name, case.name, str(folder), str(seed)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def of(runs: Sequence[Found], what: str) -> float:
    return float(median(found[what] for found in runs))


def measure(cases: Sequence[Case], repeats: int, folder: Path, threads: int) -> Iterator[Row]:
    for case in cases:
        mine: list[Found] = []
        theirs: list[Found] = []
        for seed in range(repeats):
            for name, runs in (("winnow", mine), ("trl", theirs)):
                runs.append(side(name, case, folder, seed, OMP_NUM_THREADS=str(threads)))
        yield from rows(case, mine, theirs)


def rows(case: Case, mine: Sequence[Found], theirs: Sequence[Found]) -> Iterator[Row]:
    read = {(found["labels"], found["steps"]) for found in (*mine, *theirs)}
    if len(read) > 1:
        raise RuntimeError(f"{case.name}: the sides did not learn the same: (label tokens, steps) {read}")
    speeds = of(mine, "tokens_per_second"), of(theirs, "tokens_per_second")
    yield Row(case.name, speeds[0], "tokens/s", GOAL, speeds[1], more_is_better=True)
    seconds = of(mine, "processor"), of(theirs, "processor")
    yield Row(f"{case.name}: processor seconds", seconds[0], "s", GOAL, seconds[1])
    yield Row(f"{case.name}: peak memory", of(mine, "peak") / MIB, "MiB", MEMORY, of(theirs, "peak") / MIB)
    losses = [mean(found["loss"] for found in one) for one in (mine, theirs)]
    work = f"{case.name}: held-out loss {losses[0]:.3f}, peer {losses[1]:.3f}; above it"
    yield Row(work, losses[0] - losses[1], "nats", APART)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--folder", type=Path, help="where models and rows are written, kept afterwards")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each run")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="cases; all by default")
    given, sys.argv[1:] = parser.parse_known_args()
    chosen = [case for case in CASES if given.only is None or case.name in given.only]
    with TemporaryDirectory() as scratch:
        sys.exit(run(partial(measure, chosen, given.repeats, given.folder or Path(scratch), given.threads)))
