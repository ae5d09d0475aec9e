"""What tasks that grade written replies share: how a reply is drawn, and what is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from eval.likelihoods import loss_of, reply_turn, scored, scoring
from eval.protocol import TUNED, Item, Score
from eval.rows import RowTask
from models.dialogue import Complete, Dialogue, Request
from models.protocol import Completion, Prompt
from warehouse.errors import InputError
from warehouse.records import Message, digest


@dataclass(frozen=True, slots=True)
class Asked:
    """A reply, with the loss of the gold one as values and what is known of both as detail."""

    completion: Completion
    values: Mapping[str, float]
    detail: Mapping[str, Any]

    def score(self, graded: Score) -> Score:
        """The grade of the reply, with all that was asked beside it."""
        values, detail = {**graded.values, **self.values}, {**graded.detail, **self.detail}
        return Score(values, self.completion.text, graded.parsed, detail)


@dataclass(frozen=True, slots=True)
class Replying(RowTask):
    """A task whose replies are written and then graded.

    max_tokens   the longest reply
    stop         texts that end a reply besides the model's end token
    temperature  0 takes the likeliest token each time; above 0 replies are drawn
    top_p        of the likeliest tokens whose probability reaches it
    repeats      how often every item is asked, each time with a draw of its own; its values are averaged
    seed         of the draws
    """

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    repeats: int = 1
    seed: int = 0

    tuples: ClassVar[tuple[str, ...]] = ("stop",)

    def __post_init__(self) -> None:
        RowTask.__post_init__(self)
        try:
            Prompt((Message("user", ""),), self.max_tokens, self.temperature, self.top_p, self.stop)
        except ValueError as error:
            raise InputError(f"task {self.name!r}: {error}") from error
        if self.repeats < 1 or (self.repeats > 1 and not self.temperature):
            raise InputError(
                f"task {self.name!r}: repeats is {self.repeats} at temperature {self.temperature:g}; asking again "
                "needs a temperature above 0, and at least 1 repeat"
            )

    def items(self) -> list[Item]:
        return [replace(item, repeat=number) for item in RowTask.items(self) for number in range(self.repeats)]

    def prompt(self, item: Item, draw: int = 0) -> Prompt:
        """What is asked for `item`. Every item has draws of its own, whatever it is asked beside."""
        drawn = self.temperature > 0
        return Prompt(
            item.prompt,
            self.max_tokens,
            self.temperature,
            self.top_p if drawn else 1.0,
            self.stop,
            seed=int(digest(f"{self.seed} {item.item_id}")[:7], 16) if drawn else 0,
            draw=draw or item.repeat,
        )

    def ask(self, item: Item) -> Dialogue[Asked]:
        """Ask for a reply, and for the loss of the gold reply where there is one, in one round."""
        loss: list[Request] = []
        if item.gold and not item.repeat:
            loss = scoring(item.prompt, [reply_turn(item.gold)], item.heard)
        completion, *logprobs = yield [Complete(TUNED, self.prompt(item)), *loss]
        assert isinstance(completion, Completion)  # what `Complete` is answered by
        values, detail = loss_of(*scored(logprobs, 1, item.heard)) if loss else ({}, {})
        return Asked(completion, values, detail | told(completion))

    def attempt(self, item: Item) -> Dialogue[Score]:
        asked = yield from self.ask(item)
        return asked.score(self.grade(item, asked.completion.text))

    def grade(self, item: Item, reply: str) -> Score:
        """Values, what was parsed, and detail of one reply."""
        raise NotImplementedError


def told(completion: Completion) -> dict[str, Any]:
    """What a completion says about itself."""
    found: dict[str, Any] = {
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.usage.prompt_tokens,
        "reply_tokens": completion.usage.completion_tokens,
    }
    found |= {"cut": True} if completion.truncated else {}
    return found | ({"failure": completion.failure, "said": completion.detail} if completion.failure else {})
