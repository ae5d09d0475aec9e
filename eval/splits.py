"""What is held out of a set of rows, at three levels: whole categories, whole tasks of other categories, and instances.

After OPT-IML (Iyer et al. 2022), which tests an instruction-tuned model on categories it never saw, on tasks it
never saw of categories it did, and on instances it never saw of tasks it did. Every choice is a hash of a name and a
seed: it needs no generator, and the same rows are split alike in any order and on any machine.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.records import canonical, digest

TRAIN = "train"
INSTANCE = "held_out_instance"
TASK = "held_out_task"
CATEGORY = "held_out_category"
EXCLUDED = "excluded"
LEVELS = (TRAIN, INSTANCE, TASK, CATEGORY)  # of two rows that ask the same, that of the later level stays


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares to hold out: of the categories, of each other category's tasks, of each other task's instances."""

    categories: float = 0.1
    tasks: float = 0.1
    instances: float = 0.1

    def __post_init__(self) -> None:
        for name in ("categories", "tasks", "instances"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"share of {name} to hold out is {getattr(self, name):g}; give 0 or more, below 1")


@dataclass(frozen=True, slots=True)
class Split:
    """`level` (n,) of each row: one of `LEVELS`, or "excluded" for a row that asks what a row of a later level asks."""

    level: NDArray[np.str_]

    def counts(self) -> dict[str, int]:
        """Rows of every level, "excluded" included; they sum to n."""
        found = Counter(self.level.tolist())
        return {level: found[level] for level in (*LEVELS, EXCLUDED)}


def split(
    categories: Sequence[str], tasks: Sequence[str], prompt_ids: Sequence[str], seed: int, shares: Shares | None = None
) -> Split:
    """The level of n rows by their category, task and `prompt_id`, all (n,). A task is known by category and name.

    At least one category, one task of each category and one prompt of each task stay in training, so a set with one
    category holds none out and a task with one prompt is never tested on what it was trained on. No prompt is on two
    levels: a row of an earlier level that asks the same is excluded.
    """
    n = len(prompt_ids)
    if not len(categories) == len(tasks) == n:
        raise ValueError(f"{len(categories)} categories, {len(tasks)} tasks and {n} prompts do not fit")
    wanted = shares or Shares()
    level = np.full(n, TRAIN, "U20")
    category, task, prompt = _codes(categories), _codes(list(zip(categories, tasks, strict=True))), _codes(prompt_ids)
    held = _chosen(sorted(set(categories)), wanted.categories, seed)
    level[np.isin(np.asarray(categories, np.str_), held)] = CATEGORY
    for rows in _groups(category, level == TRAIN):
        names = sorted({tasks[row] for row in rows})
        held = _chosen(names, wanted.tasks, seed, categories[rows[0]])
        level[[row for row in rows if tasks[row] in set(held)]] = TASK
    for rows in _groups(task, level == TRAIN):
        level[rows[_drawn([prompt_ids[row] for row in rows], wanted.instances, seed)]] = INSTANCE
    return Split(_without_shared(level, prompt))


def _chosen(names: Sequence[str], share: float, seed: int, *within: str) -> list[str]:
    """The round(share · names) names of lowest hash, at least one where any are wanted; one at least is left."""
    count = min(max(1, round(share * len(names))), len(names) - 1) if share else 0
    return sorted(names, key=lambda name: _hash(seed, *within, name))[:count]


def _drawn(prompts: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """(k,) rows whose prompt has a hash in the lowest `share`: a prompt keeps its place however many others come.

    The prompt of the highest hash stays in training where all would be drawn.
    """
    hashes = np.array([int(_hash(seed, prompt)[:13], 16) / 16**13 for prompt in prompts])
    drawn: NDArray[np.bool_] = hashes < share
    return drawn & (hashes < hashes.max()) if drawn.all() else drawn


def _without_shared(level: NDArray[np.str_], prompt: NDArray[np.int64]) -> NDArray[np.str_]:
    """`level` where no prompt is on two levels any more."""
    rank = np.array([LEVELS.index(name) for name in level])
    highest = np.zeros(prompt.max(initial=-1) + 1, np.int64)
    np.maximum.at(highest, prompt, rank)
    return np.where(rank < highest[prompt], EXCLUDED, level)


def _groups(codes: NDArray[np.int64], wanted: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Rows of each code among the wanted ones."""
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(codes[rows])) + 1) if len(rows) else []


def _codes(names: Sequence[object]) -> NDArray[np.int64]:
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], np.int64)


def _hash(seed: int, *names: str) -> str:
    return digest(canonical([seed, *names]))
