"""Items out of rows: what is asked of the examined model for each test example, with worked examples before it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from eval.protocol import TUNED, Item
from models.protocol import Verifier
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages, Spec, canonical

SHOWN = 5
ROWS = ("examples", "shots_from")  # rows have keys of their own
TRUNCATE = ("", "left")


def gold_of(example: Example) -> str:
    """The gold reply: the content of the last turn, "" where that is not the assistant's."""
    last = example.messages[-1:]
    return last[0].content if last and last[0].role == "assistant" else ""


def prompt_of(example: Example) -> Messages:
    """The turns before the gold reply; all turns where there is none."""
    turns = example.messages
    return turns[:-1] if turns and turns[-1].role == "assistant" else turns


@dataclass(frozen=True, slots=True)
class RowTask:
    """What every task over rows takes.

    examples    the test rows. The last assistant turn is the gold reply, the turns before it are the prompt
    limit       only the first so many
    system      a system turn before every row that has none of its own
    shots       worked examples before every prompt, as turns of the conversation: the first so many of `shots_from`
    shots_from  rows that worked examples are taken from; none of them may ask what a test row asks
    shots_by    a key of `meta`: a row's worked examples are those that have its value there
    truncate    "" refuses prompts that do not fit the model's context; "left" cuts their beginning, and says where
    any_template   ask a model in another chat format than the one it was tuned with
    """

    examples: tuple[Example, ...]
    limit: int | None = None
    system: str = ""
    shots: int = 0
    shots_from: tuple[Example, ...] = ()
    shots_by: str = ""
    truncate: str = ""
    any_template: bool = False

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = (TUNED,)
    tuples: ClassVar[tuple[str, ...]] = ()  # parameters that a recipe gives as lists
    reads: ClassVar[tuple[str, ...]] = ()  # keys of `meta`, beside choices, that say what is right

    def __post_init__(self) -> None:
        for name in (*ROWS, *self.tuples):
            given = getattr(self, name)
            if isinstance(given, str):
                raise InputError(f"task {self.name!r}: {name} is {given!r}; give a list")
            object.__setattr__(self, name, tuple(given))
        if self.limit is not None and self.limit < 1:
            raise InputError(f"task {self.name!r}: limit is {self.limit}; give 1 or more, or leave it out")
        if self.shots < 0:
            raise InputError(f"task {self.name!r}: shots is {self.shots}; give 0 or more")
        if self.truncate not in TRUNCATE:
            raise InputError(f"task {self.name!r}: truncate is {self.truncate!r}; give 'left', or leave it out")

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        return {}

    @property
    def spec(self) -> Spec:
        """Name and parameters without rows."""
        params = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ROWS}
        return Spec(self.name, {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()})

    def items(self) -> Sequence[Item]:
        """An item for each distinct row, known by `sample_id`.

        A row that is there twice, with the same turns and the same that is right, is one item, the first: asked twice
        it would say nothing new, and intervals would be those of more items than there are. Rows of the same turns
        that want something else (other choices, other tests) get their number behind the id.

        Raises `InputError` for rows that cannot be scored, and for worked examples that are missing or are test rows.
        """
        rows = self.examples[: self.limit]
        if not rows:
            raise InputError("the test set is empty; give at least one example")
        self._check(rows)
        shots = _Shots(self, rows)
        numbers: Counter[str] = Counter()
        made: dict[str, Item] = {}
        for row in rows:
            item = self.item(row.sample_id, row, shots.before(row))
            if (known := self._wanted(item)) not in made:
                number, numbers[item.item_id] = numbers[item.item_id], numbers[item.item_id] + 1
                made[known] = replace(item, item_id=f"{item.item_id}-{number}") if number else item
        return list(made.values())

    def item(self, item_id: str, row: Example, shots: Messages) -> Item:
        own = self.asked(row)
        system = own[:1] if own[0].role == "system" else self._system
        turns = own[1:] if own[0].role == "system" else own
        given = len(shots) + len(system if own[0].role != "system" else ())
        return Item(item_id, row, (*system, *shots, *turns), self.gold(row), given, self.choices(row))

    def asked(self, row: Example) -> Messages:
        """The row's own turns before the reply."""
        return prompt_of(row)

    def gold(self, row: Example) -> str:
        """The gold reply, "" where there is none."""
        return gold_of(row)

    def choices(self, row: Example) -> tuple[str, ...]:
        """The replies to choose from; () where the reply is free."""
        return ()

    def problem(self, row: Example) -> str:
        """Why `row` cannot be scored, "" where it can."""
        if len(row.messages) < 2 or row.messages[-1].role != "assistant":
            return (
                "must end with a gold reply after a prompt: its last turn must be the assistant's, with another "
                "before it"
            )
        return ""

    def _wanted(self, item: Item) -> str:
        """The turns of the item's row and what is right, as text."""
        read = [item.example.meta.get(name) for name in self.reads]
        return canonical([item.item_id, item.gold.strip(), item.choices, read])

    @property
    def _system(self) -> Messages:
        return (Message("system", self.system),) if self.system else ()

    def _check(self, rows: Sequence[Example]) -> None:
        found = {number: why for number, row in enumerate(rows) if (why := self.problem(row))}
        if not found:
            return
        first = min(found)
        named = ", ".join(map(str, list(found)[1:SHOWN]))
        more = f" (and {len(found) - 1} other rows: {named}{', ...' if len(found) > SHOWN else ''})"
        raise InputError(
            f"test example {first} (source {rows[first].source!r}) {found[first]}{more if len(found) > 1 else ''}"
        )


class _Shots:
    """The worked examples of a task, by the value that rows share with them."""

    def __init__(self, task: RowTask, rows: Sequence[Example]) -> None:
        self.task = task
        self.found: dict[str, list[Message]] = {}
        self.counts: Counter[str] = Counter()
        if not task.shots:
            return
        asked = {row.prompt_id for row in rows}
        for number, shot in enumerate(task.shots_from):
            if self.counts[self._group(shot)] < task.shots:
                self._take(number, shot, asked)

    def _take(self, number: int, shot: Example, asked: set[str]) -> None:
        if shot.prompt_id in asked:
            raise InputError(
                f"worked example {number} of task {self.task.name!r} asks what a test row asks: give `shots_from` rows "
                "that are not in the test set"
            )
        if why := self.task.problem(shot) or ("" if self.task.gold(shot) else "has no gold reply"):
            raise InputError(f"worked example {number} of task {self.task.name!r} {why}")
        turns = [turn for turn in self.task.asked(shot) if turn.role != "system"]
        self.found.setdefault(self._group(shot), []).extend([*turns, Message("assistant", self.task.gold(shot))])
        self.counts[self._group(shot)] += 1

    def before(self, row: Example) -> Messages:
        group = self._group(row)
        if self.counts[group] < self.task.shots:
            wanted = f" with {self.task.shots_by} {group!r}" if self.task.shots_by else ""
            raise InputError(
                f"task {self.task.name!r} wants {self.task.shots} worked examples{wanted}, but `shots_from` holds "
                f"{self.counts[group]}"
            )
        return tuple(self.found.get(group, ()))

    def _group(self, row: Example) -> str:
        return str(row.meta.get(self.task.shots_by, "")) if self.task.shots_by else ""
