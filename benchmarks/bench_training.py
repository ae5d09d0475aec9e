"""Fine-tuning on a processor: `sft_tiny` against trl's `SFTTrainer` as it comes, at equal loss after equal tokens.

python benchmarks/bench_training.py [--json] [--repeats N] [--folder FOLDER] [--threads N] [--only CASE ...]
                                    [--compile | --other-threads N]

Both sides read the same rows as often, with the same rate, schedule and rows a step; the peer keeps trl's other
defaults (float32, gradient checkpointing, rows in random order). Seconds are those of a whole run, from the rows' file
to the written weights, without the time that libraries take to load. Each run has a process of its own, the sides take
turns, and the medians of the repeats are shown; every repeat has a seed of its own. Tokens are those that a side reads,
padding left out; trl's include the line end after a row's last reply, from which nothing is learnt.

With `--compile` ours as torch compiles it (transformers' `torch_compile`, nothing compiled before) races ours as it is;
with `--other-threads N` ours with `--threads` races ours with N. The goal is then to be no slower.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.frame import Row, run
from benchmarks.training_cases import CASES, Case

REPEATS = 3
GOAL, EVEN = 2.0, 1.0
MEMORY = 0.5  # the peer computes activations twice to save memory: ours may hold twice as much
APART = 0.05  # nats per token: runs that differ in seed alone lie about as far apart
MIB = 2**20
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One of two that race: a side of `benchmarks.training_side`, and how many threads it has."""

    side: str
    threads: int

    def run(self, case: Case, folder: Path, seed: int) -> Found:
        """One run in a process of its own, in which nothing was compiled before."""
        command = [sys.executable, "-m", "benchmarks.training_side", self.side, case.name, str(folder), str(seed)]
        with TemporaryDirectory() as compiled:
            threads = dict.fromkeys(("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), str(self.threads))
            own = threads | {"TORCHINDUCTOR_CACHE_DIR": compiled}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | own)
        found: Found = json.loads(done.stdout.splitlines()[-1])
        return found


def of(runs: Sequence[Found], what: str) -> float:
    return float(median(found[what] for found in runs))


def measure(
    cases: Sequence[Case], repeats: int, folder: Path, entrants: tuple[Entrant, Entrant], goal: float
) -> Iterator[Row]:
    for case in cases:
        found: tuple[list[Found], list[Found]] = ([], [])
        for seed in range(repeats):
            for entrant, runs in zip(entrants, found, strict=True):
                runs.append(entrant.run(case, folder, seed))
        yield from rows(case, *found, goal)


def rows(case: Case, mine: Sequence[Found], theirs: Sequence[Found], goal: float) -> Iterator[Row]:
    read = {(found["labels"], found["steps"]) for found in (*mine, *theirs)}
    if len(read) > 1:
        raise RuntimeError(f"{case.name}: the sides did not learn the same: (label tokens, steps) {read}")
    speeds = of(mine, "tokens_per_second"), of(theirs, "tokens_per_second")
    yield Row(case.name, speeds[0], "tokens/s", goal, speeds[1], more_is_better=True)
    for what, field in (("seconds", "seconds"), ("processor seconds", "processor")):
        yield Row(f"{case.name}: {what}", of(mine, field), "s", goal, of(theirs, field))
    yield Row(f"{case.name}: peak memory", of(mine, "peak") / MIB, "MiB", MEMORY, of(theirs, "peak") / MIB)
    losses = [mean(found["loss"] for found in one) for one in (mine, theirs)]
    work = f"{case.name}: held-out loss {losses[0]:.3f}, peer {losses[1]:.3f}; above it"
    yield Row(work, losses[0] - losses[1], "nats", APART)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--folder", type=Path, help="where models and rows are written, kept afterwards")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each run")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--compile", action="store_true", help="race ours compiled against ours as it is")
    other.add_argument("--other-threads", type=int, help="race ours with --threads against ours with so many")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="cases; all by default")
    given, sys.argv[1:] = parser.parse_known_args()
    chosen = [case for case in CASES if given.only is None or case.name in given.only]
    ours = Entrant("compiled" if given.compile else "winnow", given.threads)
    peer = Entrant("winnow" if given.compile or given.other_threads else "trl", given.other_threads or given.threads)
    goal = EVEN if peer.side == "winnow" else GOAL
    with TemporaryDirectory() as scratch:
        sys.exit(run(partial(measure, chosen, given.repeats, given.folder or Path(scratch), (ours, peer), goal)))
