"""How a score grows with the budget: for each ability apart, and the smallest budget that is enough.

Scores are item rows (`eval.items.ITEM_SCHEMA`) of the same test by budget and training seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eval.compare import Labels, Tables, average, seed_scores
from eval.metrics import metric
from eval.statistics import LEVEL, cluster_totals
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats

DRAWS = 2000
ROUNDING = 1e-12  # a mean may be added up in another order than the goal it equals
ENOUGH = 0.95  # of what the full pool gives


@dataclass(frozen=True, slots=True)
class Growth:
    """The scores of one ability by budget, smallest first, and what guessing would give: None where nothing is known.

    A curve says something only where it leaves chance (Song et al. 2023, "Dynamics of Instruction Tuning").
    """

    points: tuple[tuple[int, Estimate], ...]
    chance: float | None


def growth(runs: Mapping[int, Tables], name: str, rng: np.random.Generator, by: str = "ability") -> dict[str, Growth]:
    """The metric `name` at every budget for each value of the column `by` ("" where an item has none).

    Intervals are of `DRAWS` draws: there are many points.
    """
    groups = sorted({group for arm in runs.values() for table in arm.values() for group in table[by].to_pylist()})
    found = {}
    for group in groups:
        parts = {
            budget: {seed: t.filter(pc.equal(t[by], group)) for seed, t in arm.items()} for budget, arm in runs.items()
        }
        points = tuple((budget, average(parts[budget], name, rng, DRAWS)) for budget in sorted(parts))
        found[group] = Growth(points, chance(next(iter(parts[min(parts)].values()))))
    return found


def chance(items: pa.Table) -> float | None:
    """What guessing would give: the mean of 1 / choices over items; None where some item leaves the reply free."""
    choices = items["choices"].to_numpy()
    return float((1.0 / choices).mean()) if len(choices) and (choices > 0).all() else None


@dataclass(frozen=True, slots=True)
class Enough:
    """The smallest of the raced budgets whose mean reaches the reference; None where none does.

    low, high  95 % of the draws of seeds and items lie between these budgets; None is beyond the largest one
    reached    share of the draws in which some budget reaches it
    """

    budget: int | None
    low: int | None
    high: int | None
    reached: float


def sample_efficiency(
    runs: Mapping[int, Tables],
    name: str,
    rng: np.random.Generator,
    *,
    reference: float | None = None,
    full: Tables | None = None,
    draws: int = DRAWS,
) -> Enough:
    """How few rows reach `reference`, or 95 % of what training on the whole pool (`full`) gives.

    All budgets, and the full pool, are drawn over the same seeds and items (or their clusters). Raises `InputError`
    unless exactly one of both is given, and for 95 % of a loss, which says nothing.
    """
    wanted, budgets = metric(name), sorted(runs)
    if (reference is None) == (full is None):
        raise InputError("give a score to reach, or the runs on the full pool, and not both")
    if full is not None and not wanted.higher_is_better:
        raise InputError(f"95 % of {name!r} is no goal, as lower is better; give a loss to reach")
    arms = [*(runs[budget] for budget in budgets), *([full] if full is not None else [])]
    scores, weights, clusters = seed_scores(arms, name)
    curves = _drawn(scores, weights, clusters, rng, draws)
    sign = 1.0 if wanted.higher_is_better else -1.0
    first = [_first(sign * curve, sign, len(budgets), reference) for curve in curves]
    value = _first(sign * (scores.mean(axis=1) @ weights / weights.sum()), sign, len(budgets), reference)
    low, high = (int(np.percentile(first, q, method="nearest")) for q in LEVEL)
    at = [*budgets, None]
    return Enough(at[value], at[low], at[high], float(np.mean(np.array(first) < len(budgets))))


def _first(curve: Floats, sign: float, budgets: int, reference: float | None) -> int:
    """The place of the first budget that reaches the goal, the number of budgets where none does."""
    goal = ENOUGH * curve[-1] if reference is None else sign * reference
    reaching = np.flatnonzero(curve[:budgets] >= goal - ROUNDING)
    return int(reaching[0]) if len(reaching) else budgets


def _drawn(scores: Floats, weights: Floats, clusters: Labels | None, rng: np.random.Generator, draws: int) -> Floats:
    """(draws, arms) means of (arms, s, n) scores over seeds and items drawn with repetition, the same for all arms.

    Items of one cluster (n,) are drawn together.
    """
    totals = cluster_totals(scores * weights, clusters)
    masses = cluster_totals(weights, clusters)
    arms, s, c = totals.shape
    means = np.empty((draws, arms))
    for draw in range(draws):
        seeds = np.bincount(rng.integers(0, s, s), minlength=s) / s
        items = np.bincount(rng.integers(0, c, c), minlength=c)
        means[draw] = np.einsum("asc,s,c->a", totals, seeds, items) / (items @ masses)
    return means
