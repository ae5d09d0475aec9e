"""`dsir`: importance resampling by hashed n-grams (Xie, Santurkar, Ma and Liang 2023, arXiv 2302.03169)."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import add
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from selection.answer import HIGHER, selection
from selection.by_turns import start_depth
from selection.gumbel import gumbel
from selection.histogram import histogram
from selection.ngrams import DIMS, Hashing, check_hashing, spec, words_in
from selection.problem import Block, Problem
from selection.round_robin import Turns, retry
from selection.targets import target_signal
from selection.topk import ranked
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

SIGNAL = "ngrams"
SMALL = 1e-8  # added to every probability before its logarithm, as in the released code


@dataclass(frozen=True, slots=True)
class Dsir:
    """Rows drawn without replacement in proportion to p(row) / q(row), bags of n-grams of the targets and of the pool.

    dims         buckets that words and pairs of words are hashed into
    hashing      `fast`, or `sha256`: the words and the hash of the released code, many times slower
    temperature  of the draw: 1 is the paper's, 0 takes the rows of the largest weights
    min_words    rows of fewer words come after all others (the released code: 100)

    A word that no target has costs a row up to 18 nats, so few targets make for short rows: `unseen` in diagnostics is
    the share of the pool's n-grams that are like that. With several tasks each has a p of its own and draws in turn, so
    that tasks get equal shares. Scores are log p(row) - log q(row) in nats, without the noise of the draw; higher is
    better. Raises `InputError` where a task's targets hold no word, and for counts that are not finite.
    """

    compares: ClassVar[bool] = True

    dims: int = DIMS
    hashing: Hashing = "fast"
    temperature: float = 1.0
    min_words: int = 1

    def __post_init__(self) -> None:
        check_hashing(self.dims, self.hashing)
        if not 0 <= self.temperature < np.inf:
            raise InputError(f"the temperature is {self.temperature}; give 0 for no noise, or a number above it")
        if self.min_words < 1:
            raise InputError(f"min_words is {self.min_words}; give at least 1: a row without words has no weight")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {SIGNAL: spec(self.dims, self.hashing)}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        tasks, names, per_task = _targets(problem)
        pool = _seen(problem)
        ratios = np.stack([log_ratio(counts, pool.totals) for counts in per_task])
        weights = np.concatenate(problem.reduce(_Weights(ratios), add), axis=1)
        noise = self.temperature * gumbel(problem, rng, len(tasks)) if self.temperature else np.zeros((1, 1))
        words = words_in(pool.sums)
        long = np.flatnonzero(words >= self.min_words)
        drawn, turns = _draw((weights + noise)[:, long], problem.keys[long], min(problem.budget, len(long)))
        best, short = weights.max(axis=0), np.flatnonzero(words < self.min_words)
        filled = short[np.lexsort((problem.keys[short], -best[short]))][: problem.budget - len(drawn)]
        rows = np.concatenate([long[drawn], filled])
        chosen = np.concatenate([weights[turns.lists, long[drawn]], best[filled]])
        reasons = [
            f"task={names[task]} round={turn} words={count}"
            for task, turn, count in zip(turns.lists, turns.rounds, words[long[drawn]].tolist(), strict=True)
        ] + [f"filled=short words={count}" for count in words[filled].tolist()]
        taken = np.bincount(turns.lists, minlength=len(tasks))
        facts = {
            "temperature": self.temperature,
            "picks_per_task": {name: int(count) for name, count in zip(names, taken, strict=True)},
            "filled": {"short": len(filled)},
            "short_rows": len(short),
            "mean_score": float(chosen.mean()),
            "cut_off": float(chosen[: len(drawn)].min()) if len(drawn) else None,
            "unseen": float(np.mean([1 - shares(pool.totals)[each > 0].sum() for each in per_task])),
            "kl_reduction": _kl_reduction(problem, rows, per_task, pool.totals),
            "pool_scores": histogram(best),
        }
        return selection(rows, chosen, reasons, HIGHER, **facts)


def log_ratio(target: NDArray[Any], pool: NDArray[Any]) -> Floats:
    """(d,) log p - log q in nats, from the counts (d,) of the targets and of the pool.

    For p = (.8, .2) and q = (.5, .5) a row of counts (3, 1) weighs 3 ln 1.6 + ln 0.4 = 0.4937.
    """
    return np.asarray(np.log(shares(target) + SMALL) - np.log(shares(pool) + SMALL))


def log_weights(counts: csr_matrix, ratios: Floats) -> Floats:
    """(t, b) log importance weights of rows with `counts` (b, d) under `ratios` (t, d).

    Each is summed in the order of the row's columns, so that it is a function of the row alone.
    """
    exact = counts.astype(np.float64)
    exact.sum_duplicates()
    return np.ascontiguousarray(np.asarray(exact @ ratios.T).T)


def shares(counts: NDArray[Any]) -> Floats:
    """`counts` (d,) over their sum; all 0 where they are."""
    return np.asarray(counts / max(counts.sum(), 1))


def divergence(p: Floats, q: Floats) -> float:
    """Kullback-Leibler divergence of `q` from `p`, both (d,), in nats."""
    return float((p * (np.log(p + SMALL) - np.log(q + SMALL))).sum())


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of some rows: `totals` (d,) counts over all, `parts` the sum of each row, and how many are not finite."""

    totals: Floats
    parts: list[NDArray[np.int64]]
    broken: int
    first_broken: int

    @property
    def sums(self) -> NDArray[np.int64]:
        """(n,)"""
        return np.concatenate(self.parts)

    def plus(self, other: "_Seen") -> "_Seen":
        first = self.first_broken if self.broken else other.first_broken
        return _Seen(self.totals + other.totals, self.parts + other.parts, self.broken + other.broken, first)


