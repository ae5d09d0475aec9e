"""`replay`: rows of earlier tasks to train again with a new one, so that it is not learnt at their cost.

After Dynosaur, whose claim is that replaying tasks with diverse instructions forgets less and generalises better. What
is said here is what this code does: a task is a source, its vector the mean direction of its rows, the new task is the
target set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix

from selection.answer import NONE, selection
from selection.balanced_random import take_turns
from selection.cosine import GRID, unit_rows
from selection.problem import Block, Problem
from selection.random_rows import shuffled
from selection.survey import unit_tiles
from selection.targets import mean_direction, targets_of
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

Policy: TypeAlias = Literal["diverse", "similar", "support", "data_diverse"]


def task_scores(previous: Floats, current: Floats, policy: Policy) -> Floats:
    """(t,) higher is chosen first, for unit vectors of earlier tasks (t, d) and of the new one's rows (m, d).

    diverse, data_diverse  1 - mean_j cos(P_i, C_j): unlike the new task
    similar                mean_j cos(P_i, C_j): like it
    support                mean_j cos(P_i, P_j): like the earlier tasks as a whole

    A product with a mean, so O((t + m) d).
    """
    if policy == "support":
        return np.asarray(previous @ previous.mean(axis=0))
    closeness = previous @ current.mean(axis=0)
    return np.asarray(closeness if policy == "similar" else 1 - closeness)


@dataclass(frozen=True, slots=True)
class Replay:
    """The same number of random rows of each of a few sources, chosen by how their vectors stand to the targets.

    representation  of whole rows: what `data_diverse` compares in
    instructions    of prompts: what the other policies compare in
    policy          `diverse`: the sources least like the targets; `similar`: most like them; `support`: most like all
                    sources together; `data_diverse`: as `diverse`, over whole rows
    tasks           how many sources; where the pool has fewer, all

    Chosen sources take turns in the order of their scores, each with rows drawn at random; when all are out of rows the
    next source is opened (`filled=next_task` in the reason). A smaller budget with the same seed is the beginning of a
    larger one. Scores are 0 and have no direction; the sources' scores are in the reasons and diagnostics. Raises
    `InputError` without targets or sources and for vectors that are not finite.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    instructions: Spec
    policy: Policy = "diverse"
    tasks: int = 8

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise InputError(f"replay: {self.tasks} tasks; give at least 1")

    @property
    def signal(self) -> str:
        return "representation" if self.policy == "data_diverse" else "instructions"

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {self.signal: self.representation if self.policy == "data_diverse" else self.instructions}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        if "source" not in problem.groups:
            raise InputError("replay chooses among the sources of the pool, but its rows have no source")
        targets = targets_of(problem, self.signal)
        sources, source_of = np.unique(problem.groups["source"], return_inverse=True)
        scores = task_scores(
            directions(problem, self.signal, source_of, len(sources)) / GRID,
            mean_direction(targets) / GRID,
            self.policy,
        )
        order = np.argsort(-scores, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        rows, rounds = in_waves(shuffled(problem, rng), rank[source_of], self.tasks, problem.budget)
        filled = rank[source_of[rows]] >= self.tasks
        names = ["_".join(str(source).split()) for source in sources]
        reasons = [
            f"source={names[at]} task_score={scores[at]:.4f} round={turn}{' filled=next_task' if late else ''}"
            for at, turn, late in zip(source_of[rows].tolist(), rounds.tolist(), filled.tolist(), strict=True)
        ]
        counts = np.bincount(source_of[rows], minlength=len(sources))
        facts = {
            "policy": self.policy,
            "task_scores": {str(sources[at]): float(scores[at]) for at in order},
            "tasks": [str(sources[at]) for at in order[: self.tasks]],
            "per_source": {str(source): int(count) for source, count in zip(sources, counts, strict=True)},
            "filled": int(filled.sum()),
        }
        return selection(rows, np.zeros(len(rows)), reasons, NONE, **facts)


def directions(problem: Problem, signal: str, group: Rows, groups: int) -> Floats:
    """(g, d) on the grid: the mean direction of every group's rows, of unit length; 0 for a group of zero vectors.

    Sums of whole numbers in float64, so the order of the rows and the blocks change no bit of it.
    """

    def sums(block: Block) -> tuple[Floats, int]:
        vectors = block.signals[signal]
        total, broken = np.zeros((groups, vectors.shape[1])), 0
        for tile, units in unit_tiles(vectors):
            own = group[block.start + tile.start : block.start + tile.stop]
            total += csr_matrix((np.ones(len(own)), (own, np.arange(len(own)))), (groups, len(own))) @ np.asarray(
                units.values
            )
            broken += int((~units.finite).sum())
        return total, broken

    total, broken = problem.reduce(sums, lambda a, b: (a[0] + b[0], a[1] + b[1]))
    if broken:
        raise InputError(f"{broken} of {problem.n} vectors in {signal!r} hold NaN or infinity: measure them again")
    return np.asarray(unit_rows(total).values)


def in_waves(order: Rows, rank: Rows, tasks: int, n: int) -> tuple[Rows, Rows]:
    """The first n of the rows in `order`, and the round each was taken in: by turns of the first `tasks` groups, then
    group by group.

    `rank` (all rows,) is the place of each row's group, from 0.
    """
    ranks = rank[order]
    early = ranks < tasks
    most = int(rank.max()) + 1
    rows, rounds = take_turns(order[early], ranks[early], np.arange(most), n)
    late = np.flatnonzero(~early)
    rest = order[late[np.argsort(ranks[late], kind="stable")]][: n - len(rows)]
    return np.concatenate([rows, rest]), np.concatenate([rounds, np.arange(1, len(rest) + 1)])
