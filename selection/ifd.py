"""`ifd`: instruction-following difficulty, how little a prompt helps a model with its reply (Li et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.histogram import histogram
from selection.problem import Problem
from selection.replies import FIT, WHY, Replies, counted, replies_of
from warehouse.errors import InputError
from warehouse.records import Floats, Selection, Spec

Policy = Literal["loss_ratio", "perplexity_ratio"]
NO_RATIO, MISLEADING = len(WHY) + 1, len(WHY) + 2
REASONS = {MISLEADING: "ifd_1_or_more", **WHY, NO_RATIO: "no_ratio"}
"""Why a row is not kept, in the order in which such rows come after all others."""


@dataclass(frozen=True, slots=True)
class Ifd:
    """Rows by the ratio of the reply's loss with its prompt to that without; the highest below 1 first.

    response, response_alone  the signals: mean NLL of the reply given the prompt, and of the reply alone
    policy                    `loss_ratio`: L(y|x) / L(y); `perplexity_ratio`: exp(L(y|x) - L(y))

    Where the ratio is 1 or more the prompt misleads: such rows come after all others, the nearest to 1 first, then rows
    that were cut to the model's length or have no reply or no ratio (a reply of loss 0 alone), with score 0. Scores are
    the ratios; higher is better. Raises `InputError` where a reply's NLL is not finite.
    """

    compares: ClassVar[bool] = False

    response: Spec
    response_alone: Spec
    policy: Policy = "loss_ratio"

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise InputError(f"policy is {self.policy!r}; give one of {', '.join(get_args(Policy))}")

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"response": self.response, "response_alone": self.response_alone}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        given, alone = replies_of(problem, "response"), replies_of(problem, "response_alone")
        state = np.maximum(given.state, alone.state)
        scores = self._ratios(given, alone)
        state[(state == FIT) & ~np.isfinite(scores)] = NO_RATIO
        scores[state != FIT] = 0.0
        state[(state == FIT) & (scores >= 1)] = MISLEADING
        tier = np.argsort([FIT, *REASONS])[state]
        rows = np.lexsort((problem.keys, np.where(state == MISLEADING, scores, -scores), tier))[: problem.budget]
        kept = scores[rows][state[rows] == FIT]
        reasons = [
            f"nll={first:.4g} nll_alone={second:.4g}" + (f" filled={REASONS[why]}" if why != FIT else "")
            for first, second, why in zip(
                given.nll[rows].tolist(), alone.nll[rows].tolist(), state[rows].tolist(), strict=True
            )
        ]
        return selection(
            rows,
            scores[rows],
            reasons,
            HIGHER,
            policy=self.policy,
            **summary(kept, HIGHER),
            filled=counted(state[rows], REASONS),
            not_kept=counted(state, REASONS),
            pool_scores=histogram(scores[(state == FIT) | (state == MISLEADING)]),
        )

    def _ratios(self, given: Replies, alone: Replies) -> Floats:
        if self.policy == "perplexity_ratio":
            with np.errstate(over="ignore"):
                return perplexity_ratio(given.nll, alone.nll)
        return loss_ratio(given.nll, alone.nll)


def loss_ratio(given: Floats, alone: Floats) -> Floats:
    """L(y|x) / L(y), NaN where the reply alone has no loss: 1.2 and 2.0 nats give 0.6."""
    return np.asarray(np.divide(given, alone, out=np.full(len(given), np.nan), where=alone > 0))


def perplexity_ratio(given: Floats, alone: Floats) -> Floats:
    """exp(L(y|x) - L(y)): 1.2 and 2.0 nats give 0.4493."""
    return np.asarray(np.exp(given - alone))
