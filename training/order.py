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
    passes = [rng.permutation(n) for _ in range(int(np.ceil(epochs)))]
    rows = np.concatenate(passes)[: max(1, round(epochs * n))].astype(np.int64)
    if not by_length:
        return rows
    windows = [rows[start : start + WINDOW * step_rows] for start in range(0, len(rows), WINDOW * step_rows)]
    return np.concatenate([_by_length(window, lengths, step_rows, rng) for window in windows])


def _by_length(window: Rows, lengths: NDArray[np.int64], step_rows: int, rng: np.random.Generator) -> Rows:
    ordered = window[np.argsort(lengths[window], kind="stable")]
    full = len(ordered) // step_rows * step_rows
    steps = rng.permutation(ordered[:full].reshape(-1, step_rows), axis=0).reshape(-1)
    return np.concatenate([steps, ordered[full:]])  # only the last window of a run has a shorter step; it stays last
