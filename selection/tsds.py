"""`tsds`: task-specific data selection by optimal transport (Liu, Karbasi and Rekatsinas, NeurIPS 2024).

Each of M targets spreads its mass 1/M over its nearest rows: alpha weighs how far mass travels against how evenly it
spreads, and a row in a crowd of near-duplicates shares its mass with them. Nothing here is approximate: neighbours come
from the exact ranked lists of `selection.topk`, where the released code asks an inverted-file index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.answer import HIGHER, selection
from selection.cosine import unit_rows
from selection.gumbel import gumbel
from selection.histogram import histogram
from selection.problem import Problem
from selection.targets import Targets, nearest, targets_of, told
from selection.topk import Lists, Some, ranked, top_lists
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

ROUNDING = 1e-12  # of a target's mass; less is no remainder, and would part rows that are the same
START = 64  # nearest rows of each target that the walk is first tried on
ROWS_AT_ONCE = 512  # rows whose neighbourhoods are searched in one pass over the rows near targets


@dataclass(frozen=True, slots=True)
class Plan:
    """Where M targets send their mass.

    masses   (M, k): of each target to its k nearest rows; all sum to 1
    spread   s: a row of density 1 gets 1 / (M s) of a target that reaches beyond it
    reached  (M,) how many rows have their full share of each target
    """

    masses: Floats
    spread: float
    reached: Rows


@dataclass(frozen=True, slots=True)
class Tsds:
    """Rows drawn by the probabilities of the transport plan.

    representation  the signal to compare in; distances are Euclidean, between vectors brought to unit length
    alpha           from 0, even spread, to 1, all mass to the nearest row
    c               the scale of distances: the C of the paper
    sigma           how near a near-duplicate is, as a distance; 0 treats every row as alone
    max_k           the most rows a target's mass can reach
    kde_k           the most near-duplicates that count
    sample          whether to draw, or to take the most probable rows

    The paper draws with replacement; here a row is taken once: the draw is the exact weighted sample without
    replacement. Rows of probability 0 come after all others, the most similar to any target first. Scores are the
    probabilities of one draw; higher is better. Every target weighs the same, whatever its task. Raises `InputError`
    without targets and for vectors that are not finite.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    alpha: float = 0.5
    c: float = 5.0
    sigma: float = 0.75
    max_k: int = 5000
    kde_k: int = 1000
    sample: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha}; give a number from 0 (even spread) to 1 (the nearest rows)")
        if not 0 < self.c < np.inf or not 0 <= self.sigma < np.inf:
            raise InputError(f"c is {self.c} and sigma {self.sigma}; c must be above 0 and sigma 0 or above")
        if min(self.max_k, self.kde_k) < 1:
            raise InputError(f"max_k is {self.max_k} and kde_k {self.kde_k}; both must be at least 1")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = targets_of(problem, "representation")
        reach = min(self.max_k, problem.n)
        top = top_lists(problem, Lists(targets.signal, targets.values, np.arange(targets.m)), reach)
        near, at = np.unique(top.rows, return_inverse=True)
        plan, density = self._plan(problem, near, at.reshape(top.rows.shape), distances(top.scores))
        reached = top.rows[:, : plan.masses.shape[1]].ravel()
        probability: Floats = np.bincount(reached, plan.masses.ravel(), problem.n).astype(np.float64)
        rows, beyond = self._rows(problem, probability, targets, rng)
        chosen = probability[rows]
        reasons = [
            f"{reason} probability={share:.3g}" if share > 0 else f"{reason} filled=probability_0"
            for reason, share in zip(told(targets, nearest(problem, targets, rows)), chosen.tolist(), strict=True)
        ]
        facts: dict[str, Any] = {
            "draw": "without replacement" if self.sample else "none: the most probable",
            "targets": targets.m,
            "support": int((probability > 0).sum()),
            "effective_rows": float(1 / np.square(np.sort(probability)).sum()),
            "mass_chosen": float(np.sort(chosen).sum()),
            "spread": plan.spread,
            "targets_at_max_k": int((plan.reached >= reach).sum()) if reach < problem.n else 0,
            "near_duplicates": float(np.sort(density[probability[near] > 0] - 1).mean()),
            "filled": {"probability_0": beyond},
            "mean_score": float(np.sort(chosen).mean()),
            "cut_off": float(chosen.min()),
            "rows_of_length_0": top.census.zero,
            "pool_scores": histogram(probability[near]),
        }
        return selection(rows, chosen, reasons, HIGHER, **facts)

    def _plan(self, problem: Problem, near: Rows, at: Rows, distance: Floats) -> tuple[Plan, Floats]:
        """The plan for targets whose nearest rows are near[at], and the density of each of `near` that it looked at.

        The walk seldom goes far, and a list that it does not walk to the end of may as well end there: lists are
        lengthened until that holds, so that only rows in reach need their density.
        """
        density, depth = np.zeros(len(near)), min(START, at.shape[1])
        while True:
            wanted = np.unique(at[:, :depth])
            wanted = wanted[density[wanted] == 0]
            density[wanted] = densities(problem, "representation", near, wanted, self.sigma, self.kde_k)
            plan = transport(distance[:, :depth], density[at[:, :depth]], self.alpha, self.c)
            if depth == at.shape[1] or plan.reached.max() < depth:
                return plan, density
            depth = min(2 * depth, at.shape[1])

    def _rows(
        self, problem: Problem, probability: Floats, targets: Targets, rng: np.random.Generator
    ) -> tuple[Rows, int]:
        """The rows, and how many of them have no probability."""
        support = np.flatnonzero(probability > 0)
        order = np.log(probability[support])
        if self.sample:
            order = order + gumbel(problem, rng)[0, support]
        drawn = support[ranked(order, problem.keys[support], min(problem.budget, len(support)))]
        missing = problem.budget - len(drawn)
        if missing == 0:
            return drawn, 0
        by_cosine = top_lists(problem, Lists(targets.signal, targets.values, np.zeros(1, np.int64)), problem.budget)
        beyond = by_cosine.rows[0][probability[by_cosine.rows[0]] == 0][:missing]
        return np.concatenate([drawn, beyond]), missing


