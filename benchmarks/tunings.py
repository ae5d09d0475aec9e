"""Every entry of the table of tunings on winnow-tiny: what it learns, what it forgets, what it costs. A Markdown table.

    OMP_NUM_THREADS=1 python -m benchmarks.tunings --folder FOLDER [--only lora hft] [--seeds 3] [--workers 2]

The base is winnow-tiny tuned on the other skills of the world, so that there is something to forget; each entry then
learns the target skills from it. The learning rate is the best of one grid, the same for all entries, by the loss on
validation problems that are in no other part. Results are lines of FOLDER/results.jsonl: the same command again goes on
where it stopped, and `--only` and `--seeds` may differ between calls. docs/training_measured.md holds what it printed
once.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.training_cases import TINY, write
from benchmarks.training_side import held_out_loss, memory
from eval.assess import assess
from eval.compare import average, compare
from eval.tasks import ExactMatch
from synthesis.skills import SKILLS
from synthesis.world import World
from warehouse.errors import InputError
from warehouse.records import Dataset, Example

TARGETS = ("units", "sorting")
OTHERS = tuple(name for name in SKILLS if name not in TARGETS)
RATES = (3e-4, 2e-3, 1e-2)
GRID_SEED = 100  # draws rows that no counted seed draws
BASE_RATE, EPOCHS = 1e-3, 3.0
TESTED, TESTED_OTHERS, VALIDATED = 200, 260, 100
MAX_TOKENS = 24
BASE, GRID, RUN = "base", "grid", "run"
RESULTS = "results.jsonl"
MIB = 2**20
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One training run and its evaluation: `stage` says whether for the grid of rates or for the table."""

    stage: str
    entry: str
    rate: float
    seed: int
    rows: int

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.stage, self.entry, self.rate, self.seed, self.rows)))


def clean(skills: Sequence[str], seed: int, n: int) -> list[Example]:
    """Right rows of the pool split."""
    return list(World(n, "pool", skills, sources={"clean": 1.0}).examples(seed, 0, n))


def held_out(split: str, skills: Sequence[str], n: int) -> list[Example]:
    return list(World(n, split, skills).examples(0, 0, n))  # type: ignore[arg-type]


def done(folder: Path) -> dict[Job, Found]:
    """The finished jobs of the folder."""
    path = folder / RESULTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {Job(**line["job"]): line for line in map(json.loads, lines)}


