"""Two runs write and four readers ask one home while the writers are killed at random: what breaks.

python -m benchmarks.warehouse_chaos [--seconds 300] [--json]
Writers race over their own part of the pool, are killed with SIGKILL at random moments and started again; readers check
that whatever they see is whole: as many samples as the pool says, as many chosen rows as the selection says.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Event, Process, Queue
from pathlib import Path
from typing import Any

from benchmarks.frame import Row, run
from benchmarks.warehouse_rows import write_pool

READERS, WRITERS = 4, 2
QUESTIONS = {
    "pools": """SELECT p.pool, p.n, count(s.sample_id) AS seen FROM pools p LEFT JOIN samples s USING (pool)
                GROUP BY ALL HAVING seen <> p.n""",
    "selections": """SELECT s.selection, s.rows, count(c.rank) AS seen FROM selections s LEFT JOIN selected c
                     USING (selection) GROUP BY ALL HAVING seen <> s.rows""",
    "filters": """SELECT f.cleaning, sum(f.found) FILTER (f.action = 'drop') AS found,
                         (SELECT count(*) FROM drops d WHERE d.cleaning = f.cleaning) AS seen
                  FROM filters f GROUP BY f.cleaning HAVING found <> seen""",
    "artifacts": "SELECT stage, key FROM artifacts WHERE len(json_keys(files)) = 0",
    "stages": "SELECT run, name FROM stages WHERE key IS NULL",
}
RECIPE = """\
name: chaos-{writer}
data: {data}
pool:
  - path: rows
    skip: {skip}
    limit: 4000
target:
  - path: test.jsonl
    limit: 20
clean: [duplicate_id, exact_duplicate, length, near_duplicate, contamination]
methods: [random, lexical, {{name: length, unit: characters}}]
budgets: [{budget}]
seeds: [0, 1]
"""


def read(home: Path, answers: Any, stop: Any) -> None:
    """Ask in turn until told to stop: puts (question, seconds, fault)."""
    from warehouse.catalogue import query
    from warehouse.errors import InputError

    while not stop.is_set():
        for name, sql in QUESTIONS.items():
            started = time.perf_counter()
            try:
                wrong = query(home, sql).to_pylist()
                fault = f"{name}: {wrong[:2]}" if wrong else ""
            except (InputError, OSError, RuntimeError) as error:
                fault = f"{name}: {error}"
            answers.put((name, time.perf_counter() - started, fault))


def started(recipe: Path, home: Path) -> subprocess.Popen[str]:
    driver = Path(__file__).parents[1] / "tests" / "flows" / "crash_run.py"
    words = [sys.executable, str(driver), str(recipe), str(home)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(home: Path) -> set[tuple[str, str]]:
    import pyarrow.parquet as pq

    files = [path for path in home.glob("runs/*/stage-*.parquet") if path.parent.name != "empty"]
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    return {(row["stage"], row["key"]) for row in rows if row["stage"] != "measure"}  # a signal is measured row by row


def measure(seconds: float) -> Iterator[Row]:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        data, home = Path(scratch), Path(scratch) / "home"
        write_pool(data / "rows", 20_000)
        counts: Counter[str] = Counter()
        faults: list[str] = []
        answers, stop = Queue(), Event()
        readers: list[Process] = []
        writers: dict[int, subprocess.Popen[str]] = {}
        kills: dict[int, float] = {}
        known: dict[int, set[tuple[str, str]]] = {}
        turn = dict.fromkeys(range(WRITERS), 0)
        end = time.monotonic() + seconds
        while time.monotonic() < end or writers:
            for writer in range(WRITERS):
                going = writers.get(writer)
                if going is None and time.monotonic() < end:
                    recipe = data / f"chaos-{writer}.yaml"
                    facts = {"skip": 4000 * (turn[writer] % 4) + 1000 * writer, "budget": 100 + turn[writer] % 7}
                    recipe.write_text(RECIPE.format(writer=writer, data=data, **facts))
                    known[writer] = finished(home) if home.exists() else set()
                    writers[writer] = started(recipe, home)
                    kills[writer] = time.monotonic() + (rng.uniform(1, 12) if rng.random() < 0.7 else 1e9)
                    counts["started"] += 1
                elif going is not None and going.poll() is not None:
                    out, err = going.communicate()
                    del writers[writer]
                    if going.returncode == 0:
                        counts["finished"] += 1
                        turn[writer] += 1
                        again = [s for s in json.loads(out.splitlines()[-1])["stages"] if s["computed"]]
                        lost = [s["name"] for s in again if any(key == s["key"] for _, key in known[writer])]
                        faults += [f"lost stage {name}" for name in lost]
                        counts["computed"] += len(again)
                    elif going.returncode == -signal.SIGKILL:
                        counts["killed"] += 1
                    else:
                        faults.append(err[-300:])
                elif going is not None and time.monotonic() > kills[writer]:
                    going.send_signal(signal.SIGKILL)
            if not readers and (home / "winnow.duckdb").exists():
                readers = [Process(target=read, args=(home, answers, stop)) for _ in range(READERS)]
                for reader in readers:
                    reader.start()
            time.sleep(0.05)
        stop.set()
        asked: list[tuple[str, float, str]] = []
        while any(reader.is_alive() for reader in readers) or not answers.empty():
            while not answers.empty():
                asked.append(answers.get())
            time.sleep(0.05)
        slow = sorted(seconds for _, seconds, _ in asked)
        wrong = [fault for _, _, fault in asked if fault]
        for fault in [*faults, *wrong][:5]:
            print(fault, file=sys.stderr)
    runs = f"runs started: {counts['started']}, killed: {counts['killed']}, finished"
    yield Row(runs, counts["finished"], "", 1, more_is_better=True)
    yield Row(f"writers: faults and lost stages, of {counts['computed']} stages computed", len(faults), "", 0)
    yield Row(f"readers: errors and partial answers, of {len(asked):,}", len(wrong), "", 0)
    yield Row("readers: median answer", slow[len(slow) // 2] * 1e3, "ms", 2000)
    yield Row("readers: 95th percentile", slow[int(len(slow) * 0.95)] * 1e3, "ms", 10000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seconds", type=float, default=300)
    given, sys.argv[1:] = parser.parse_known_args()
    raise SystemExit(run(lambda: measure(given.seconds)))
