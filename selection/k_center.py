"""`k_center`: rows that leave no row far from all of them (Gonzalez 1985, farthest first)."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from selection.answer import HIGHER, selection, summary
from selection.cosine import GRID
from selection.problem import Problem, Signal, Sliced, cores
from selection.survey import cosines_with, directions, survey
from selection.topk import best, ranked
from warehouse.records import Floats, Rows, Selection, Spec

FRONT_NUMBERS = 1 << 22  # numbers of float64 that the front may hold: 32 MB
FRONT_ROWS, FRONT_SHARE = 512, 128  # rows of the front: one in so many of the pool, at least so many
ROWS_AT_ONCE = 256  # rows that meet the same centres, those that the one behind most has not met
CENTRES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class KCenter:
    """Farthest first: each row is the one farthest from all rows before it, the first the one nearest the mean.

    representation  the signal to compare in: model, template, pooling and maximum length

    The radius, the largest distance of any row from its nearest chosen row, is at most twice the least possible.
    Scores are cosine distances, 1 - cosine, from the nearest row before; higher is better; the first row has none
    before it and scores 2, the largest there is. Rows of length 0 have no place and come last. Raises `InputError` for
    vectors that are not finite.
    """

    compares: ClassVar[bool] = False

    representation: Spec

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        found = survey(problem, "representation")
        placed = np.setdiff1d(np.arange(problem.n), found.zero, assume_unique=True)
        k = min(problem.budget, len(placed))
        centres, distances = np.zeros(0, np.int64), np.zeros(0)
        if k:
            start = nearest_to_mean(problem, "representation", found.total, placed)
            centres, cosines = farthest_first(problem, "representation", start, k + 1, found.zero)
            distances = np.maximum(1 - cosines, 0.0)  # 2 for the first
        others = found.zero[np.argsort(problem.keys[found.zero], kind="stable")][: problem.budget - k]
        rows = np.concatenate([centres[:k], others])
        scores = np.concatenate([distances[:k], np.zeros(len(others))])
        reasons = [f"distance={distance:.4g}" for distance in distances[:k]] + ["filled=no_direction"] * len(others)
        facts = {
            "radius": float(distances[k]) if len(distances) > k else 0.0,
            "filled": {"no_direction": len(others)},
            **summary(scores, HIGHER),
            "rows_of_length_0": len(found.zero),
        }
        return selection(rows, scores, reasons, HIGHER, **facts)


def nearest_to_mean(problem: Problem, signal: str, total: Floats, among: Rows) -> int:
    """The row of `among` whose cosine with the mean direction is largest; `total` (d,) is the sum of all directions."""
    mean = np.rint(total / problem.n)[None, :]  # its length is at most 1: on the grid, like a direction
    toward = cosines_with(problem, signal, mean)[among]
    return int(among[ranked(toward, problem.keys[among], 1)[0]])


def farthest_first(
    problem: Problem, signal: str, start: int, k: int, barred: Rows, front_rows: int | None = None
) -> tuple[Rows, Floats]:
    """At most k rows that are not `barred`: `start`, then always the one farthest from all before; ties by key, row.

    With each comes its largest cosine with a row before it (-1 for the start). Takes memory for n numbers and for the
    directions of `front_rows` and of the k rows.

    What is known of a row is its largest cosine with the centres it has met, so it is at least so near. Only the rows
    that may be farthest by this, the front, meet all centres; centres are taken from the front as long as no row
    outside can be farther. A row beside an early centre meets few others, and what meets does so in matrix products.
    All cosines are exact, so the rows are those of one pass over the pool per row.
    """
    known = _Known.of(problem, signal, start, barred)
    size = front_rows or _front_rows(problem.n, known.centres.shape[1])
    # threads of one core each: products this small lose more to a core that another process has than they gain
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(cores()) as threads:
        while len(known.rows) < k and np.isfinite(known.nearest).any():
            known.advance(threads, size, k)
    return np.array(known.rows, np.int64), np.array(known.cosines)


def _front_rows(n: int, d: int) -> int:
    return min(max(FRONT_ROWS, n // FRONT_SHARE), max(FRONT_NUMBERS // d, 1))


@dataclass(slots=True)
class _Known:
    """What is known of n rows, and the centres taken so far: `rows`, `cosines`, `centres` (at least so many, d).

    nearest  (n,) the largest cosine with the centres a row has met; infinite for a row that cannot be taken
    met      (n,) how many centres, from the first on, it has met
    """

    vectors: Signal | Sliced
    keys: NDArray[np.uint64]
    nearest: Floats
    met: Rows
    centres: Floats
    rows: list[int]
    cosines: list[float]

    @classmethod
    def of(cls, problem: Problem, signal: str, start: int, barred: Rows) -> "_Known":
        vectors = problem.candidates[signal]
        centre = directions(vectors, np.array([start]))
        nearest = cosines_with(problem, signal, centre)
        nearest[barred] = np.inf
        nearest[start] = np.inf
        return cls(vectors, problem.keys, nearest, np.ones(problem.n, np.int64), centre, [start], [-1.0])

    def advance(self, threads: ThreadPoolExecutor, size: int, k: int) -> None:
        """Take the next centres, as far as the `size` rows that may be farthest decide them, and at most k in all."""
        rows, bound = self._farthest(size)
        grid = self._meet_all(threads, rows)
        while len(self.rows) < k and len(rows):
            cosine = self.nearest[rows]
            at = int(cosine.argmin())
            if self._rank(rows[at]) > bound:
                return
            self._take(rows[at], grid[at])
            self._meet(rows, grid, slice(self.taken - 1, self.taken))
            self.met[rows] = self.taken
            self.nearest[rows[at]] = np.inf
            may = self.nearest[rows] <= bound[0]
            if may.mean() < 0.75:
                rows, grid = rows[may], grid[may]

    @property
    def taken(self) -> int:
        return len(self.rows)

    def _rank(self, row: np.int64) -> tuple[float, int, int]:
        return float(self.nearest[row]), int(self.keys[row]), int(row)

    def _farthest(self, size: int) -> tuple[Rows, tuple[float, int, int]]:
        """The rows that may be farthest, by key and row, and the rank of the last of them: none outside has a lower."""
        everyone = np.arange(len(self.keys))
        rows = best(-self.nearest, self.keys, everyone, min(size, len(everyone)))
        rows = rows[np.isfinite(self.nearest[rows])]
        rows = rows[np.lexsort((rows, self.keys[rows]))]
        return rows, self._rank(rows[np.lexsort((rows, self.keys[rows], self.nearest[rows]))[-1]])

    def _meet_all(self, threads: ThreadPoolExecutor, rows: Rows) -> Floats:
        """All centres meet `rows`, whose directions (b, d) are returned; those that have met as many go together."""
        grid = np.empty((len(rows), self.centres.shape[1]))
        behind = np.argsort(self.met[rows], kind="stable")

        def meet(part: Rows) -> None:
            own = directions(self.vectors, rows[part])
            for at in range(int(self.met[rows[part[0]]]), self.taken, CENTRES_AT_ONCE):
                self._meet(rows[part], own, slice(at, min(at + CENTRES_AT_ONCE, self.taken)))
            grid[part] = own

        for _ in threads.map(meet, [behind[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE)]):
            pass
        self.met[rows] = self.taken
        return grid

    def _meet(self, rows: Rows, grid: Floats, centres: slice) -> None:
        cosine = (grid @ self.centres[centres].T).max(axis=1) * GRID**-2
        self.nearest[rows] = np.maximum(self.nearest[rows], cosine)

    def _take(self, row: np.int64, centre: Floats) -> None:
        if self.taken == len(self.centres):
            self.centres = np.concatenate([self.centres, np.empty_like(self.centres)])
        self.centres[self.taken] = centre
        self.cosines.append(float(self.nearest[row]))
        self.rows.append(int(row))
