"""Running a synthesizer over canned replies, and the seeds to run it on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from models.canned import CannedEncoder, CannedModel
from models.converse import Collected, converse
from models.dialogue import Accepted, Rejected
from models.protocol import Completion, Failure, Prompt, Usage
from synthesis.protocol import Synthesizer
from warehouse.records import Example, Message

FAILURES: tuple[tuple[Completion, str], ...] = (
    *((Completion("", "error", Usage(1, 0), failure=failure), failure) for failure in get_args(Failure) if failure),
    (Completion("half a", "length", Usage(1, 2)), "cut_off"),
    (Completion("text", "stop", Usage(1, 1), truncated=True), "prompt_too_long"),
    (Completion("  ", "stop", Usage(1, 1)), "empty"),
)
"""Replies that no text can be taken from, and the reason that a row gets for each."""


class Broken(CannedModel):
    """Replies the same unusable completion to every prompt."""

    def __init__(self, completion: Completion) -> None:
        super().__init__({})
        self.completion = completion

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        self.prompts.extend(prompts)
        return [self.completion for _ in prompts]


def seed(question: str, reply: str, **meta: Any) -> Example:
    return Example((Message("user", question), Message("assistant", reply)), "seeds", meta)


def made(
    job: Synthesizer,
    seeds: Sequence[Example] = (),
    replies: Mapping[str, CannedModel | Callable[[Prompt], str]] | None = None,
    draw: int = 0,
    encoder: Any = None,
) -> list[Accepted | Rejected]:
    """The rows of a job whose roles are answered by `replies`; no other role may be asked than it says it needs."""
    taken = Collected()
    models = {role: CannedModel(found) if callable(found) else found for role, found in (replies or {}).items()}
    assert set(models) <= set(job.needs.models)
    encoders = {role: encoder or CannedEncoder() for role in job.needs.encoders}
    converse([job(seeds, np.random.default_rng(draw))], models, encoders, emit=taken)
    rows = taken.rows()
    assert all(row.example.meta["parents"] for row in rows if row.example and seeds)
    if job.needs.seeds:  # none is passed over in silence
        ended = {parent for row in rows if row.example for parent in row.example.meta["parents"]}
        assert ended == {row.sample_id for row in seeds}
    assert {row.reason for row in rows if isinstance(row, Rejected)} <= job.reasons
    return rows


def accepted(rows: Sequence[Accepted | Rejected]) -> list[Example]:
    return [row.example for row in rows if isinstance(row, Accepted)]


def reasons(rows: Sequence[Accepted | Rejected]) -> Counter[str]:
    return Counter(row.reason if isinstance(row, Rejected) else "" for row in rows)
