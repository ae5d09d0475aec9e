"""What a job has asked its models for so far: replies and their tokens."""

from dataclasses import dataclass

from models.dialogue import Complete, Dialogue
from models.protocol import Completion, Prompt
from synthesis.attempts import lost
from synthesis.fault import Fault


@dataclass(eq=False, slots=True)
class Tally:
    """Sums over replies, failed ones too: the order in which they come changes nothing."""

    replies: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def facts(self) -> dict[str, int]:
        """For the meta of a row."""
        return {
            "replies": self.replies,
            "failed_replies": self.failed,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens": self.tokens,
        }

    def add(self, reply: Completion) -> None:
        self.replies += 1
        self.failed += bool(reply.failure)
        self.prompt_tokens += reply.usage.prompt_tokens
        self.completion_tokens += reply.usage.completion_tokens

    def ask(self, role: str, prompt: Prompt) -> Dialogue[Completion]:
        """The reply of the model in `role`, counted."""
        (reply,) = yield [Complete(role, prompt)]
        assert isinstance(reply, Completion)  # what `Complete` is answered by
        self.add(reply)
        return reply


def text_of(reply: Completion, cut_is_lost: bool = True) -> str | Fault:
    """The text of a reply without white space around it; where there is none to use, why: one of `attempts.LOST`."""
    if reason := lost(reply, cut_is_lost):
        return Fault(reason, reply.detail)
    return reply.text.strip() or Fault("empty")
