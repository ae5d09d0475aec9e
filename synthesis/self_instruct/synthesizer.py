"""Self-Instruct as a synthesizer: instructions until there are enough, then instances of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.dialogue import Dialogue, Emit, Rejected, each
from models.protocol import Completion, Prompt
from synthesis.attempts import LOST
from synthesis.drawing import check_drawing
from synthesis.fault import Fault
from synthesis.outcomes import outcome, refused
from synthesis.protocol import Needs, Seeds
from synthesis.self_instruct.growth import GENERATOR, LIST, SOURCE, Growth, Instruction, Lists
from synthesis.self_instruct.instances import (
    INPUT_FIRST,
    KIND,
    OF_INSTANCES,
    OUTPUT_FIRST,
    Instance,
    read_input_first,
    read_kind,
    read_output_first,
    sifted,
)
from synthesis.self_instruct.instructions import BLACKLIST, OF_INSTRUCTIONS
from synthesis.self_instruct.novelty import Novelty
from synthesis.self_instruct.tasks import question, tasks_of
from synthesis.tally import Tally, text_of
from warehouse.cleaning.parameters import check_count, check_share, check_switch, check_texts
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical, digest

KIND_TOKENS = 8  # 3 are published, for a model that goes on with the text; chat models may begin with "Classification:"
INSTANCE_PENALTY = 1.5
OF_SEEDS = frozenset({"no_task", "duplicate_seed", "not_drawn"})


@dataclass(frozen=True, slots=True)
class Writer:
    """Asks the model in role "generator" for the instances of an instruction, greedily, at most `most` of them."""

    tally: Tally
    most: int = 5
    max_tokens: int = 350

    def kind(self, instruction: str) -> Dialogue[bool | Fault]:
        """Whether an instruction is for a classification task."""
        reply = yield from self.tally.ask(GENERATOR, _prompt(KIND(instruction=instruction), KIND_TOKENS))
        text = text_of(reply, cut_is_lost=False)
        return text if isinstance(text, Fault) else read_kind(text)

    def instances(self, instruction: str, output_first: bool) -> Dialogue[list[tuple[Instance, Fault | None]] | Fault]:
        """The instances that were written and why some are not kept; or why there are none."""
        told = (OUTPUT_FIRST if output_first else INPUT_FIRST)(instruction=instruction, most=self.most)
        stop = ("\nTask:",) if output_first else ("\nTask:", f"\nExample {self.most + 1}")
        reply = yield from self.tally.ask(GENERATOR, _prompt(told, self.max_tokens, stop, INSTANCE_PENALTY))
        text = text_of(reply, cut_is_lost=False)
        if isinstance(text, Fault):
            return text
        found = read_output_first(text) if output_first else read_input_first(text)
        if not found:
            return Fault("no_instances", text[:80])
        return sifted(found[: self.most], _is_cut(reply) and len(found) <= self.most)


@dataclass(frozen=True, slots=True)
class SelfInstruct:
    """Rows for new instructions, which the model in role "generator" writes after seeing those of the seeds.

    instructions  how many new ones to reach; the last round may bring some more
    batch, shown, made  prompts of a round, and instructions shown in each: of `shown`, `made` are the machine's
    most_similar  the ROUGE-L to one in the pool from which an instruction is refused
    blacklist     words of instructions that a model of text cannot follow
    ascii_start   whether an instruction must begin with an ASCII character, as published: false for most languages
    patience      rounds in a row without a new instruction after which the job ends
    most_instances, instance_tokens  how much is asked for one instruction
    max_tokens, temperature, top_p, presence_penalty  how lists of instructions are drawn; instances are greedy

    A seed that no prompt showed is rejected as `not_drawn`. A job that ends too early says so in a rejected row,
    `not_reached`.
    """

    needs: ClassVar[Needs] = Needs(models=(GENERATOR,), seeds=True)
    told: ClassVar[str] = digest(canonical([LIST.key, KIND.key, INPUT_FIRST.key, OUTPUT_FIRST.key]))
    reasons: ClassVar[frozenset[str]] = LOST | OF_INSTRUCTIONS | OF_INSTANCES | OF_SEEDS | {"not_reached"}

    instructions: int = 100
    batch: int = 5
    shown: int = 8
    made: int = 2
    most_similar: float = 0.7
    blacklist: Sequence[str] = BLACKLIST
    ascii_start: bool = True
    patience: int = 3
    most_instances: int = 5
    instance_tokens: int = 350
    max_tokens: int = 1024
    temperature: float = 0.7
    top_p: float = 0.5
    presence_penalty: float = 2.0

    def __post_init__(self) -> None:
        for name in ("instructions", "batch", "patience", "most_instances", "instance_tokens", "max_tokens"):
            check_count(name, getattr(self, name), 1)
        check_share("most_similar", self.most_similar)
        check_switch("ascii_start", self.ascii_start)
        check_drawing(self.temperature, self.top_p)
        check_texts("blacklist", self.blacklist)
        if not 0 <= self.made < self.shown <= 14 or self.most_similar == 0:
            raise InputError(
                f"self_instruct: shown is {self.shown}, made {self.made}, most_similar {self.most_similar}; expected "
                "0 <= made < shown <= 14 (a list ends at 15) and a similarity above 0"
            )

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        tasks, left = tasks_of(seeds)
        tally = Tally()
        growth = Growth(tasks, self._lists, Novelty(self.most_similar), tally)
        yield [Emit(tuple(_of_seed(fault, seed) for seed, fault in left))]
        while tasks and len(growth.made) < self.instructions and growth.idle < self.patience:
            _, left_out = yield from growth.round(rng)
            yield [Emit(tuple(left_out))]
        writer = Writer(tally, self.most_instances, self.instance_tokens)
        yield from each(growth.made, lambda new: self._rows(writer, new))
        yield [Emit(tuple(self._last(seeds, growth)))]

    @property
    def _lists(self) -> Lists:
        return Lists(
            batch=self.batch,
            shown=self.shown,
            made=self.made,
            blacklist=self.blacklist,
            ascii_start=self.ascii_start,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
        )

    def _rows(self, writer: Writer, new: Instruction) -> Dialogue[None]:
        kind = yield from writer.kind(new.text)
        found = kind if isinstance(kind, Fault) else (yield from writer.instances(new.text, output_first=kind))
        facts = new.facts | {"is_classification": None if isinstance(kind, Fault) else kind}
        if isinstance(found, Fault):
            yield [Emit((refused(row(new.text, Instance("", ""), facts), found),))]
            return
        rows = [(row(new.text, one, facts | {"instance": k}), fault) for k, (one, fault) in enumerate(found)]
        yield [Emit(tuple(outcome(made, fault) for made, fault in rows))]

    def _last(self, seeds: Seeds, growth: Growth) -> list[Rejected]:
        """Seeds that were never shown, and how far the job came where that is not far enough."""
        keys = {task.key for task in growth.seeds} - growth.drawn
        rows = [_of_seed(Fault("not_drawn"), seed) for seed in seeds if seed.sample_id in keys]
        if len(growth.made) < self.instructions:
            reached = f"{len(growth.made)} of {self.instructions} instructions after {growth.rounds} rounds"
            facts = {"parents": [], "template": [LIST.key], **growth.tally.facts}
            rows.append(Rejected("not_reached", reached, Example((), SOURCE, facts)))
        return rows


def row(instruction: str, instance: Instance, facts: dict[str, Any]) -> Example:
    """A row of the method. `facts` has the `is_classification` that decides by which template it was asked for."""
    asked = {True: [OUTPUT_FIRST.key], False: [INPUT_FIRST.key], None: []}[facts["is_classification"]]
    meta = {"template": [LIST.key, KIND.key, *asked], "instruction": instruction, "input": instance.given} | facts
    reply = (Message("assistant", instance.output),) if instance.output else ()
    return Example((*question(instruction, instance.given), *reply), SOURCE, meta)


def _of_seed(fault: Fault, seed: Example) -> Rejected:
    meta = {"parents": [seed.sample_id], "template": [LIST.key]}
    return refused(Example(seed.messages, SOURCE, meta), fault)


def _prompt(text: str, max_tokens: int, stop: tuple[str, ...] = (), penalty: float = 0.0) -> Prompt:
    return Prompt((Message("user", text),), max_tokens, stop=stop, presence_penalty=penalty)


def _is_cut(reply: Completion) -> bool:
    return reply.finish_reason == "length"
