"""`length`: the longest rows. A control: several published methods are this in disguise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.problem import Problem
from selection.topk import ranked
from warehouse.records import Selection, Spec

LENGTH_BINS = 60


@dataclass(frozen=True, slots=True)
class Length:
    """Longest first, measured in tokens of the model to be tuned or in characters.

    tokenizer  fingerprint of the tokenizer that counts the tokens; not read where the unit is characters

    Scores are the lengths.
    """

    compares: ClassVar[bool] = False

    unit: Literal["tokens", "characters"] = "tokens"
    tokenizer: str = ""

    @property
    def reads(self) -> Mapping[str, Spec]:
        """Signal "length", (n,). Raises `ValueError` for tokens of an unnamed tokenizer: no key may stand for any."""
        if self.unit == "characters":
            return {"length": Spec("length", {"unit": self.unit})}
        if not self.tokenizer:
            raise ValueError("a length in tokens needs the fingerprint of its tokenizer")
        return {"length": Spec("length", {"unit": self.unit, "tokenizer": self.tokenizer})}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        lengths = np.asarray(problem.candidates["length"])
        rows = ranked(lengths, problem.keys, problem.budget)
        chosen = lengths[rows]
        reasons = [f"length={length} unit={self.unit}" for length in chosen.tolist()]
        counts, edges = np.histogram(lengths, LENGTH_BINS)
        facts = {"order": "longest first", **summary(chosen, HIGHER)}
        pool_scores = {"edges": edges.tolist(), "counts": counts.tolist()}
        return selection(rows, chosen, reasons, HIGHER, pool_scores=pool_scores, **facts)
