"""Arithmetic of task vectors: what fine-tuning changed in a weight, the same weight of several models at a time.

A task vector is δ = tuned weight - base weight. All functions take the δ of one weight, one tensor per model and all of
one shape, and give the δ of the merged model.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

CHUNK = 1 << 24  # entries looked at at once
HALF = 1 << 16


def linear(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ w δ: task arithmetic (Ilharco et al. 2023); with weights 1/n the mean of the models."""
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total += weight * delta
    return total


def trimmed(delta: torch.Tensor, least: float) -> torch.Tensor:
    """Entries below the magnitude `least` set to 0 (TIES: trim)."""
    return delta.masked_fill(delta.abs() < least, 0.0)


def elected(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sign of each entry that has more total magnitude behind it; 0 where both have the same (TIES: elect)."""
    return linear(deltas, [1.0] * len(deltas)).sign()


def disjoint_mean(deltas: Sequence[torch.Tensor], signs: torch.Tensor) -> torch.Tensor:
    """The mean over the models whose entry has the elected sign; 0 where there is none (TIES: disjoint merge)."""
    total, count = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta in deltas:
        agrees = (delta.sign() == signs) & (delta != 0)
        total += delta.masked_fill(~agrees, 0.0)
        count += agrees
    return total / count.clamp_min(1.0)


def ties(deltas: Sequence[torch.Tensor], least: Sequence[float]) -> torch.Tensor:
    """TIES (Yadav et al. 2023, algorithm 1) with the least magnitude that each model's trim leaves."""
    kept = [trimmed(delta, limit) for delta, limit in zip(deltas, least, strict=True)]
    return disjoint_mean(kept, elected(kept))


def dropped(delta: torch.Tensor, drop: float, generator: torch.Generator) -> torch.Tensor:
    """DARE (Yu et al. 2024, §3.2): each entry set to 0 with probability `drop`, the others divided by 1 - `drop`."""
    chance = torch.rand(delta.shape, generator=generator)
    return delta.masked_fill(chance < drop, 0.0) / (1 - drop)


def threshold(parts: Callable[[], Iterable[torch.Tensor]], density: float) -> float:
    """The magnitude of the last entry among the largest, a share `density` of all entries of float32 tensors, exactly.

    `parts` is walked through twice; memory is bounded by one tensor. At least one entry is above or at it. The bits of
    a positive float, read as a whole number, grow with it, so counting their upper and then their lower half finds it.
    """
    upper = _counts(parts, lambda bits: bits >> 16)
    keep = max(1, round(density * int(upper.sum())))
    top, above = _place(upper, keep)
    lower = _counts(parts, lambda bits: (bits & (HALF - 1))[(bits >> 16) == top])
    low, _ = _place(lower, keep - above)
    return float(torch.tensor(top << 16 | low, dtype=torch.int32).view(torch.float32))


def _counts(parts: Callable[[], Iterable[torch.Tensor]], half: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """(65536,) how many entries have each value of a half of their magnitude's bits."""
    counts = torch.zeros(HALF, dtype=torch.int64)
    for part in parts():
        for chunk in torch.split(part.abs().flatten(), CHUNK):
            counts += torch.bincount(half(chunk.view(torch.int32)).long(), minlength=HALF)
    return counts


def _place(counts: torch.Tensor, keep: int) -> tuple[int, int]:
    """The value at which, counted from the largest, `keep` entries are reached, and how many are above it."""
    reached = counts.flip(0).cumsum(0)
    at = int(torch.searchsorted(reached, keep))
    return HALF - 1 - at, int(reached[at - 1]) if at else 0
