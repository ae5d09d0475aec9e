"""`got_d`: gradients of optimal transport (Kang et al. 2024, arXiv 2405.02774).

The solver is in `selection.transport`; here are the pool it runs over and what is told about it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from selection.answer import HIGHER, LOWER, selection
from selection.by_turns import start_depth
from selection.cosine import GRID, Units, cosines, unit_rows
from selection.kept import Kept
from selection.problem import Block, Problem
from selection.round_robin import retry
from selection.survey import Survey, survey, unit_tiles
from selection.targets import Targets, targets_of, told
from selection.topk import ranked
from selection.transport import (
    CostRows,
    End,
    Kernel,
    Moment,
    Passes,
    anneal,
    calibrated,
    chunks_of,
    climb,
    exponentials,
    sinkhorn_steps,
)
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

Weights: TypeAlias = Literal["targets", "tasks"]
Way: TypeAlias = Literal["exact", "kept", "streamed"]

LEAST_EPSILON, MOST_EPSILON = 1e-3, 10.0
EXACT_NUMBERS = 1 << 20  # costs of at most so many pairs are held in float64
SAMPLE_NUMBERS = 1 << 23  # pairs in the sample of a larger pool: 32 MB of float32
KEPT_SAMPLE_NUMBERS = 1 << 22  # and where shares are kept, so that the passes which a larger one saves are cheap
LEAST_SAMPLE = 2048  # rows
REMEMBERED = 1 << 24  # costs of at most so many pairs are made once, those of more for every ε
SAMPLED = 8  # at most one row in so many, where that is more
EXACT_TOLERANCE, ROUGH_TOLERANCE = 1e-9, 0.05  # of f, in units of ε
TOLERANCE, KEPT_TOLERANCE = 3e-4, 3e-5  # and where a pass is dear, and where it is cheap
SUM_GRID = 2.0**30  # sums of multiples of 2⁻³⁰ below 2²³ are free of error in float64, so their order does not show
ROWS_AT_ONCE = 2048

Single = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GotD:
    """Rows whose weight, were it raised, would bring the pool nearest to the targets by optimal transport.

    representation  the signal to compare in: model, template, pooling and maximum length
    epsilon         the entropic regularisation over the mean cost
    contrast        take the rows with the largest gradient: the targets are examples of what to move away from
    weights         what has equal mass: every one of the `targets` (the paper), or every one of the `tasks`
    memory_mb       the shares of all pairs, 2 bytes each, are kept where they take no more, else made in every pass

    The cost is the squared Euclidean distance of vectors of unit length, 2 − 2 cos; a row of length 0 has cosine 0.
    Scores are calibrated gradients, which sum to 0 over the pool; lower is better, with `contrast` higher. Raises
    `InputError` without targets, for vectors that are not finite, and for an epsilon out of its range.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    epsilon: float = 0.05
    contrast: bool = False
    weights: Weights = "targets"
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if not LEAST_EPSILON <= self.epsilon <= MOST_EPSILON:
            raise InputError(f"epsilon is {self.epsilon} of the mean cost; give {LEAST_EPSILON} to {MOST_EPSILON:g}")
        if self.memory_mb < 0:
            raise InputError(f"memory_mb is {self.memory_mb}; give 0, which keeps nothing, or more")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = targets_of(problem, "representation")
        pool = survey(problem, targets.signal)
        world = Pairing(problem, targets.signal, np.asarray(targets.values), masses(targets, self.weights))
        mean_cost = world.mean_cost(pool)
        epsilon = self.epsilon * (mean_cost if mean_cost > 0 else 1.0)
        solution = solve(world, epsilon, self.memory_mb * 2**20)
        read = reading(world, solution.end.h, epsilon)
        values = calibrated_in_order(read.g, problem.by_key)
        rows = ranked(values if self.contrast else -values, problem.keys, problem.budget)
        facts = {
            "targets": targets.m,
            "epsilon": epsilon,
            "mean_cost": mean_cost,
            **told_of(solution, read, problem.by_key, world.a),
            **overlaps(solution, epsilon, problem, self.contrast),
            "cut_off": float(values[rows[-1]]),
            "rows_of_length_0": len(pool.zero),
        }
        direction = HIGHER if self.contrast else LOWER
        reasons = told(targets, served(world, solution.end.h, epsilon, rows))
        return selection(rows, values[rows], reasons, direction, **facts)


