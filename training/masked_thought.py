"""Masked thought: reply tokens hidden from the model as inputs, so that it cannot lean on the step before alone.

Chen et al. 2024, "Masked Thought": while labels stay as they are, a share of the target tokens is replaced in the
input by a mask token. The share rises linearly from 0 over the first two thirds of the steps and then stays.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from warehouse.records import Floats

RISE = 2 / 3
IGNORED = -100
# The constants of splitmix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators").
STEP, FIRST, SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Masking:
    """Hides `share` of the reply tokens of a run of `steps` steps behind `token`."""

    share: float
    steps: int
    token: int
    seed: int

    def share_at(self, step: int) -> float:
        """The share at step 0, 1, ..., 0 at first."""
        return self.share * min(1.0, step / (RISE * self.steps))

    def __call__(self, inputs: dict[str, Any], step: int) -> dict[str, Any]:
        """The batch with some input tokens replaced. What is drawn depends on seed, step, row and place in the row
        alone: not on how rows are batched, packed or shared among processes.
        """
        ids, labels, rows = (inputs[name] for name in ("input_ids", "labels", "rows"))
        places = inputs.get("position_ids")
        placed = np.arange(ids.shape[1])[None].repeat(len(ids), 0) if places is None else places.cpu().numpy()
        drawn = uniform(self.seed, step, rows.cpu().numpy(), placed)
        hidden = torch.from_numpy(drawn < self.share_at(step)).to(ids.device) & (labels != IGNORED)
        return inputs | {"input_ids": ids.masked_fill(hidden, self.token)}


def uniform(seed: int, step: int, rows: NDArray[np.int64], places: NDArray[np.int64]) -> Floats:
    """A number in [0, 1) per token, of the shape of `rows` and `places`: a hash of all four."""
    state = np.zeros(rows.shape, np.uint64)
    for part in (np.int64(seed), np.int64(step), rows.astype(np.int64), places.astype(np.int64)):
        state = _mixed(state ^ np.asarray(part).astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + STEP
    state = (state ^ (state >> np.uint64(30))) * FIRST
    state = (state ^ (state >> np.uint64(27))) * SECOND
    return state ^ (state >> np.uint64(31))