def _see(block: Block) -> _Seen:
    counts = csr_matrix(block.signals[SIGNAL])
    row_of = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    broken = np.unique(row_of[~np.isfinite(counts.data)])
    if len(broken):
        return _Seen(np.zeros(counts.shape[1]), [], len(broken), int(broken[0]) + block.start)
    # whole numbers below 2⁵³: their sums are exact in any order
    totals = np.bincount(counts.indices, counts.data, counts.shape[1]).astype(np.float64)
    return _Seen(totals, [np.bincount(row_of, counts.data, counts.shape[0]).astype(np.int64)], 0, -1)


def _seen(problem: Problem) -> _Seen:
    seen = problem.reduce(_see, _Seen.plus)
    if seen.broken:
        raise InputError(
            f"{seen.broken} of {problem.n} rows have counts of n-grams that are NaN or infinite, "
            f"the first is row {seen.first_broken}: measure them again"
        )
    return seen


@dataclass(frozen=True, slots=True)
class _Weights:
    """What `Problem.reduce` runs per block: (t, b) log importance weights."""

    ratios: Floats

    def __call__(self, block: Block) -> list[Floats]:
        return [log_weights(csr_matrix(block.signals[SIGNAL]), self.ratios)]


def _targets(problem: Problem) -> tuple[Rows, list[str], list[Floats]]:
    """The tasks ascending, their names without spaces, and the counts (d,) of each one's targets."""
    counts = target_signal(problem, SIGNAL)
    if not np.isfinite(csr_matrix(counts).data).all():
        raise InputError("some targets have counts of n-grams that are NaN or infinite: measure them again")
    tasks = np.unique(problem.target_task)
    names = ["_".join((problem.task_names[task] if problem.task_names else str(task)).split()) for task in tasks]
    per_task = [np.asarray(csr_matrix(counts)[problem.target_task == task].sum(axis=0)).ravel() for task in tasks]
    if empty := [name for name, each in zip(names, per_task, strict=True) if not each.any()]:
        raise InputError(f"the targets of {', '.join(empty)} hold no word: leave out empty ones")
    return tasks, names, [each.astype(np.float64) for each in per_task]


def _draw(scores: Floats, keys: NDArray[np.uint64], n: int) -> tuple[Rows, Turns]:
    """The first n columns of `scores` (t, e) that the tasks take in turn, each its largest that is left."""
    nothing = np.zeros(0, np.int64)
    if n == 0:
        return nothing, Turns(nothing, nothing, nothing, 0)
    depth = start_depth(n, len(scores))
    while True:
        lists = np.stack([ranked(line, keys, depth) for line in scores])
        turns = retry(lists, n)
        if turns is not None:
            return lists[turns.lists, turns.places], turns
        depth = min(2 * depth, n)


def _kl_reduction(problem: Problem, rows: Rows, per_task: list[Floats], pool: Floats) -> float:
    """How many nats nearer the chosen rows are to the targets than the pool is, by n-grams; the mean over tasks."""
    chosen = np.asarray(csr_matrix(problem.candidates[SIGNAL][np.sort(rows)]).sum(axis=0, dtype=np.float64)).ravel()
    before, after = shares(pool), shares(chosen)
    gains = [divergence(shares(each), before) - divergence(shares(each), after) for each in per_task]
    return float(np.mean(gains))
