"""Learning rates over a run that transformers does not have in this form, as shares of the highest rate."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor


def rising(steps: int, warmup: float) -> int:
    """Steps over which the rate rises from 0: the share `warmup` of `steps`, rounded up as in transformers.

    Rounding takes no more than a tenth of a run: else the one step of a run of one step has the rate 0, and a model is
    told as tuned that is its base.
    """
    return min(ceil(steps * warmup), floor(steps * max(warmup, 0.1) + 1e-9))


@dataclass(frozen=True, slots=True)
class Staged:
    """A linear rise, a plateau or slow fall, and a linear fall to zero: the factor of step 0, 1, ... of `steps`.

    Warm-up, stable, decay (Hu et al. 2024, MiniCPM, §4): between rise and fall the factor is 1. `Power` falls there.
    The first step of a rise has the factor 0, as in transformers.
    """

    steps: int
    warmup: float
    decay: float

    def __call__(self, step: int) -> float:
        rise, fall = rising(self.steps, self.warmup), ceil(self.steps * self.decay)
        if step < rise:
            return step / rise
        return self.between(step) * min(1.0, (self.steps - step) / max(1, fall))

    def between(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True, slots=True)
class Power(Staged):
    """min(1, a · n^b) at step n = 1, 2, ...: a rate that does not depend on how long the run is (Shen et al. 2024).

    The paper's n counts tokens and its a is multiplied by the batch size; both are constants of a run and are part of
    `a` here. It is meant for training from scratch, where nobody knows how long to go on.
    """

    a: float
    b: float

    def between(self, step: int) -> float:
        return float(min(1.0, self.a * (step + 1) ** self.b))


def factor(name: str, steps: int, warmup: float, decay: float, a: float, b: float) -> Callable[[int], float] | None:
    """The factor of "wsd" or "power"; None for the schedules that transformers has."""
    if name == "power":
        return Power(steps, warmup, decay, a, b)
    return Staged(steps, warmup, decay) if name == "wsd" else None
