"""Replies that cannot be used as values: a reason from a closed list, never a hole."""

from dataclasses import dataclass

from models.dialogue import Complete, Dialogue, Rejected
from models.protocol import Completion, Prompt
from synthesis.attempts import lost
from warehouse.records import Example


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something cannot be used: a reason of its synthesizer's list, and what was found."""

    reason: str
    detail: str = ""

    def rejects(self, seed: Example | None) -> Rejected:
        """Nothing came of `seed`, for this reason."""
        named = seed and Example(seed.messages, seed.source, {"parents": [seed.sample_id]})
        return Rejected(self.reason, self.detail, named)


def ask(role: str, prompt: Prompt) -> Dialogue[str | Fault]:
    """The text that the model in `role` replies, without white space around it; where there is none, why: one of
    `attempts.LOST`."""
    (reply,) = yield [Complete(role, prompt)]
    assert isinstance(reply, Completion)  # what `Complete` is answered by
    if reason := lost(reply):
        return Fault(reason, reply.detail)
    return reply.text.strip() or Fault("empty")
