"""What every evaluation task answers to. The score of an item is apart from the metric over items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.dialogue import Dialogue
from warehouse.records import Example, Spec


@dataclass(frozen=True, slots=True)
class Item:
    """One test example: its id, and the example whose last assistant turn is the gold reply."""

    item_id: str
    example: Example


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of one item: metric name to value, the reply as it was given, and what was parsed from it."""

    values: Mapping[str, float]
    reply: str = ""
    parsed: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A frozen dataclass of the task's parameters and its items. `spec` holds the parameters without the items."""

    @property
    def spec(self) -> Spec: ...

    def items(self) -> Sequence[Item]: ...

    def attempt(self, item: Item) -> Dialogue[Score]: ...
