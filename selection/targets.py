"""The target side of a selection: which directions the pool is compared with, and which ranked list each belongs to."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from selection.cosine import Units, cosines, unit_rows
from selection.problem import Problem, Signal
from warehouse.errors import InputError
from warehouse.records import Floats, Rows

ROWS_AT_ONCE = 2048  # chosen rows compared with all targets at once


@dataclass(frozen=True, slots=True)
class Targets:
    """The m target rows of one signal, ordered by task, and the tasks they make up.

    signal  name of the signal they are compared in
    values  (m, d) directions, the values of `Units`
    rows    (m,) row of the target set that each came from
    tasks   (t,) task ids, ascending
    starts  (t,) where each task begins in `values`
    names   (t,) names of the tasks: their ids where the problem has no names
    """

    signal: str
    values: Signal
    rows: Rows
    tasks: Rows
    starts: Rows
    names: tuple[str, ...]

    @property
    def m(self) -> int:
        return len(self.rows)

    @property
    def task_of(self) -> Rows:
        """(m,) index into `tasks` of each target."""
        return np.repeat(np.arange(len(self.tasks)), np.diff(self.starts, append=self.m))


def targets_of(problem: Problem, signal: str) -> Targets:
    """The problem's targets in `signal`; raises `InputError` where there are none or one has no direction."""
    vectors = target_signal(problem, signal)
    order = np.argsort(problem.target_task, kind="stable").astype(np.int64)
    tasks, starts = np.unique(problem.target_task[order], return_index=True)
    units = unit_rows(vectors)
    _check_directions(units)
    names = tuple(problem.task_names[task] if problem.task_names else str(task) for task in tasks)
    return Targets(signal, units.values[order], order, tasks, starts.astype(np.int64), names)


def target_signal(problem: Problem, signal: str) -> Signal:
    """The `signal` of the targets (m, ...); raises `InputError` without any."""
    values = problem.targets.get(signal)
    if values is None or values.shape[0] == 0:
        raise InputError(f"this method compares rows with a target set in {signal!r}, but no target was given")
    return values


def mean_direction(targets: Targets) -> Floats:
    """Mean over tasks of each task's mean direction, (1, d) on the grid: every task weighs the same.

    The dot product with it is the mean over tasks of the mean cosine. It is not brought to unit length, which would
    change no order, so that the score is a mean of cosines.
    """
    return np.asarray(np.rint(task_directions(targets).sum(axis=0, keepdims=True) / len(targets.tasks)))


def task_directions(targets: Targets) -> Floats:
    """(t, d) each task's mean direction, in units of the grid but not on it."""
    values = targets.values.toarray() if isinstance(targets.values, csr_matrix) else targets.values
    sizes = np.diff(targets.starts, append=targets.m)
    return np.asarray(np.add.reduceat(values, targets.starts, axis=0) / sizes[:, None])


def nearest(problem: Problem, targets: Targets, rows: Rows, task: Rows | None = None) -> Rows:
    """(k,) index into `targets` of the nearest target of each of `rows`; ties go to the first.

    Where `task` (k,) is given, an index into `targets.tasks`, only that task's targets count for the row.
    """
    answer = np.empty(len(rows), np.int64)
    for at in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(at, at + ROWS_AT_ONCE)
        scores = cosines(targets.values, unit_rows(problem.candidates[targets.signal][rows[part]]).values)
        if task is not None:
            scores[targets.task_of[:, None] != task[part]] = -np.inf
        answer[part] = np.argmax(scores, axis=0)
    return answer


def told(targets: Targets, at: Rows) -> list[str]:
    """What a reason says about each target: `target=17 task=gsm8k`, the row of the target set and the task's name."""
    tasks = ["_".join(name.split()) for name in targets.names]
    pairs = zip(targets.rows[at].tolist(), targets.task_of[at].tolist(), strict=True)
    return [f"target={row} task={tasks[task]}" for row, task in pairs]


def _check_directions(units: Units) -> None:
    if not units.finite.all():
        bad = np.flatnonzero(~units.finite)
        raise InputError(f"{len(bad)} targets hold NaN or infinity, the first is target {bad[0]}: measure them again")
    if units.zero.any():
        bad = np.flatnonzero(units.zero)
        raise InputError(f"{len(bad)} targets have length 0, the first is target {bad[0]}: leave out empty ones")
