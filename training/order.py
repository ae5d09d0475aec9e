"""In which order rows are trained on: decided before the run, so that resuming and many processes change nothing."""

import numpy as np
from numpy.typing import NDArray

from warehouse.records import Rows

WINDOW = 8  # steps whose rows are sorted by length together: little padding, and still nearly a random order


def order(lengths: NDArray[np.int64], epochs: float, step_rows: int, by_length: bool, rng: np.random.Generator) -> Rows:
    """Row numbers (round(epochs · n),) for the whole run: each epoch a new permutation, a last part-epoch cut off.

    `step_rows` rows make one optimizer step. With `by_length`, rows of like length share a step: windows of 8 steps are
    sorted by length and their steps shuffled. Micro-batches are consecutive parts of a step, so the same rows share a
    step however it is divided.
    """
    n = len(lengths)
    passes = []
    for number in range(int(np.ceil(epochs))):
        rows = rng.permutation(n).astype(np.int64)
        open_step = -number * n % step_rows  # rows that the last step of the pass before still takes
        passes.append(_by_length(rows, open_step, lengths, step_rows, rng) if by_length else rows)
    return np.concatenate(passes)[: max(1, round(epochs * n))]


def within_steps(plan: Rows, lengths: NDArray[np.int64], step_rows: int) -> Rows:
    """`plan` with the rows of each step sorted by length: steps hold the same rows, and their batches less padding."""
    step = np.arange(len(plan)) // step_rows
    return plan[np.lexsort((lengths[plan], step))]


def _by_length(rows: Rows, start: int, lengths: NDArray[np.int64], step_rows: int, rng: np.random.Generator) -> Rows:
    """The pass with its whole steps from `start` on grouped by length.

    Windows never reach into another pass: that would put the same row into a step several times.
    """
    stop = start + max(0, len(rows) - start) // step_rows * step_rows
    windows = [rows[i : min(i + WINDOW * step_rows, stop)] for i in range(start, stop, WINDOW * step_rows)]
    grouped = [_grouped(window, lengths, step_rows, rng) for window in windows]
    return np.concatenate([rows[:start], *grouped, rows[stop:]])


def _grouped(window: Rows, lengths: NDArray[np.int64], step_rows: int, rng: np.random.Generator) -> Rows:
    ordered = window[np.argsort(lengths[window], kind="stable")]
    return rng.permutation(ordered.reshape(-1, step_rows), axis=0).reshape(-1)
