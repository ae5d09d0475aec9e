"""Three tests of a finished row: the filters of the pool, a judge's score, and whether a second model agrees."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

from models.dialogue import Dialogue
from models.protocol import Failure, Prompt
from models.telling import telling
from synthesis.attempts import TEMPLATES
from synthesis.closeness import rouge_l
from synthesis.fault import Fault
from synthesis.self_instruct.novelty import rouge_words
from synthesis.tally import Tally, text_of
from warehouse.block import Block
from warehouse.cleaning.parameters import check_count, check_share, check_texts
from warehouse.cleaning.table import ROW_FILTERS
from warehouse.errors import InputError
from warehouse.records import Message, Messages

JUDGE, SECOND = "judge", "second"
JUDGED = telling(TEMPLATES, "quality_judge.v1")
SCORE = re.compile(r"[\s*]*(?:score[\s*]*:)?[\s*]*([1-5])(?:\s*/\s*5|\.0)?[\s*.]*", re.IGNORECASE)
SCORE_TOKENS = 16
BEST = 5

FILTERS = ("empty_reply", "refusal", "repetition", "code_fence", "mojibake", "pii")
"""Filters of the pool that need nothing but the turns of a row, and no thresholds of a user's."""
OF_FILTERS: frozenset[str] = frozenset(reason for name in FILTERS for reason in ROW_FILTERS[name]().reasons)
OF_MODELS = frozenset(
    f"{role}_{failure}"
    for role in (JUDGE, SECOND)
    for failure in (*get_args(Failure), "cut_off", "prompt_too_long")
    if failure
)
OF_QUALITY = OF_FILTERS | OF_MODELS | {"score_missing", "low_score", "disagreement"}


@dataclass(frozen=True, slots=True)
class Quality:
    """Which tests a row must pass, in this order.

    pre_filter      names of the pool's filters, with their defaults: one of `FILTERS`
    self_judge      the least score of 1 to 5 that the model in role "judge" must give; 1 only notes it, 0 asks nobody
    ensemble_agree  the least ROUGE-L of the reply to that of the model in role "second"; 0 asks nobody
    """

    pre_filter: Sequence[str] = ()
    self_judge: int = 0
    ensemble_agree: float = 0.0
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        check_texts("pre_filter", self.pre_filter, FILTERS)
        check_count("self_judge", self.self_judge)
        check_share("ensemble_agree", self.ensemble_agree)
        if self.self_judge > BEST:
            raise InputError(f"self_judge is {self.self_judge}; the best score is {BEST}")

    @property
    def roles(self) -> tuple[str, ...]:
        return (*((JUDGE,) if self.self_judge else ()), *((SECOND,) if self.ensemble_agree else ()))

    @property
    def templates(self) -> list[str]:
        return [JUDGED.key] if self.self_judge else []

    def tested(self, messages: Messages, tally: Tally) -> Dialogue[tuple[dict[str, Any], Fault | None]]:
        """What was found out about a row of a question and a reply, and why it is not kept, if it is not."""
        facts = dict[str, Any]()
        if fault := filtered(messages, self.pre_filter):
            return facts, fault
        if self.self_judge:
            score = yield from self._score(messages, tally)
            if isinstance(score, Fault):
                return facts, score
            facts["judge_score"] = score
            if score < self.self_judge:
                return facts, Fault("low_score", str(score))
        if self.ensemble_agree:
            agreement = yield from self._agreement(messages, tally)
            if isinstance(agreement, Fault):
                return facts, agreement
            facts["agreement"] = round(agreement, 4)
            if agreement < self.ensemble_agree:
                return facts, Fault("disagreement", f"ROUGE-L {agreement:.3f}")
        return facts, None

    def _score(self, messages: Messages, tally: Tally) -> Dialogue[int | Fault]:
        told = JUDGED(instruction=messages[-2].content, reply=messages[-1].content)
        reply = yield from tally.ask(JUDGE, Prompt((Message("user", told),), SCORE_TOKENS))
        text = text_of(reply)
        return _of_role(JUDGE, text) if isinstance(text, Fault) else read_score(text)

    def _agreement(self, messages: Messages, tally: Tally) -> Dialogue[float | Fault]:
        reply = yield from tally.ask(SECOND, Prompt(messages[:-1], self.max_tokens))
        text = text_of(reply)
        if isinstance(text, Fault):
            return _of_role(SECOND, text)
        return rouge_l(rouge_words(messages[-1].content), rouge_words(text))


def read_score(reply: str) -> int | Fault:
    """The score of a reply that is a score and nothing else."""
    found = SCORE.fullmatch(reply)
    return Fault("score_missing", reply[:80]) if found is None else int(found[1])


def filtered(messages: Messages, names: Sequence[str]) -> Fault | None:
    """What the first of the filters `names` that objects to a row says; None where none does."""
    if not names:
        return None
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    block = Block(pa.table({"messages": [turns], "source": [""], "meta": ["{}"]}))
    for name in names:
        found = ROW_FILTERS[name]()(block)
        if len(found.rows):
            return Fault(found.reasons[0], f"{name}: {found.details[0]}")
    return None


def _of_role(role: str, fault: Fault) -> Fault:
    """A fault of a reply that is not the row's own."""
    return Fault(f"{role}_{fault.reason}", fault.detail)
