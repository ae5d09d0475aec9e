"""The reverse of any method: what it would choose last, as a control."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.answer import HIGHER, LOWER, NONE, summary
from selection.problem import Method, Problem, signals_of
from selection.replies import WHY
from warehouse.records import Selection, Spec

FLIPPED = {HIGHER: LOWER, LOWER: HIGHER, NONE: NONE}
NOT_JUDGED = {f"filled={why}" for why in WHY.values()}
"""Rows the method could not judge: they are not its worst, and stay last."""


@dataclass(frozen=True, slots=True)
class Reverse:
    """Rows from the last to the first of `method`'s answer for a budget of the whole pool.

    Scores and reasons are the method's own, the direction is turned round. Rows that it could not judge (no reply, cut
    to the model's length) stay last. Diagnostics other than `cut_off`, `mean_score` and `filled` are about the whole
    pool. Takes what the method takes for all n rows: n times the number of lists where it keeps a list per target.
    """

    method: Method

    @property
    def compares(self) -> bool:
        return self.method.compares

    @property
    def reads(self) -> Mapping[str, Spec]:
        return self.method.reads

    @property
    def target_reads(self) -> Mapping[str, Spec]:
        return signals_of(self.method).targets

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        whole = self.method(replace(problem, budget=problem.n), rng)
        last = np.array([not NOT_JUDGED.isdisjoint(reason.split()) for reason in whole.reasons])
        places = np.concatenate([np.flatnonzero(~last)[::-1], np.flatnonzero(last)])[: problem.budget]
        reasons = tuple(whole.reasons[place] for place in places)
        chosen = Selection(whole.rows[places], whole.weights[places], whole.scores[places], reasons)
        return replace(chosen, diagnostics={**whole.diagnostics, **_facts(chosen, whole, last[places])})


def _facts(chosen: Selection, whole: Selection, last: NDArray[np.bool_]) -> dict[str, Any]:
    direction = FLIPPED[whole.diagnostics["direction"]]
    facts: dict[str, Any] = {"direction": direction, "reversed": True}
    judged = chosen.scores[~last]
    facts |= {name: value for name, value in summary(judged, direction).items() if name in whole.diagnostics}
    if "filled" in whole.diagnostics:
        facts["filled"] = dict.fromkeys(whole.diagnostics["filled"], 0) | _filled(chosen)
    return facts


def _filled(chosen: Selection) -> dict[str, int]:
    parts = [part for reason in chosen.reasons for part in reason.split() if part.startswith("filled=")]
    return {part.removeprefix("filled="): count for part, count in Counter(parts).items()}