def masses(targets: Targets, weights: Weights) -> Floats:
    """(m,) masses of the targets, which sum to 1."""
    if weights == "targets":
        return np.full(targets.m, 1 / targets.m)
    sizes = np.bincount(targets.task_of)
    return np.asarray(1 / (len(sizes) * sizes[targets.task_of]))


@dataclass(frozen=True, slots=True)
class Pairing:
    """The candidates of a problem, all of equal mass, and the targets: `values` (m, d) on the grid, masses `a` (m,)."""

    problem: Problem
    signal: str
    values: Floats
    a: Floats

    @property
    def m(self) -> int:
        return len(self.a)

    def mean_cost(self, pool: Survey) -> float:
        """The mean of 2 − 2 cos over all pairs, by their masses; 0 where rounding is all there is."""
        mean = 2 - 2 * float(self.a @ self.values @ (pool.total / self.problem.n)) * GRID**-2
        return mean if mean > 1e-6 else 0.0

    def exact(self, rows: Rows) -> Floats:
        """(k, m) costs less 2 of some rows: a function of the two vectors alone."""
        return -2 * cosines(unit_rows(self.problem.candidates[self.signal][rows]).values, self.values)

    def kernel(self, rows: Rows, shares: NDArray[Any]) -> Kernel:
        """The kernel of some rows, of costs less 2, which moves all g by 2; computed in the type of `shares`."""
        costs = self._single(rows) if shares.dtype == np.float32 else lambda part: self.exact(rows[part])
        return Kernel(self._remembered(costs, len(rows)), np.full(len(rows), 1 / len(rows)), np.log(self.a), shares)

    def kept(self, epsilon: float, sampled: Kernel) -> Kept:
        """The shares of all rows, in the order of their keys, of costs less 2."""
        n = self.problem.n
        costs = self._remembered(self._single(self.problem.by_key), n)
        return Kept(costs, np.full(n, 1 / n), np.log(self.a), epsilon, sampled, np.empty((n, self.m), np.uint16))

    def _single(self, rows: Rows) -> CostRows:
        candidates, directions = self.problem.candidates[self.signal], _directions(self.values, -2.0)
        return lambda part: _units(candidates[rows[part]]) @ directions

    def _remembered(self, costs: CostRows, n: int) -> CostRows:
        """`costs` of n rows, made once where they are few."""
        if n * self.m > REMEMBERED:
            return costs
        return np.concatenate([costs(part) for part in chunks_of(n, self.m)]).__getitem__


@dataclass(frozen=True, slots=True)
class Solution:
    """Where the climb ended, over what `passes`, and the `sample` (s,) of rows, in the order of their keys, of whose
    kernel the warm start was made: of all rows where the pool is small."""

    way: Way
    end: End
    passes: Passes
    sample: Rows
    sampled: Kernel


