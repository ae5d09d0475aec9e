"""Budgets in rows or in tokens, and how much of a selection each source may and must give.

They work on any method: it is asked for more rows until the answer, walked from its best row on, fills the budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selection.answer import summary
from selection.problem import Method, Problem
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection

Unit = Literal["rows", "tokens"]
EVERY = "*"
"""Stands for every source that is not named."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a selection keeps to. `budget`, `caps` and `floors` count in `unit`.

    caps, floors  the most and the least that a source gives: an amount, or below 1 a share of the budget; "*" is every
                  source that is not named
    """

    budget: int
    unit: Unit = "rows"
    caps: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, amounts in (("caps", self.caps), ("floors", self.floors)):
            if wrong := {source: amount for source, amount in amounts.items() if not amount >= 0}:
                raise InputError(f"`{name}` must be amounts of 0 or more, or shares below 1; found {wrong}")

    @property
    def plain(self) -> bool:
        """Whether there is only a number of rows to keep to."""
        return self.unit == "rows" and not self.caps and not self.floors

    def amounts(self, given: Mapping[str, float], sources: NDArray[Any], otherwise: float) -> Floats:
        """What `given` says of each of `sources` (s,), in `unit`."""
        values = [given.get(str(source), given.get(EVERY, otherwise)) for source in sources]
        return np.array([value * self.budget if 0 < value < 1 else value for value in values], np.float64)

    def check(self, sources: NDArray[Any], there: Floats) -> None:
        """Raise `InputError` where candidates of which each of `sources` (s,) has `there` (s,) cannot meet the limits.

        `there` counts in `unit`; it is infinite where tokens are not counted yet.
        """
        named = {source for given in (self.caps, self.floors) for source in given if source != EVERY}
        if unknown := sorted(named - set(sources.tolist())):
            known = ", ".join(sources.tolist())
            raise InputError(f"no source {', '.join(unknown)} among the candidates; sources: {known}")
        caps, floors = self.amounts(self.caps, sources, np.inf), self.amounts(self.floors, sources, 0)
        for source, floor, cap, most in zip(sources, floors, caps, there, strict=True):
            if floor > min(cap, most):
                why = f"its cap is {cap:,.0f}" if cap < most else f"its candidates have {most:,.0f}"
                raise InputError(f"the floor of {source} is {floor:,.0f} {self.unit}, but {why}; lower the floor")
        if floors.sum() > self.budget:
            raise InputError(
                f"the floors sum to {floors.sum():,.0f} {self.unit}, more than the budget of {self.budget:,}"
            )
        if (room := np.minimum(there, caps).sum()) < self.budget:
            raise InputError(
                f"the budget is {self.budget:,} {self.unit}, but the candidates have {room:,.0f} within the caps; "
                "lower it or raise the caps"
            )


def choose(method: Method, problem: Problem, limits: Limits, seed: int) -> Selection:
    """The answer of `method` within `limits`: its best rows that the caps allow, floors given their part first.

    A floor is given by the best rows of its source. A row that exceeds the budget in tokens ends the answer, so the
    answer may stay below it by less than one row, and a floor may be passed by less than one. `problem.budget` is not
    read. Raises `InputError` where the limits cannot be met, before the method is asked.
    """
    if limits.plain:
        return method(replace(problem, budget=limits.budget), np.random.default_rng(seed))
    walk = _Walk.of(problem, limits)
    k = min(problem.n, max(1, int(np.ceil(limits.budget / walk.costs.mean()))))
    while True:
        answer = method(replace(problem, budget=k), np.random.default_rng(seed))
        taken, full = walk.take(answer.rows)
        if full or k == problem.n:
            break
        k = min(2 * k, problem.n)
    if not len(taken):
        raise InputError(f"the first row of the answer is longer than the budget of {limits.budget} {limits.unit}")
    facts = {"unit": limits.unit, "asked_for": k, "spent": float(walk.costs[answer.rows[taken]].sum())}
    bounds = {name: dict(given) for name, given in (("caps", limits.caps), ("floors", limits.floors)) if given}
    reasons = [answer.reasons[place] for place in taken]
    chosen = Selection(answer.rows[taken], answer.weights[taken], answer.scores[taken], reasons)
    return replace(chosen, diagnostics=_of_part(chosen, answer.diagnostics) | {"limits": facts | bounds})


def _of_part(chosen: Selection, whole: Mapping[str, Any]) -> dict[str, Any]:
    """What is true of the rows taken; what else the method said of the answer they were taken from is under `asked`."""
    judged = np.array(["filled=" not in reason for reason in chosen.reasons])
    scores = chosen.scores[judged]
    facts: dict[str, Any] = {name: whole[name] for name in ("direction", "pool_scores") if name in whole}
    facts |= {name: value for name, value in summary(scores, whole["direction"]).items() if name in whole}
    rest = {name: value for name, value in whole.items() if name not in facts}
    return facts | {"filled": int((~judged).sum()), "asked": rest}


@dataclass(frozen=True, slots=True)
class _Walk:
    """Takes rows from an order of them: `costs` (n,) of rows, their `source_of` (n,), `caps` and `floors` (s,)."""

    budget: float
    costs: Floats
    source_of: Rows
    caps: Floats
    floors: Floats

    @classmethod
    def of(cls, problem: Problem, limits: Limits) -> "_Walk":
        sources, source_of = np.unique(np.asarray(problem.groups["source"]).astype(str), return_inverse=True)
        costs = np.ones(problem.n) if limits.unit == "rows" else _tokens(problem)
        caps = limits.amounts(limits.caps, sources, np.inf)
        floors = limits.amounts(limits.floors, sources, 0)
        there = np.bincount(source_of, costs, len(sources)).astype(np.float64)
        limits.check(sources, there)
        return cls(limits.budget, costs, source_of.astype(np.int64), caps, floors)

    def take(self, rows: Rows) -> tuple[Rows, bool]:
        """Places in `rows` (k,) that are taken, ascending, and whether more rows could change nothing."""
        costs, source_of = self.costs[rows], self.source_of[rows]
        spent = _running(costs, source_of)
        allowed = spent <= self.caps[source_of]
        owed = allowed & (spent - costs < self.floors[source_of])
        owed &= np.cumsum(costs * owed) <= self.budget
        free = np.flatnonzero(allowed & ~owed)
        room = self.budget - costs[owed].sum()
        fits = np.cumsum(costs[free]) <= room
        taken = np.sort(np.concatenate([np.flatnonzero(owed), free[fits]]))
        given = np.bincount(source_of, costs, len(self.caps))
        exhausted = not fits.all() or costs[taken].sum() == self.budget
        return taken, bool(exhausted and (given >= self.floors).all())


def _running(costs: Floats, source_of: Rows) -> Floats:
    """(k,) what each source has given up to and with each row."""
    order = np.argsort(source_of, kind="stable")
    total = np.cumsum(costs[order])
    begins = np.flatnonzero(np.diff(source_of[order], prepend=-1))
    before = np.repeat(total[begins] - costs[order][begins], np.diff(begins, append=len(order)))
    running = np.empty_like(total)
    running[order] = total - before
    return running


def _tokens(problem: Problem) -> Floats:
    if problem.costs is None:
        raise ValueError("a budget in tokens needs the tokens of each row")
    return np.maximum(problem.costs, 1).astype(np.float64)
