"""What every evaluation task answers to. The score of an item is apart from the metric over items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.dialogue import Dialogue
from models.protocol import Verifier
from warehouse.records import Example, Messages, Spec

TUNED = "tuned"  # the role of the model that is examined


@dataclass(frozen=True, slots=True)
class Item:
    """One test example as it is put to a model.

    prompt         all turns before the reply: a system turn, worked examples, the example's own turns
    gold           the gold reply, "" where a task needs none
    given          how many turns at the start of `prompt` are not the example's own (system turn, worked examples)
    choices        the replies to choose from, where a task has them
    repeat         0, 1, ... of an item that is asked several times; all have the same `item_id`
    prompt_tokens  tokens of the prompt where they were counted before it was asked, else 0
    heard          reply tokens within the prompt (worked examples, earlier turns) where they were counted, else None
    cut            the prompt lost its beginning to fit the model's context
    """

    item_id: str
    example: Example
    prompt: Messages
    gold: str = ""
    given: int = 0
    choices: tuple[str, ...] = ()
    repeat: int = 0
    prompt_tokens: int = 0
    heard: int | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of one item: value name to value, the reply as it was given, and what was parsed from it.

    The first value is the task's main one. `detail` holds JSON; its `n_tokens`, `finish_reason`, `prompt_tokens`,
    `reply_tokens` and `parts` become columns of the item's rows.
    """

    values: Mapping[str, float]
    reply: str = ""
    parsed: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A frozen dataclass of the task's parameters and its items. `spec` holds the parameters without the rows."""

    @property
    def truncate(self) -> str:
        """What is done with a prompt that does not fit: "" refuses it, "left" cuts its beginning."""

    @property
    def any_template(self) -> bool:
        """Whether a model may be asked in another chat format than the one it was tuned with."""

    @property
    def limit(self) -> int | None:
        """How many of the rows it takes, the first ones; None is all."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Roles of the models that it asks; the examined one is "tuned"."""

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        """What it checks replies with, by role."""

    @property
    def spec(self) -> Spec: ...

    def items(self) -> Sequence[Item]: ...

    def attempt(self, item: Item) -> Dialogue[Score]: ...
