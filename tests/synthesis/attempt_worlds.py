"""Learners, verifiers and encoders that play back, for the synthesizers that work on a model's own attempts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.canned import CannedModel
from models.converse import Collected, converse
from models.dialogue import Accepted, Rejected
from models.protocol import Completion, Encoder, Failure, Prompt, Usage, Verdict, Verifier
from synthesis.protocol import Synthesizer
from warehouse.records import Example, Message

Rows = list[Accepted | Rejected]


def asks(question: str, gold: str, **meta: Any) -> Example:
    return Example((Message("user", question), Message("assistant", gold)), "s", meta)


class Talker(CannedModel):
    """Replies by a function of the prompt; a reply that is the name of a failure in angle brackets is that failure."""

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        return [self._said(reply) for reply in super().complete(prompts)]

    def _said(self, reply: Completion) -> Completion:
        names: dict[str, Failure] = {"<unreachable>": "unreachable", "<filtered>": "filtered", "<too_long>": "too_long"}
        if failure := names.get(reply.text):
            return Completion("", "error", Usage(0, 0), failure=failure, detail="as told")
        if reply.text == "<length>":
            return Completion("and so on and", "length", Usage(1, 9))
        return reply


class SameText:
    """A reply is right where it contains the gold reply's last word; `asked` keeps what was verified."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def fingerprint(self) -> str:
        return "same text"

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        self.asked.extend(reply for reply, _ in asked)
        return [
            Verdict(True, wanted) if (wanted := item.messages[-1].content.split()[-1]) in reply.split() else WRONG
            for reply, item in asked
        ]


WRONG = Verdict(False, "something else", "wrong")


def made(
    job: Synthesizer,
    seeds: Sequence[Example],
    models: Mapping[str, CannedModel],
    seed: int = 0,
    verifiers: Mapping[str, Verifier] | None = None,
    encoders: Mapping[str, Encoder] | None = None,
    wave: int = 1024,
) -> Rows:
    """The rows of a whole job, in order.

    Every reason is one of the job's, every role one that it said it needs, every row has parents and a template, and no
    seed is passed over in silence.
    """
    taken = Collected()
    needs = job.needs
    converse(
        [job(seeds, np.random.default_rng(seed))],
        {role: model for role, model in models.items() if role in needs.models},
        {role: encoder for role, encoder in (encoders or {}).items() if role in needs.encoders},
        taken,
        wave,
        {role: verifier for role, verifier in (verifiers or {}).items() if role in needs.verifiers},
    )
    rows = taken.rows()
    assert {row.reason for row in rows if isinstance(row, Rejected)} <= job.reasons
    examples = [row.example for row in rows if row.example is not None]
    assert all(row.meta["parents"] and isinstance(row.meta["template"], list) for row in examples)
    assert {parent for row in examples for parent in row.meta["parents"]} == {row.sample_id for row in seeds}
    return rows


def accepted(rows: Rows) -> list[Example]:
    return [row.example for row in rows if isinstance(row, Accepted)]


def reasons(rows: Rows) -> Counter[str]:
    return Counter(row.reason if isinstance(row, Rejected) else "" for row in rows)
