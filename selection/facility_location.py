"""`facility_location` and `facility_location_targets`: rows that together cover the pool, or the targets.

f(S) = Σ_v max over s in S of sim(v, s), with sim = max(cos, 0), is monotone and has diminishing returns, so the greedy
choice reaches at least 1 - 1/e of the best value there is for as many rows (Nemhauser, Wolsey and Fisher 1978).
What is covered counts the rows nearest to it only, all other similarities are taken for 0: the graph is sparse.
Similarities are rounded to multiples of 2⁻³⁰: sums of up to 2²² of them are exact, so a gain that was found earlier is
an upper bound of the gain now to the last bit, and the lazy choice (Minoux 1978) is the greedy one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from selection.answer import HIGHER, selection
from selection.problem import Problem
from selection.survey import directions, survey
from selection.targets import nearest, targets_of, told
from selection.topk import Lists, best, top_lists
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

UNIT = 2.0**30  # similarities are whole numbers of 1 / UNIT
LISTS_AT_ONCE = 512
FRONT_ROWS = 512


@dataclass(frozen=True, slots=True)
class FacilityLocation:
    """Rows that cover the pool: each adds most to the sum over all rows of the similarity with the nearest chosen one.

    representation  the signal to compare in: model, template, pooling and maximum length
    neighbours      a row counts as covered only by itself and this many rows nearest to it; all other similarities
                    are taken for 0

    When nothing is gained any more, covering begins anew with the rows that are left: the next round. Scores are gains;
    higher is better. Rows that cover nothing, those of length 0, come last by key. Raises `InputError` for vectors that
    are not finite.
    """

    compares: ClassVar[bool] = False

    representation: Spec
    neighbours: int = 20

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours is {self.neighbours}; give at least 1")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        zero = survey(problem, "representation").zero
        graph = neighbour_graph(problem, "representation", self.neighbours)
        found = greedy_cover(graph, problem.keys, problem.budget)
        facts = {"neighbours": self.neighbours, "pairs": int(graph.nnz), "rows_of_length_0": len(zero)}
        return _answer(found, [""] * len(found.rows), problem.n, facts)


@dataclass(frozen=True, slots=True)
class FacilityLocationTargets(FacilityLocation):
    """Rows that cover the targets: each adds most to the sum over targets of similarity with the nearest row chosen.

    representation  the signal to compare in: model, template, pooling and maximum length
    neighbours      a target counts as covered only by this many rows nearest to it; all other similarities are taken
                    for 0

    When nothing is gained any more, because each target has its nearest row, covering begins anew with the rows that
    are left: the next round. Scores are gains; higher is better. The reason names the nearest target. Rows that cover
    nothing come last by key. Raises `InputError` without targets and for vectors that are not finite.
    """

    compares: ClassVar[bool] = True

    neighbours: int = 1000

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = targets_of(problem, "representation")
        zero = survey(problem, "representation").zero
        graph = target_graph(problem, "representation", np.asarray(targets.values), self.neighbours)
        found = greedy_cover(graph, problem.keys, problem.budget)
        whose = [f"{target} " for target in told(targets, nearest(problem, targets, found.rows))]
        facts = {"neighbours": self.neighbours, "targets": targets.m, "rows_of_length_0": len(zero)}
        return _answer(found, whose, targets.m, facts)


@dataclass(frozen=True, slots=True)
class Cover:
    """Rows (k,) in the order of the greedy choice, the gain (k,) of each in whole numbers of 1 / UNIT and its round.

    Rounds count from 1; 0 is the round of a row that covers nothing.
    """

    rows: Rows
    gains: Floats
    rounds: Rows


def greedy_cover(graph: csr_matrix, keys: NDArray[np.uint64], k: int, front_rows: int = FRONT_ROWS) -> Cover:
    """The k rows of the greedy choice of rows to cover m things, `graph` (n, m) the similarities; ties by key, row.

    When no row has a gain, all counts as uncovered again, for the rows that are left; rows without a gain by themselves
    come after all others. Only rows whose gain when last looked at is among the highest, the front, are looked at, and
    rows are chosen from it as long as none outside can gain more. A front that decides nothing is doubled.
    """
    alone = gains(graph, np.zeros(graph.shape[1]))
    some = np.flatnonzero(alone > 0)
    state = _Choice(graph[some], keys[some], alone[some], np.zeros(graph.shape[1]), [], [], [])
    number, size = 1, front_rows
    while len(state.rows) < min(k, len(some)):
        before = len(state.rows)
        if state.upper.max() > 0:
            state.advance(size, k, number)
        else:
            state.begin_anew(alone[some])
            number += 1
        size = front_rows if len(state.rows) > before else 2 * size
    others = np.flatnonzero(alone == 0)
    others = others[np.argsort(keys[others], kind="stable")][: k - len(state.rows)]
    nothing = np.zeros(len(others))
    return Cover(
        np.concatenate([some[np.array(state.rows, np.int64)], others]),
        np.concatenate([np.array(state.gains, np.float64), nothing]),
        np.concatenate([np.array(state.rounds, np.int64), nothing.astype(np.int64)]),
    )


def gains(graph: csr_matrix, covered: Floats) -> Floats:
    """(b,) what each row of `graph` (b, m) adds to what is `covered` (m,) already: Σ max(sim - covered, 0)."""
    row_of = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    more = np.maximum(graph.data - covered[graph.indices], 0.0)
    return np.bincount(row_of, more, graph.shape[0]).astype(np.float64)


def cover(graph: csr_matrix, row: int, covered: Floats) -> None:
    """Change what is `covered` (m,) to what is covered with `row` of `graph` too."""
    entries = slice(graph.indptr[row], graph.indptr[row + 1])
    those = graph.indices[entries]
    covered[those] = np.maximum(covered[those], graph.data[entries])


def target_graph(problem: Problem, signal: str, values: Floats, neighbours: int) -> csr_matrix:
    """(n, m): in column v the similarities of the rows nearest to target v, `values` (m, d) on the grid."""
    m, k = len(values), min(neighbours, problem.n)
    slabs = [values[at : at + LISTS_AT_ONCE] for at in range(0, m, LISTS_AT_ONCE)]
    tops = [top_lists(problem, Lists(signal, slab, np.arange(len(slab))), k) for slab in slabs]
    similar = _rounded(np.concatenate([top.scores for top in tops]))
    some = similar > 0
    rows, targets = np.concatenate([top.rows for top in tops])[some], np.nonzero(some)[0]
    return csr_matrix((similar[some], (rows, targets)), shape=(problem.n, m))


def neighbour_graph(problem: Problem, signal: str, neighbours: int) -> csr_matrix:
    """(n, n): in row s the similarities of the rows that have s among their nearest `neighbours`, and its own.

    Exact; takes n² · d operations.
    """
    n, k = problem.n, min(neighbours + 1, problem.n)
    parts = [_neighbours(problem, signal, at, min(at + LISTS_AT_ONCE, n), k) for at in range(0, n, LISTS_AT_ONCE)]
    covered, by, values = (np.concatenate(side) for side in zip(*parts, strict=True))
    return csr_matrix((values, (by, covered)), shape=(n, n))


def _neighbours(problem: Problem, signal: str, start: int, stop: int, k: int) -> tuple[Rows, Rows, Floats]:
    """Rows `start` to `stop`, each with itself and the k - 1 others nearest to it: pairs that are at all similar."""
    own = np.arange(start, stop)
    grid = directions(problem.candidates[signal], own)
    top = top_lists(problem, Lists(signal, grid, np.arange(stop - start)), k)
    itself = np.square(grid).sum(axis=1) / 2.0**52
    others = top.rows != own[:, None]
    others &= np.cumsum(others, axis=1) < k
    covered = np.concatenate([np.repeat(own, others.sum(axis=1)), own])
    by = np.concatenate([top.rows[others], own])
    values = _rounded(np.concatenate([top.scores[others], itself]))
    some = values > 0
    return covered[some], by[some], values[some]


def _rounded(cosine: Floats) -> Floats:
    return np.rint(np.maximum(cosine, 0.0) * UNIT)


@dataclass(slots=True)
class _Choice:
    """The rows chosen so far, what is `covered` (m,), and `upper` (n,) bounds of gains, -infinite for the chosen."""

    graph: csr_matrix
    keys: NDArray[np.uint64]
    upper: Floats
    covered: Floats
    rows: list[int]
    gains: list[float]
    rounds: list[int]

    @property
    def left(self) -> Rows:
        return np.flatnonzero(np.isfinite(self.upper))

    def begin_anew(self, alone: Floats) -> None:
        self.covered[:] = 0
        self.upper = np.where(np.isfinite(self.upper), alone, -np.inf)

    def advance(self, size: int, k: int, number: int) -> None:
        """Choose rows as far as the `size` rows that may gain most decide them, at most k in all, with gains only."""
        rows, bound = self._front(size)
        graph = self.graph[rows]
        self.upper[rows] = gains(graph, self.covered)
        while len(self.rows) < k and len(rows):
            at = int(self.upper[rows].argmax())
            if self.upper[rows[at]] <= 0 or self._rank(rows[at]) > bound:
                return
            self.rows.append(int(rows[at]))
            self.gains.append(float(self.upper[rows[at]]))
            self.rounds.append(number)
            cover(graph, at, self.covered)
            self.upper[rows[at]] = -np.inf
            self.upper[rows] = np.minimum(self.upper[rows], gains(graph, self.covered))
            may = self.upper[rows] >= -bound[0]
            if may.mean() < 0.75:
                rows, graph = rows[may], graph[may]

    def _rank(self, row: np.int64) -> tuple[float, int, int]:
        return -float(self.upper[row]), int(self.keys[row]), int(row)

    def _front(self, size: int) -> tuple[Rows, tuple[float, int, int]]:
        """The rows that may gain most, by key and row, and the rank of the last of them: none outside has a lower."""
        left = self.left
        rows = left[best(self.upper[left], self.keys[left], left, min(size, len(left)))]
        rows = rows[np.lexsort((rows, self.keys[rows]))]
        return rows, self._rank(rows[np.lexsort((rows, self.keys[rows], -self.upper[rows]))[-1]])


def _answer(chosen: Cover, whose: list[str], m: int, facts: Mapping[str, Any]) -> Selection:
    found = chosen.gains / UNIT
    first = chosen.rounds == 1
    reasons = [
        f"{target}gain={gain:.4g} round={number}" if number else f"{target}filled=no_gain"
        for target, gain, number in zip(whose, found.tolist(), chosen.rounds.tolist(), strict=True)
    ]
    return selection(
        chosen.rows,
        found,
        reasons,
        HIGHER,
        covered=float(found[first].sum() / m),
        rounds=int(chosen.rounds.max()),
        chosen_in_round_1=int(first.sum()),
        filled={"no_gain": int((chosen.rounds == 0).sum())},
        mean_score=float(np.sort(found).mean()),
        cut_off=float(found.min()),
        **facts,
    )
