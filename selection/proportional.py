"""`proportional`: random rows of every source in proportion to its size, up to a cap."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.answer import NONE, selection
from selection.mixing import capped_shares, in_proportion
from selection.problem import Problem
from selection.random_rows import shuffled
from warehouse.errors import InputError
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class Proportional:
    """Examples-proportional mixing: the share of source i is r_i = min(e_i, cap) / Σ_j min(e_j, cap).

    cap          rows beyond which a source does not weigh more
    temperature  shares are r_i ^ (1 / temperature), brought to sum 1: above 1 they come nearer to each other

    Any beginning of the answer is about in proportion too, so a smaller budget with the same seed draws the first of
    the same rows. A source that runs out leaves its share to the others in proportion. Scores are 0 and have no
    direction. Raises `InputError` where the pool's rows have no source.
    """

    compares: ClassVar[bool] = False

    cap: int = 3000
    temperature: float = 1.0

    def __post_init__(self) -> None:
        capped_shares(np.ones(1), self.cap, self.temperature)

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        if "source" not in problem.groups:
            raise InputError("proportional draws from the sources of the pool by size, but its rows have no source")
        sources, source_of, sizes = np.unique(problem.groups["source"], return_inverse=True, return_counts=True)
        shares = capped_shares(sizes, self.cap, self.temperature)
        drawn = shuffled(problem, rng)
        order = in_proportion(shares, source_of[drawn], rng.permutation(len(sources)))
        rows = drawn[order[: problem.budget]]
        names = ["_".join(str(source).split()) for source in sources]
        reasons = [f"source={names[at]} share={shares[at]:.4g}" for at in source_of[rows]]
        counts = np.bincount(source_of[rows], minlength=len(sources))
        facts = {
            "per_source": {str(source): int(count) for source, count in zip(sources, counts, strict=True)},
            "shares": {str(source): float(share) for source, share in zip(sources, shares, strict=True)},
            "used_up": int((counts == sizes).sum()),
        }
        return selection(rows, np.zeros(len(rows)), reasons, NONE, **facts)
