"""What synthesizers share that ask for replies to seeds: the seed's question and gold reply, its random stream, and why
a reply cannot be used."""

from pathlib import Path
from typing import get_args

import numpy as np

from models.dialogue import Rejected
from models.protocol import Completion, Failure
from models.verify.reference import question_of
from synthesis.protocol import Seeds
from synthesis.skill import Rng
from warehouse.records import Example, Message, Messages

LEARNER = "learner"
"""The role of the model that will be trained on the rows."""

TEMPLATES = Path(__file__).parent / "templates"
NO_QUESTION, NO_REPLY = "no_question", "no_reply"
UNUSABLE = frozenset({NO_QUESTION, NO_REPLY})
LOST: frozenset[str] = frozenset(get_args(Failure)) - {""} | {"cut_off", "prompt_too_long"}
"""Why a reply cannot be used: a failure of the model's, a reply cut at its last token, a prompt cut at its start."""

JUDGE_TOKENS = 8  # a yes or a no
FAILED_JUDGE = frozenset(f"judge_{reason}" for reason in LOST)
"""The same of a judge's reply."""


def gold_of(seed: Example) -> str:
    """The content of the last turn where that is the assistant's, else ""."""
    last = seed.messages[-1:]
    return last[0].content if last and last[0].role == "assistant" else ""


def unusable(seed: Example) -> str:
    """Why nothing can be made of a seed: no turn of the user's, or no gold reply; "" for a seed that has both."""
    if not any(turn.role == "user" and turn.content.strip() for turn in question_of(seed)):
        return NO_QUESTION
    return "" if gold_of(seed).strip() else NO_REPLY


def lost(reply: Completion, whole: bool = True) -> str:
    """Why a reply cannot be used, one of `LOST`; "" for one that can.

    Where `whole` is not wanted, a reply that was cut off or is empty can be.
    """
    if reply.failure:
        return reply.failure
    if reply.truncated:
        return "prompt_too_long"
    if whole and reply.finish_reason == "length":
        return "cut_off"
    return "" if reply.text.strip() or not whole else "empty"


def answered(question: Messages, reply: str) -> Messages:
    """`question` with `reply` behind it."""
    return (*question, Message("assistant", reply))


def asked_instead(question: Messages, text: str) -> Messages:
    """`question` with the content of its last turn replaced by `text`."""
    return (*question[:-1], Message("user", text))


def streams(seeds: Seeds, rng: Rng) -> list[Rng]:
    """One random stream per seed, a function of its messages: neither its place nor who stands beside it matters.

    Seeds of equal messages share a stream, so that what was asked for the one is not bought again for the other.
    """
    root = int(rng.integers(2**63))
    return [np.random.default_rng([root, int(seed.sample_id, 16)]) for seed in seeds]


def turned_away(seed: Example, source: str, reason: str, detail: str = "") -> Rejected:
    """A seed that no row was made of, as it is."""
    return Rejected(reason, detail, Example(seed.messages, source, {"parents": [seed.sample_id], "template": []}))