def solve(world: Pairing, epsilon: float, memory: int) -> Solution:
    """The targets' log-prices for `epsilon`, with at most `memory` bytes of kept shares.

    A pool of few pairs is solved in float64 over costs free of rounding. A larger one starts from the prices that a
    sample of its rows has; kept shares are computed in the order of the rows' keys, so that storing them in another
    changes nothing.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return _solve(world, epsilon, memory)


def _solve(world: Pairing, epsilon: float, memory: int) -> Solution:
    n, m, order = world.problem.n, world.m, world.problem.by_key
    if n * m <= EXACT_NUMBERS:
        kernel = world.kernel(order, np.empty((n, m)))
        h = anneal(kernel, world.a, 1.0, epsilon, ROUGH_TOLERANCE)
        return Solution("exact", climb(kernel, world.a, h, EXACT_TOLERANCE, refresh=1), kernel, order, kernel)
    is_kept = 2 * n * m <= memory
    rows = max(min((KEPT_SAMPLE_NUMBERS if is_kept else SAMPLE_NUMBERS) // m, n // SAMPLED), LEAST_SAMPLE)
    sample = order[:: max(1, n // rows)]
    sampled = world.kernel(sample, np.empty((len(sample), m), np.float32))
    h = anneal(sampled, world.a, 1.0, epsilon)
    start = climb(sampled, world.a, h, ROUGH_TOLERANCE, refresh=1)
    if is_kept:
        kept = world.kept(epsilon, sampled)
        end = climb(kept, world.a, start.h, KEPT_TOLERANCE, curvature=start.curvature)
        return Solution("kept", end, kept, sample, sampled)
    streamed = Streamed(world, epsilon, sampled)
    end = climb(streamed, world.a, start.h, TOLERANCE, curvature=start.curvature)
    return Solution("streamed", end, streamed, sample, sampled)


@dataclass(frozen=True, slots=True)
class Streamed:
    """H over blocks of the pool, wherever they lie: the state is the m log-prices. Its curvature is the sample's."""

    world: Pairing
    epsilon: float
    sampled: Kernel

    def at(self, h: Floats) -> Moment:
        directions = _directions(self.world.values, 2 / self.epsilon)
        work = _MomentOfBlock(self.world.signal, directions, (h + np.log(self.world.a)).astype(np.float32))
        total = self.world.problem.reduce(work, Moment.plus)
        return Moment(total.softmin / self.world.problem.n, total.usage / self.world.problem.n)

    def curvature(self, h: Floats) -> Floats:
        return self.sampled.curvature(h)


@dataclass(frozen=True, slots=True)
class _MomentOfBlock:
    """The moment of one block where every row has mass 1; `directions` (d, m) times 2/ε, `offsets` (m,) h + log a."""

    signal: str
    directions: Single
    offsets: Single

    def __call__(self, block: Block) -> Moment:
        vectors = block.signals[self.signal]
        total, ones = Moment(0.0, np.zeros(len(self.offsets))), np.ones_like(self.offsets)
        for part in chunks_of(vectors.shape[0], len(self.offsets)):
            shares = _units(vectors[part]) @ self.directions
            shares += self.offsets
            largest = shares.max(axis=1, keepdims=True)
            shares -= largest
            exponentials(shares)
            sums = shares @ ones
            softmin = -float(largest.sum(dtype=np.float64) + np.log(sums).sum(dtype=np.float64))
            total = total.plus(Moment(softmin, ((1 / sums) @ shares).astype(np.float64)))
        return total


@dataclass(frozen=True, slots=True)
class Reading:
    """What prices mean for the pool: `g` (n,), the mean `cost` (n,) at which each row's mass is carried, the mass
    `usage` (m,) that each target is given (mean over rows) and the sum `squares` (m,) of the squares it is made of."""

    g: Floats
    cost: Floats
    usage: Floats
    squares: Floats


@dataclass(frozen=True, slots=True)
class _Parts:
    """A `Reading` in the making: arrays are put together once, at the end."""

    g: tuple[Floats, ...]
    cost: tuple[Floats, ...]
    usage: Floats
    squares: Floats

    def plus(self, other: "_Parts") -> "_Parts":
        both = self.usage + other.usage, self.squares + other.squares
        return _Parts(self.g + other.g, self.cost + other.cost, *both)


def reading(world: Pairing, h: Floats, epsilon: float) -> Reading:
    """g and what goes with it at log-prices `h`: each row's is a function of its vector and `h`, so copies tie."""
    parts = world.problem.reduce(_ReadBlock(world.signal, world.values, h + np.log(world.a), epsilon), _Parts.plus)
    n = world.problem.n
    return Reading(np.concatenate(parts.g), np.concatenate(parts.cost), parts.usage / n, parts.squares / n**2)


@dataclass(frozen=True, slots=True)
class _ReadBlock:
    signal: str
    values: Floats
    offsets: Floats
    epsilon: float

    def __call__(self, block: Block) -> _Parts:
        return reduce(_Parts.plus, (self._read(units) for _, units in unit_tiles(block.signals[self.signal])))

    def _read(self, units: Units) -> _Parts:
        costs = 2 - 2 * cosines(units.values, self.values)
        shares = self.offsets - costs / self.epsilon
        largest = shares.max(axis=1)
        shares -= largest[:, None]
        np.exp(shares, out=shares)
        sums = shares.sum(axis=1)
        shares /= sums[:, None]
        g = -self.epsilon * (largest + np.log(sums))
        costs *= shares
        squares = _on_grid(shares * shares)
        return _Parts((g,), (costs.sum(axis=1),), _on_grid(shares), squares)


