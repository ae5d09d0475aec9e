"""One training run on several processes: which rows of a step each takes, so that the steps stay those of one process.

An optimizer step holds the same rows however many processes share it, so their number changes neither what is learnt
nor how long the schedule is, and may itself change when a run resumes.
"""

from dataclasses import dataclass

import numpy as np

from warehouse.errors import InputError
from warehouse.records import Rows


@dataclass(frozen=True, slots=True)
class World:
    """Which of `size` processes this one is, counted from 0."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise InputError(f"process {self.rank} of {self.size}: the number must be 0 to {self.size - 1}")


ALONE = World()


def shares(step_rows: int, batch_size: int, size: int) -> tuple[int, int]:
    """Rows per batch (`batch_size` at most) and batches per step of each of `size` processes.

    Both are as small as `step_rows` rows allow; where these do not divide evenly, some batches get a filler. Raises
    `InputError` where a process would have no row.
    """
    if size > step_rows:
        raise InputError(
            f"{size} workers would share optimizer steps of {step_rows} rows (batch_size · gradient_accumulation); "
            f"use {step_rows} workers at most, or larger steps"
        )
    accumulation = -(-step_rows // (size * batch_size))
    return -(-step_rows // (size * accumulation)), accumulation


def filled(plan: Rows, step_rows: int, slots: int, filler: int) -> Rows:
    """`plan` (n,) with each step of `step_rows` rows, the last part-step too, filled up to `slots` with `filler`."""
    steps = -(-len(plan) // step_rows)
    whole = np.full(steps * step_rows, filler, np.int64)
    whole[: len(plan)] = plan
    rest = np.full((steps, slots - step_rows), filler, np.int64)
    return np.concatenate([whole.reshape(steps, step_rows), rest], axis=1).reshape(-1)
