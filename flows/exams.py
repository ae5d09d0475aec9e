"""What models are examined with: the recipe's test set, and tasks' own rows and worked examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows import sources
from flows.recipes import Recipe, Source, Task
from warehouse.store import Artifact

TEST = "test"
SHOTS = "shots"


def sets_of(recipe: Recipe) -> dict[str, Sequence[Source]]:
    """Name to sources of every set that some task reads."""
    found: dict[str, Sequence[Source]] = {TEST: recipe.test} if recipe.test else {}
    for task in recipe.tasks:
        if task.rows:
            found[rows_name(task)] = task.rows
        if task.shots_from:
            found[shots_name(task)] = task.shots_from
    return found


def check_sets(recipe: Recipe) -> None:
    """Raise `InputError` for what can be known to be wrong with the sets before work starts."""
    for name, given in sets_of(recipe).items():
        sources.check_all(given, recipe, unanswered=may_lack_replies(name))


def may_lack_replies(name: str) -> bool:
    """Whether rows of a set of this name may end with what a user asks: what models are examined with, no other set."""
    return name == TEST or name.startswith(f"{TEST}_")


def rows_name(task: Task) -> str:
    """The set that `task` examines with."""
    return f"{TEST}_{task.title}" if task.rows else TEST


def shots_name(task: Task) -> str:
    """The set that the worked examples of `task` are taken from."""
    return f"{SHOTS}_{task.title}"


@dataclass(frozen=True, slots=True)
class Exams:
    """The ingested sets by name, those of `sets_of`."""

    sets: Mapping[str, Artifact]

    def rows(self, task: Task) -> Artifact | None:
        """None for a task that brings its own from elsewhere."""
        return None if task.brings_rows else self.sets[rows_name(task)]

    def shots(self, task: Task) -> Artifact | None:
        return self.sets.get(shots_name(task))

    @property
    def held_out(self) -> dict[str, Artifact]:
        """The sets whose rows nothing may be trained on or chosen for: all but worked examples."""
        return {name: each for name, each in self.sets.items() if not name.startswith(f"{SHOTS}_")}