def carry_out(folder: Path, base: str, jobs: Sequence[Job], workers: int) -> dict[Job, Found]:
    """The results of `jobs`, those done before taken from the folder. Each runs in a forked process of its own, which
    has the libraries loaded already and a peak of memory that is its own."""
    known = done(folder)
    todo = [(folder, base, job) for job in jobs if job not in known]
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        for found in pool.imap_unordered(attempt, todo, chunksize=1):
            with (folder / RESULTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(f"{Job(**found['job']).name}: {found['wall']:.0f} s", file=sys.stderr, flush=True)
    known = done(folder)
    return {job: known[job] for job in jobs}


def attempt(task: tuple[Path, str, Job]) -> Found:
    """Carry one job out; a tuning that refuses or whose loss stops being a number is a result too."""
    folder, base, job = task
    start = time.perf_counter()
    out = folder / job.name
    shutil.rmtree(out, ignore_errors=True)  # of a job that was stopped
    try:
        found = carried(folder, base, job, out)
    except InputError as error:
        found = {"refused": str(error)}
    if job.stage != BASE:
        shutil.rmtree(out, ignore_errors=True)
    return {"job": asdict(job), "wall": time.perf_counter() - start} | found


def carried(folder: Path, base: str, job: Job, out: Path) -> Found:
    skills = OTHERS if job.stage == BASE else TARGETS
    out.mkdir(parents=True)
    write(path := out / "rows.parquet", (row.messages for row in clean(skills, job.seed, job.rows)))
    found = trained(base, job, path, out)
    if job.stage == GRID:
        write(path, (row.messages for row in held_out("validation", TARGETS, VALIDATED)))
        return found | {"validation": held_out_loss(out, path, base)}
    tested = [*held_out("test", TARGETS, TESTED), *held_out("test", OTHERS, TESTED_OTHERS)]
    table = items(out, base, tested)
    pq.write_table(table, folder / f"{job.name}.parquet")
    return found


def trained(base: str, job: Job, path: Path, out: Path) -> Found:
    """Train, and say what it took. `added` is the peak of resident memory above that before the run, in bytes."""
    from training.record import FACTS
    from training.sft import tiny

    resident, start = memory("VmRSS"), time.perf_counter()
    sft = tiny(tuning=job.entry, learning_rate=job.rate, epochs=EPOCHS, group_by_length=False)
    sft(base, Dataset(path, job.name), out, job.seed)
    spent, peak = time.perf_counter() - start, memory("VmHWM")
    facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
    speed = {"tokens_per_second": facts["tokens"] / facts["seconds"], "besides": spent - facts["seconds"]}
    told = {name: facts[name] for name in ("trainable_parameters", "written", "reload_difference", "steps")}
    return speed | told | {"added": peak - resident}


def items(out: Path, base: str, tested: Sequence[Example]) -> pa.Table:
    """What the tuned model answers to each test problem, and the loss of the gold answers."""
    from models.local import load_checkpoint
    from warehouse.records import Checkpoint, Spec

    model = load_checkpoint(Checkpoint(out, base, Spec("sft", {}), "", 0), dtype="float32")
    task = ExactMatch(tuple(tested), max_tokens=MAX_TOKENS)
    return assess(task, model, "", np.random.default_rng(0)).table()


def best_rates(grid: Mapping[Job, Found]) -> dict[str, float]:
    """Of each entry the rate with the least validation loss; entries that refuse every rate are left out."""
    losses: dict[str, dict[float, float]] = {}
    for job, found in grid.items():
        if np.isfinite(found.get("validation", np.nan)):
            losses.setdefault(job.entry, {})[job.rate] = found["validation"]
    return {entry: min(found, key=found.__getitem__) for entry, found in losses.items()}


HEADER = (
    "tuning", "rate", "trained", "tokens/s", "besides, s", "memory, MiB", "exact match", "NLL",
    "others: exact match", "others: NLL", "written", "reload difference",
)  # fmt: skip


def lines(
    base: pa.Table, folder: Path, runs: Mapping[Job, Found], refused: Mapping[str, str]
) -> Iterator[Sequence[object]]:
    """The rows of the table: the base, then each entry over its seeds, then those that refused."""
    yield ["the base", *["-"] * 5, *scores({0: chosen(base, TARGETS)}), *scores({0: chosen(base, OTHERS)}), "-", "-"]
    for entry in dict.fromkeys(job.entry for job in runs):
        mine = {job: found for job, found in runs.items() if job.entry == entry and "refused" not in found}
        if mine:
            yield line(folder, base, entry, mine)
    for entry, why in refused.items():
        yield [f"`{entry}`", f"refused: {why}", *["-"] * (len(HEADER) - 2)]


def line(folder: Path, base: pa.Table, entry: str, runs: Mapping[Job, Found]) -> Sequence[object]:
    [rate] = {job.rate for job in runs}
    tables = {job.seed: pq.read_table(folder / f"{job.name}.parquet") for job in runs}
    others = {seed: chosen(table, OTHERS) for seed, table in tables.items()}
    before = dict.fromkeys(others, chosen(base, OTHERS))
    changes = [compare(others, before, name, np.random.default_rng(0)).difference for name in ("exact_match", "nll")]
    first = next(iter(runs.values()))
    return [
        f"`{entry}`",
        f"{rate:g}{' (edge)' if rate in (min(RATES), max(RATES)) else ''}",
        f"{first['trainable_parameters']:,}",
        spread([found["tokens_per_second"] for found in runs.values()], 0),
        spread([found["besides"] for found in runs.values()], 1),
        spread([found["added"] / MIB for found in runs.values()], 0),
        *scores({seed: chosen(table, TARGETS) for seed, table in tables.items()}),
        *(f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]" for change in changes),
        first["written"],
        "-" if first["written"] == "weights" else f"{max(found['reload_difference'] for found in runs.values()):.1e}",
    ]


def scores(tables: Mapping[int, pa.Table]) -> list[str]:
    """Exact match and loss over all seeds, with their intervals over seeds and items."""
    found = (average(tables, name, np.random.default_rng(0)) for name in ("exact_match", "nll"))
    return [f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in found]


def chosen(table: pa.Table, skills: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["group"], pa.array(skills)))


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and between which values all lie."""
    low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return f"{middle:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def study(folder: Path, entries: Sequence[str], seeds: int, rows: int, base_rows: int, workers: int) -> str:
    first = Job(BASE, "full", BASE_RATE, 0, base_rows)
    carry_out(folder, TINY, [first], 1)
    base = str(folder / first.name)
    tried = [Job(GRID, one, rate, GRID_SEED, rows) for one in entries for rate in RATES]
    grid = carry_out(folder, base, tried, workers)
    rates = best_rates(grid)
    wanted = [Job(RUN, one, rate, seed, rows) for one, rate in rates.items() for seed in range(seeds)]
    refused = {job.entry: found["refused"] for job, found in grid.items() if job.entry not in rates}
    runs = carry_out(folder, base, wanted, workers)
    before = pq.read_table(folder / f"{first.name}.parquet")
    table = [HEADER, ["---"] * len(HEADER), *lines(before, folder, runs, refused)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in table)


def main() -> None:
    from training.tuning.table import TUNINGS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder, or one of an earlier run")
    parser.add_argument("--only", nargs="+", choices=TUNINGS, default=list(TUNINGS), help="entries; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400, help="rows that each run learns from, 3 times")
    parser.add_argument("--base-rows", type=int, default=2_600, help="rows of other skills that the base knows")
    parser.add_argument("--workers", type=int, default=1, help="runs at once; give each core one")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for module in ("training.loop", "peft"):
        importlib.import_module(module)  # each forked run would load it again
    print(study(given.folder.resolve(), given.only, given.seeds, given.rows, given.base_rows, given.workers))


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    main()