def _on_grid(numbers: Floats) -> Floats:
    """Sums of the columns, each number rounded to a multiple of 1 / `SUM_GRID` first."""
    numbers = numbers * SUM_GRID
    return np.asarray(np.rint(numbers, out=numbers).sum(axis=0) / SUM_GRID)


def calibrated_in_order(g: Floats, order: Rows) -> Floats:
    """`calibrated` with its sum taken in `order`, that of the keys, so that the order of the rows does not show."""
    values = np.empty(len(g))
    values[order] = calibrated(g[order])
    return values


def served(world: Pairing, h: Floats, epsilon: float, rows: Rows) -> Rows:
    """(k,) the target that gets the largest share of each of `rows`."""
    parts = [rows[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE)]
    offsets = h + np.log(world.a)
    return np.concatenate([(offsets - world.exact(part) / epsilon).argmax(axis=1) for part in parts])


def told_of(solution: Solution, read: Reading, order: Rows, a: Floats) -> dict[str, Any]:
    """What the solver says about itself, as diagnostics."""
    sizes = read.usage**2 / np.maximum(read.squares, np.finfo(np.float64).tiny)
    return {
        "way": solution.way,
        "converged": solution.end.converged,
        "passes": solution.end.passes,
        "marginal_error": float(np.abs(a - read.usage).sum()),
        "transport_cost": float(read.cost[order].mean()),
        "effective_sample_size": {"least": float(sizes.min()), "median": float(np.median(sizes))},
    }


def overlaps(solution: Solution, epsilon: float, problem: Problem, contrast: bool) -> dict[str, Any]:
    """How much of the answer others would give, over the sample: of it, the part that the budget is of the pool.

    The others are ε/2; the distance to the nearest target alone; and the targets taking turns, where rows like the
    targets are wanted.
    """
    sign, kernel, keys = (1.0 if contrast else -1.0), solution.sampled, problem.keys[solution.sample]
    k = max(1, round(problem.budget * len(keys) / problem.n))
    costs = np.concatenate([kernel.rows(part) for part in chunks_of(len(keys), len(kernel.log_a))])
    a, h = np.exp(kernel.log_a), solution.end.h
    ours = ranked(sign * kernel.candidates(h), keys, k)
    kernel.use(epsilon / 2)
    with threadpool_limits(limits=1, user_api="blas"):
        half = climb(kernel, a, sinkhorn_steps(kernel, a, 2 * h), ROUGH_TOLERANCE, refresh=1)
    others = {
        "half_epsilon": ranked(sign * kernel.candidates(half.h), keys, k),
        "nearest": ranked(sign * costs.min(axis=1).astype(np.float64), keys, k),
    }
    if not contrast:
        others["turns"] = by_turns(costs, k)
    shared = {name: len(np.intersect1d(ours, rows)) / k for name, rows in others.items()}
    return {"overlap": shared, "overlap_rows": k, "overlap_of": len(keys)}


def by_turns(costs: NDArray[Any], k: int) -> Rows:
    """The k rows of `costs` (n, m) that the targets take in turns, each the nearest left to it."""
    depth = start_depth(k, costs.shape[1])
    while True:
        nearest = np.argpartition(costs, depth - 1, axis=0)[:depth]
        order = np.argsort(np.take_along_axis(costs, nearest, axis=0), axis=0, kind="stable")
        lists = np.take_along_axis(nearest, order, axis=0).T
        turns = retry(lists, k)
        if turns is not None:
            return np.asarray(lists[turns.lists, turns.places])
        depth = min(2 * depth, k)


def _directions(values: Floats, scale: float) -> Single:
    """(d, m) `values` on the grid as vectors of length `scale`."""
    return np.ascontiguousarray((values * (scale / GRID)).T, np.float32)


def _units(vectors: Any) -> Single:
    """`vectors` of length 1, or 0 where they are, in float32."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.asarray(rows / np.where(lengths > 0, lengths, np.float32(1)))
