"""What every benchmark shares: a row that knows whether its goal is met, a timer, a table, `--json`, an exit status.

A benchmark is a script with a generator of rows: `python benchmarks/bench_selection.py [--json]`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

S = TypeVar("S")
T = TypeVar("T")
COLUMNS = ("work", "ours", "peer", "unit", "ratio", "goal", "met")
WORDS = [
    "which", "rows", "would", "teach", "a", "small", "model", "how", "people", "ask", "for", "numbers", "and", "code",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: `ours` in `unit`, beside a `peer`'s where there is one.

    With a peer, `ratio` says how many times better ours is and `goal` is the least ratio that will do; without one,
    `goal` is the worst value that will do, in `unit`. Less is better unless `more_is_better`.
    """

    work: str
    ours: float
    unit: str
    goal: float
    peer: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        if self.peer is None:
            return None
        return self.ours / self.peer if self.more_is_better else self.peer / self.ours

    @property
    def met(self) -> bool:
        if self.ratio is not None:
            return self.ratio >= self.goal
        return self.ours >= self.goal if self.more_is_better else self.ours <= self.goal

    def values(self) -> dict[str, object]:
        """The row under the names of `COLUMNS`, as `--json` prints it."""
        return {column: getattr(self, column) for column in COLUMNS}


def generated(words: int, rng: np.random.Generator) -> str:
    """A text of so many words."""
    return " ".join(rng.choice(WORDS, words))


def best_of(k: int, work: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> tuple[float, T]:
    """Seconds of the fastest of k runs, the one least disturbed by other processes, and what the last one returned."""
    seconds = []
    for _ in range(k):
        start = clock()
        result = work()
        seconds.append(clock() - start)
    return min(seconds), result


def race(k: int, ours: Callable[[], T], peer: Callable[[], S]) -> tuple[float, T, float, S]:
    """`best_of` k for both, run in turns so that whatever else the machine does slows both alike."""
    rounds = [(best_of(1, ours), best_of(1, peer)) for _ in range(k)]
    mine, theirs = zip(*rounds, strict=True)
    return min(seconds for seconds, _ in mine), mine[-1][1], min(seconds for seconds, _ in theirs), theirs[-1][1]


def run(measure: Callable[[], Iterable[Row]]) -> int:
    """Prints each row as it is measured, one JSON object a line with `--json`; 1 where a goal is missed, else 0."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    as_json = parser.parse_args().json
    show = _show_json if as_json else _show_line
    if not as_json:
        print(f"{'work':<64}{'ours':>10}{'peer':>10} {'unit':<8}{'ratio':>8}{'goal':>8}  met")
    missed = 0
    for row in measure():
        show(row)
        missed += not row.met
    return int(missed > 0)


def _show_json(row: Row) -> None:
    print(json.dumps(row.values()), flush=True)


def _show_line(row: Row) -> None:
    peer, ratio = _number(row.peer), _number(row.ratio)
    met = "yes" if row.met else "NO"
    print(
        f"{row.work:<64}{_number(row.ours):>10}{peer:>10} {row.unit:<8}{ratio:>8}{_number(row.goal):>8}  {met}",
        flush=True,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
