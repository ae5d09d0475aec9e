"""What a skill of the world is: how a problem is drawn, asked, stated and answered.

A problem is its skill and its slots. The hash of that identity, whatever the phrasing, decides which split the problem
belongs to, so no target, validation or test problem can ever be drawn for the pool.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from warehouse.records import canonical, digest

Split = Literal["pool", "target", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES: Mapping[Split, float] = {"pool": 0.85, "target": 0.05, "validation": 0.05, "test": 0.05}

Slots = Mapping[str, str]
Rng = np.random.Generator


def all_slots(slots: Slots) -> tuple[str, ...]:
    """The default identity: every slot, in the order of their names."""
    return tuple(slots[name] for name in sorted(slots))


def split_of(identity: str) -> Split:
    """The split that a problem belongs to, from the first 32 bits of its identity's hash."""
    place = int(digest(identity)[:8], 16) / 2**32
    edge = 0.0
    for split in SPLITS:
        edge += SHARES[split]
        if place < edge:
            return split
    return SPLITS[-1]


@dataclass(frozen=True, slots=True)
class Skill:
    """One family of problems.

    draw        slots of one problem
    answer      the right answer, a pure function of the slots: short and gradable by exact match
    phrasings   templates over the slots: the questions of pool, target, validation and test rows
    statements  templates over the slots and `{answer}`: the plain text that winnow-tiny is trained on
    same        what makes two problems one (`34 plus 27` and `27 plus 34`); every slot by default
    """

    name: str
    draw: Callable[[Rng], Slots]
    answer: Callable[[Slots], str]
    phrasings: tuple[str, ...]
    statements: tuple[str, ...]
    same: Callable[[Slots], tuple[str, ...]] = all_slots

    def identity(self, slots: Slots) -> str:
        """The problem's name, equal for all phrasings of it."""
        return canonical([self.name, *self.same(slots)])

    def draw_in(self, split: Split, rng: Rng) -> Slots:
        """Slots of a problem that belongs to `split`, by rejection: about 1.2 draws for the pool, 20 for the others."""
        while True:
            slots = self.draw(rng)
            if split_of(self.identity(slots)) == split:
                return slots


def pick(rng: Rng, options: tuple[str, ...]) -> str:
    """One of `options`, each as likely."""
    return options[int(rng.integers(len(options)))]


def draw_some(rng: Rng, options: tuple[str, ...], k: int) -> tuple[str, ...]:
    """`k` different options, in random order; for k much smaller than the number of options."""
    chosen: list[str] = []
    while len(chosen) < k:
        option = pick(rng, options)
        if option not in chosen:
            chosen.append(option)
    return tuple(chosen)


def between(rng: Rng, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))