def distances(cosines: Floats) -> Floats:
    """Euclidean distances of unit vectors with these `cosines`: d² = 2 - 2 cos."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * cosines, 0.0)))


def transport(distance: Floats, density: Floats, alpha: float, c: float) -> Plan:
    """The plan for `distance` (M, k), ascending in each row, and the `density` (M, k) of the same rows, at least 1.

    Mass spreads over more rows of each target, always where rows so far hold most, until the price of one more step,
    alpha / c times the distance travelled further, reaches the (1 - alpha) M that evenness is worth. The released code
    walks a heap; since the price of a step of target j past its k-th row is w (d[k + 1] - d[k]), with w the sum of
    1 / density up to k, sorting all steps by w gives the same walk.
    """
    m, k = distance.shape
    shares = 1 / density
    reach = np.cumsum(shares, axis=1)
    prices = reach * np.diff(distance, axis=1, append=distance[:, -1:])
    targets, places = np.indices((m, k))
    order = np.lexsort((targets.ravel(), places.ravel(), reach.ravel()))
    stops = np.flatnonzero(alpha / c * np.cumsum(prices.ravel()[order]) >= (1 - alpha) * m)
    steps = int(stops[0]) if len(stops) else len(order)
    spread = float(reach.ravel()[order[min(steps, len(order) - 1)]])
    reached = np.bincount(targets.ravel()[order[:steps]], minlength=m)
    masses = np.where(np.arange(k) < reached[:, None], shares / (m * spread), 0.0)
    rest = 1 / m - masses.sum(axis=1)
    masses[np.arange(m), np.minimum(reached, k - 1)] += np.where(rest * m > ROUNDING, rest, 0.0)
    return Plan(masses, spread, reached)


def densities(problem: Problem, signal: str, rows: Rows, wanted: Rows, sigma: float, most: int) -> Floats:
    """(w,) how many of `rows` (u,) lie near rows[wanted]: the sum of max(0, 1 - d² / sigma²) over its `most` nearest.

    A row counts as 1 for itself. Takes w u d multiplications in w / 512 passes over the rows.
    """
    if sigma == 0 or not len(wanted):
        return np.ones(len(wanted))
    some = Some(problem.candidates[signal], rows)
    part = Problem(budget=1, keys=problem.keys[rows], candidates={signal: some})
    sums = []
    for at in range(0, len(wanted), ROWS_AT_ONCE):
        units = unit_rows(some[wanted[at : at + ROWS_AT_ONCE]]).values
        cosines = top_lists(part, Lists(signal, units, np.arange(units.shape[0])), min(most, len(rows))).scores
        sums.append(np.maximum(0, 1 - np.square(distances(cosines)) / sigma**2).sum(axis=1))
    return np.asarray(np.maximum(np.concatenate(sums), 1.0))  # a row of length 0 is not even near itself
