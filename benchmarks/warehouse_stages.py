"""The stages of a pool's life on one folder of rows, each with its seconds and the peak memory of all its processes.

python -m benchmarks.warehouse_stages HOME FOLDER TEST prints one JSON object a stage, for `warehouse_scale.py`.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil

from flows import measure, sources
from flows.choose import Choice, Question, chosen_rows, exclude, select
from flows.clean import clean
from flows.describe import describe
from flows.meter import Meter, passes
from flows.recipes import Clean, Representation
from flows.run import Run, Silent
from flows.settings import be_quiet
from flows.sieve import Sieve
from flows.sources import Given
from flows.workers import RayWorkers
from selection.limits import Limits
from selection.table import build
from warehouse.export import export
from warehouse.pools import examples_of
from warehouse.sources import locate
from warehouse.tables import SELECTED_FILE

ROW_FILTERS = ("length", "turns", "empty_reply", "truncated_reply", "refusal", "boilerplate", "repetition",
               "code_fence", "mojibake", "pii")  # fmt: skip
EVERY_S = 0.25


class Peak:
    """The most memory that this process and all it started held at once: proportional set size, in bytes."""

    def __init__(self) -> None:
        self.bytes, self._end = 0, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        self._look()
        while not self._end.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        me, held = psutil.Process(), 0
        for process in [me, *me.children(recursive=True)]:
            try:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                held += 1024 * int(rollup.split("\nPss:")[1].split()[0])
            except (OSError, IndexError, psutil.Error):
                continue  # it ended meanwhile
        self.bytes = max(self.bytes, held)


@contextmanager
def stage(name: str, n: int) -> Iterator[None]:
    started = time.perf_counter()
    with Peak() as peak:
        yield
    seconds = time.perf_counter() - started
    print(json.dumps({"stage": name, "rows": n, "seconds": seconds, "bytes": peak.bytes}), flush=True)


def ready() -> bool:
    return True


def run_stages(home: Path, folder: Path, test: Path, budget_share: float = 0.02) -> None:
    """Ingest, count tokens, clean, choose and export the rows of `folder` in `home`."""
    with closing(RayWorkers(None, None)) as workers:
        workers.call(ready)  # Ray's start is no part of a stage
        run = Run.begin(home, Silent(), recipe="bench", command="run", recipe_text="")
        n = sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))
        tested = sources.ingest(run, "test", [Given(locate(str(test)))], workers)
        with stage("ingest", n):
            pool = sources.ingest(run, "bench", [Given(locate(str(folder)))], workers)
        sieve = Sieve(run, pool, {"test": tested}, workers)
        with stage("count tokens", n):
            describe(sieve, "winnow-tiny")
        filters = ["exact_duplicate", *ROW_FILTERS, "near_duplicate", "contamination"]
        entries = [Clean(name=name, action="flag" if name == "pii" else "drop") for name in filters]
        groups = {"exact duplicates": entries[:1], "row filters": entries[1:-2], "near-duplicates": entries[-2:-1],
                  "contamination": entries[-1:]}  # fmt: skip
        done: list[Clean] = []
        for name, group in groups.items():
            done += group
            with stage(name, n):  # the filters before it are in the cache
                cleaned = clean(sieve, done)
        with stage("candidates", n):
            question = Question(pool, None, exclude(sieve, cleaned))
        meter = Meter(Representation(model="winnow-tiny"))
        budget = max(1, int(n * budget_share))
        for name, params in (("length", {"unit": "characters"}), ("balanced_random", {})):
            with stage(f"select {name}", n):
                method = build(name, params, meter.fill)
                for together in passes(method.reads.values()):
                    measure.measure(run, "pool", meter, together, sources.read(pool), workers, question.rows())
                chosen = select(run, question, Choice(name, params, method, Limits(budget), 0))
        with stage("export", budget):
            columns = {
                name: values.tolist() for name, values in chosen_rows(chosen).items() if name in ("rank", "score")
            }
            export(examples_of(chosen.folder / SELECTED_FILE), home / "chosen.jsonl", "messages", columns=columns)


if __name__ == "__main__":
    be_quiet()
    home, rows, test = map(Path, sys.argv[1:4])
    run_stages(home, rows, test)
