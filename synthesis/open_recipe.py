"""Recipes for making instruction data with open models, one at a time and each with the same budget of tokens, so that
they can be raced: how much of what each makes is kept, and what a kept row costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit, Rejected, each
from synthesis.attempts import LOST
from synthesis.drawing import check_drawing
from synthesis.fault import Fault
from synthesis.outcomes import outcome, refused
from synthesis.protocol import Needs, Seeds
from synthesis.quality import OF_QUALITY, Quality
from synthesis.self_instruct.growth import GENERATOR, LIST, Growth, Lists
from synthesis.self_instruct.instances import INPUT_FIRST, KIND, OF_INSTANCES, OUTPUT_FIRST, Instance
from synthesis.self_instruct.instructions import OF_INSTRUCTIONS
from synthesis.self_instruct.novelty import Novelty
from synthesis.self_instruct.synthesizer import Writer
from synthesis.self_instruct.tasks import Task, question, tasks_of
from synthesis.tally import Tally
from synthesis.ways import (
    ANSWERER,
    EXAMPLE,
    OF_WAYS,
    REVERSE,
    SOURCE,
    Answers,
    ByLists,
    Draw,
    InOne,
    Instances,
    Item,
    Reversed,
    Then,
    Way,
    documents_of,
)
from warehouse.cleaning.parameters import check_count, check_share
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical, digest

Recipe = Literal[
    "self_instruct", "one_completion", "instruction_then_answer", "reverse", "input_first", "output_first"
]  # fmt: skip
TOLD: dict[Recipe, list[str]] = {
    "self_instruct": [LIST.key, KIND.key, INPUT_FIRST.key, OUTPUT_FIRST.key],
    "one_completion": [EXAMPLE.key],
    "instruction_then_answer": [LIST.key],
    "reverse": [REVERSE.key],
    "input_first": [LIST.key, INPUT_FIRST.key],
    "output_first": [LIST.key, OUTPUT_FIRST.key],
}
OF_SEEDS = frozenset({"no_task", "duplicate_seed", "no_document", "not_used"})
ENDS = frozenset({"budget_spent", "used_up", "stalled"})


@dataclass(frozen=True, slots=True)
class OpenRecipe:
    """Rows by one `recipe`, round after round, until `tokens` of prompts and replies are spent.

    recipe        self_instruct: lists of instructions, then instances, for each in the order that fits its kind
                  one_completion: instruction, input and output in one reply, after three seeds
                  instruction_then_answer: lists of instructions, answered by the model in role "answerer"
                  reverse: an instruction for each seed's reply, which is taken as a document
                  input_first, output_first: lists of classification tasks, then instances in this order
    tokens        the budget, in tokens of prompts and replies of all roles; the round that reaches it is finished
    batch         prompts of a round
    most_similar  the ROUGE-L to an earlier instruction from which one is refused
    patience      rounds in a row that bring nothing new after which the job ends
    pre_filter, self_judge, ensemble_agree  tests of finished rows, see `Quality`
    max_tokens, temperature, top_p  of replies that hold an answer or an instruction; lists and instances are asked for
                  as Self-Instruct does

    The last row of a job is always a rejected one that says why it ended, with the sums of its tokens in its meta.
    """

    reasons: ClassVar[frozenset[str]] = (
        LOST | OF_INSTRUCTIONS | OF_INSTANCES | OF_WAYS | OF_QUALITY | OF_SEEDS | ENDS
    )  # fmt: skip

    recipe: Recipe
    tokens: int = 1_000_000
    batch: int = 5
    most_similar: float = 0.7
    patience: int = 3
    pre_filter: Sequence[str] = ()
    self_judge: int = 0
    ensemble_agree: float = 0.0
    max_tokens: int = 1024
    temperature: float = 0.7
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if self.recipe not in get_args(Recipe):
            raise InputError(f"unknown recipe {self.recipe!r}; known recipes: {', '.join(get_args(Recipe))}")
        for name in ("tokens", "batch", "patience", "max_tokens"):
            check_count(name, getattr(self, name), 1)
        check_share("most_similar", self.most_similar)
        check_drawing(self.temperature, self.top_p)
        if not self.most_similar:
            raise InputError("most_similar is 0: every instruction would be too similar; give a share above 0")
        _ = self.quality

    @property
    def quality(self) -> Quality:
        return Quality(self.pre_filter, self.self_judge, self.ensemble_agree, self.max_tokens)

    @property
    def needs(self) -> Needs:
        answerer = (ANSWERER,) if self.recipe == "instruction_then_answer" else ()
        return Needs(models=(GENERATOR, *answerer, *self.quality.roles), seeds=True)

    @property
    def templates(self) -> list[str]:
        return [*TOLD[self.recipe], *self.quality.templates]

    @property
    def told(self) -> str:
        return digest(canonical(self.templates))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        tally = Tally()
        way, left = self._way(seeds, tally)
        yield [Emit(tuple(self._of_seed(fault, seed) for seed, fault in left))]
        idle = 0
        while not (end := self._end(way, tally, idle)):
            before = tally.tokens
            items, left_out = yield from way.round(rng)
            yield [Emit(tuple(self._marked(row) for row in left_out))]
            yield from each(items, lambda item: self._finish(way, item, tally))
            idle = 0 if items and tally.tokens > before else idle + 1
        known = way.used | {seed.sample_id for seed, _ in left}
        unused = [self._of_seed(Fault("not_used"), seed) for seed in seeds if seed.sample_id not in known]
        yield [Emit((*unused, self._last(end, tally)))]

    def _way(self, seeds: Seeds, tally: Tally) -> tuple[Way, list[tuple[Example, Fault]]]:
        novelty, draw = Novelty(self.most_similar), Draw(self.max_tokens, self.temperature, self.top_p)
        if self.recipe == "reverse":
            documents, left = documents_of(seeds)
            return Reversed(documents, novelty, tally, self.batch, draw), left
        tasks, left = tasks_of(seeds)
        if self.recipe == "one_completion":
            for task in tasks:
                novelty.add(task.instruction)
            return InOne(tasks, novelty, tally, self.batch, draw), left
        return ByLists(self._growth(tasks, novelty, tally), self._then(tally)), left

    def _growth(self, tasks: Sequence[Task], novelty: Novelty, tally: Tally) -> Growth:
        """The lists of a recipe; of classification tasks alone where seeds say that they are such."""
        by_kind = self.recipe in ("input_first", "output_first")
        shown = [task for task in tasks if task.is_classification] if by_kind else []
        lists = Lists(self.batch, classification=by_kind, self_contained=self.recipe == "instruction_then_answer")
        return Growth(shown or tasks, lists, novelty, tally)

    def _then(self, tally: Tally) -> Then:
        if self.recipe == "instruction_then_answer":
            return Answers(tally, self.max_tokens)
        order = {"input_first": False, "output_first": True}.get(self.recipe)
        return Instances(Writer(tally), order)

    def _end(self, way: Way, tally: Tally, idle: int) -> str:
        """Why there is no other round; "" where there is."""
        if tally.tokens >= self.tokens:
            return "budget_spent"
        if not way.left:
            return "used_up"
        return "stalled" if idle >= self.patience else ""

    def _finish(self, way: Way, item: Item, tally: Tally) -> Dialogue[None]:
        found = yield from way.finish(item)
        if isinstance(found, Fault):
            turns = question(item.instruction, "")
            yield [Emit((self._marked(refused(Example(turns, SOURCE, item.facts), found)),))]
            return
        rows = list[Accepted | Rejected]()
        for instance, facts, fault in found:
            row = _row(item, instance, facts)
            tested = dict[str, Any]()
            if fault is None:
                tested, fault = yield from self.quality.tested(row.messages, tally)
            row = Example(row.messages, SOURCE, self._meta({**row.meta, **tested}))
            rows.append(outcome(row, fault))
        yield [Emit(tuple(rows))]

    def _meta(self, facts: dict[str, Any]) -> dict[str, Any]:
        return facts | {"recipe": self.recipe, "template": self.templates}

    def _marked(self, row: Rejected) -> Rejected:
        """A rejected row as one of this recipe."""
        assert row.example is not None  # rounds refuse nothing without one
        meta = self._meta(dict(row.example.meta))
        return Rejected(row.reason, row.detail, Example(row.example.messages, SOURCE, meta))

    def _of_seed(self, fault: Fault, seed: Example) -> Rejected:
        return refused(Example(seed.messages, SOURCE, self._meta({"parents": [seed.sample_id]})), fault)

    def _last(self, end: str, tally: Tally) -> Rejected:
        detail = f"{tally.tokens} of {self.tokens} tokens"
        facts = {"parents": [], "ended": end, **tally.facts}
        return Rejected(end, detail, Example((), SOURCE, self._meta(facts)))


def _row(item: Item, instance: Instance, facts: dict[str, Any]) -> Example:
    meta = {**item.facts, "instruction": item.instruction, "input": instance.given, **facts}
    reply = (Message("assistant", instance.output),) if instance.output else ()
    return Example((*question(item.instruction, instance.given), *reply), SOURCE, meta)
