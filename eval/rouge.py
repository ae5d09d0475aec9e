"""ROUGE-L: how much of a reference's word order a reply keeps."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from eval.protocol import Item, Score
from eval.replying import Replying
from eval.rows import gold_of, prompt_of
from warehouse.records import Example


@dataclass(frozen=True, slots=True)
class RougeL(Replying):
    """How close a reply is to the closest of its references (`rouge_l`, 0 to 1): the F-measure of ROUGE-L.

    Lin 2004, §3; words are lower-cased and reduced to their stems (Porter), as Super-NaturalInstructions scores it
    (Wang et al. 2022). Words are runs of a-z and 0-9, so it says nothing about other scripts. References are meta
    `references`, a list of texts, else the gold reply; the first is the one whose loss is measured.
    """

    name: ClassVar[str] = "rouge_l"
    reads: ClassVar[tuple[str, ...]] = ("references",)

    def problem(self, row: Example) -> str:
        if not prompt_of(row):
            return "has no prompt"
        given = row.meta.get("references", [])
        if isinstance(given, str) or not isinstance(given, Sequence):
            return "must hold a list of texts in meta `references`"
        return "" if any(text.strip() for text in references_of(row)) else "has no reference: neither meta nor gold"

    def gold(self, row: Example) -> str:
        return references_of(row)[0]

    def grade(self, item: Item, reply: str) -> Score:
        return Score({self.name: rouge_l(reply, references_of(item.example))})


def references_of(row: Example) -> tuple[str, ...]:
    """Meta `references`, else the gold reply."""
    return tuple(str(text) for text in row.meta.get("references") or [gold_of(row)])


def rouge_l(reply: str, references: Sequence[str]) -> float:
    """The largest F-measure of ROUGE-L of `reply` with any of `references`, in [0, 1]; 0 where no word is shared."""
    return max(float(_scorer().score(reference, reply)["rougeL"].fmeasure) for reference in references)


@cache
def _scorer() -> Any:
    from absl import logging
    from rouge_score.rouge_scorer import RougeScorer  # 2 s to import

    # what absl took for stderr when it was imported, it closes as soon as somebody sets logging up anew
    logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
    return RougeScorer(["rougeL"], use_stemmer=True)
