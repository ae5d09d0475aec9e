"""Targets, or tasks, take turns in choosing the row nearest to them, over any signal: the algorithm of RDS+."""

from typing import Any, Literal, TypeAlias

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.problem import Problem
from selection.round_robin import POLICIES, Turns
from selection.targets import Targets, nearest, targets_of, told
from selection.topk import Lists, Top, top_lists
from warehouse.records import Floats, Rows, Selection

ListPolicy: TypeAlias = Literal["retry", "consume", "global_max"]
START_DEPTH = 4  # lists start at this many times their share of the budget


def choose_by_turns(problem: Problem, signal: str, policy: ListPolicy) -> Selection:
    """The RDS+ selection over any signal, dense or sparse."""
    targets = targets_of(problem, signal)
    lists = _lists(targets, policy)
    top, turns = _fill(problem, lists, policy)
    rows, scores = top.rows[turns.lists, turns.places], top.scores[turns.lists, turns.places]
    owners = _owners(problem, targets, lists, rows, turns)
    facts = _facts(problem.n, targets, top, scores, owners)
    if policy == "global_max":
        return selection(rows, scores, told(targets, owners), HIGHER, policy=policy, **facts)
    pairs = zip(told(targets, owners), turns.rounds.tolist(), strict=True)
    reasons = [f"{reason} round={number}" for reason, number in pairs]
    return selection(rows, scores, reasons, HIGHER, policy=policy, passed_by=turns.skipped, **facts)


def start_depth(n: int, lists: int) -> int:
    """How many rows of each list to keep at first: 4 n / lists, rounded up, at most the n that always suffice."""
    return min(n, -(-START_DEPTH * n // lists))


def _lists(targets: Targets, policy: ListPolicy) -> Lists:
    if policy == "global_max":
        starts = np.zeros(1, np.int64)
    else:
        starts = targets.starts if len(targets.tasks) > 1 else np.arange(targets.m)
    return Lists(targets.signal, targets.values, starts)


def _fill(problem: Problem, lists: Lists, policy: ListPolicy) -> tuple[Top, Turns]:
    """Ranked lists deep enough for the budget, and the turns over them: the depth doubles until no list runs out."""
    take = POLICIES["retry" if policy == "global_max" else policy]
    k = start_depth(problem.budget, lists.count)
    while True:
        top = top_lists(problem, lists, k)
        turns = take(top.rows, problem.budget)
        if turns is not None:
            return top, turns
        k = min(2 * k, problem.budget)


def _owners(problem: Problem, targets: Targets, lists: Lists, rows: Rows, turns: Turns) -> Rows:
    """(k,) index into `targets` of the target behind each pick: its list's, or the nearest of its list's task."""
    if lists.count == targets.m:
        return turns.lists
    return nearest(problem, targets, rows, turns.lists if lists.count == len(targets.tasks) > 1 else None)


def _facts(n: int, targets: Targets, top: Top, scores: Floats, owners: Rows) -> dict[str, Any]:
    counts = np.bincount(targets.task_of[owners], minlength=len(targets.tasks))
    return {
        "targets": targets.m,
        "depth": top.rows.shape[1],
        "picks_per_task": {name: int(count) for name, count in zip(targets.names, counts, strict=True)},
        **summary(scores, HIGHER),
        "rows_of_length_0": top.census.zero,
        "pool_scores": top.census.histogram(n),
    }
