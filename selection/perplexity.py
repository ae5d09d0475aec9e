"""`perplexity`: rows by how hard their reply is for a model: the highest, the middle or the lowest mean NLL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from scipy.stats import rankdata

from selection.answer import HIGHER, LOWER, selection, summary
from selection.histogram import histogram
from selection.problem import Problem
from selection.replies import FIT, WHY, counted, replies_of
from warehouse.errors import InputError
from warehouse.records import Floats, Selection, Spec

Take = Literal["top", "mid", "low"]


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Rows ranked by the mean negative log-likelihood of their reply given the prompt, in nats per token.

    response  the signal: model, template and maximum length
    take      `top`: the highest first; `low`: the lowest first; `mid`: from the median outwards

    Scores are the NLL, "higher is better" for `top`, "lower is better" for `low`; for `mid` how far a row's rank is
    from the median, as a share of all ranks, "lower is better". Rows without a reply and rows cut to the model's length
    come after all others, with score 0. Raises `InputError` where a reply's NLL is not finite.
    """

    compares: ClassVar[bool] = False

    response: Spec
    take: Take = "top"

    def __post_init__(self) -> None:
        if self.take not in get_args(Take):
            raise InputError(f"take is {self.take!r}; give one of {', '.join(get_args(Take))}")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"response": self.response}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        replies = replies_of(problem, "response")
        fit = np.flatnonzero(replies.fit)
        scores = np.zeros(problem.n)
        scores[fit] = from_median(replies.nll[fit]) if self.take == "mid" else replies.nll[fit]
        worse = -scores if self.take == "top" else scores
        rows = np.lexsort((problem.keys, worse, replies.state))[: problem.budget]
        judged = scores[rows][replies.fit[rows]]
        direction = HIGHER if self.take == "top" else LOWER
        reasons = [
            f"nll={nll:.4g} tokens={tokens}" + (f" filled={WHY[state]}" if state != FIT else "")
            for nll, tokens, state in zip(
                replies.nll[rows].tolist(), replies.tokens[rows].tolist(), replies.state[rows].tolist(), strict=True
            )
        ]
        return selection(
            rows,
            scores[rows],
            reasons,
            direction,
            take=self.take,
            **summary(judged, direction),
            filled=counted(replies.state[rows]),
            not_judged=counted(replies.state),
            pool_scores=histogram(scores[fit]),
        )


def from_median(values: Floats) -> Floats:
    """(n,) how far the rank of each of `values` (n,) is from the middle, in [0, 1/2); equal values share a rank."""
    n = len(values)
    return np.asarray(np.abs(rankdata(values) - (n + 1) / 2) / max(n, 1))
