"""Ways to make rows with a model that are raced against each other: what each asks for in one round.

All refuse an instruction that is like one of the pool, seeds and what was made before, so that they differ in how they
ask and in nothing else.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from models.dialogue import Complete, Dialogue, Rejected
from models.protocol import Completion, Prompt
from models.telling import telling
from synthesis.attempts import TEMPLATES
from synthesis.fault import Fault
from synthesis.outcomes import refused
from synthesis.protocol import Seeds
from synthesis.self_instruct.growth import GENERATOR, Growth
from synthesis.self_instruct.instances import Instance, fault_of
from synthesis.self_instruct.instructions import admitted, one_line
from synthesis.self_instruct.novelty import Novelty
from synthesis.self_instruct.synthesizer import Writer
from synthesis.self_instruct.tasks import Task, question
from synthesis.skill import Rng, between
from synthesis.tally import Tally, text_of
from warehouse.records import Example, Message

EXAMPLE = telling(TEMPLATES, "open_recipe_example.v1")
REVERSE = telling(TEMPLATES, "open_recipe_reverse.v1")
ANSWERER = "answerer"
SOURCE = "open_recipe"
SHOWN = 3  # examples shown for one more
UNUSABLE = "UNUSABLE"
SECTIONS = re.compile(
    r"(?:^|\n)[ \t*]*Instruction[ \t*]*:(?P<instruction>.*?)\n[ \t*]*Input[ \t*]*:(?P<given>.*?)\n[ \t*]*Output[ \t*]*:"
    r"(?P<output>.*)",
    re.DOTALL | re.IGNORECASE,
)
NO_INPUT = re.compile(r"\W?(?:none|no input|n/?a|empty)?\W?", re.IGNORECASE)

OF_WAYS = frozenset({"missing_section", "unusable_document"})


@dataclass(frozen=True, slots=True)
class Item:
    """What one round found: an instruction, and what `finish` needs to make rows of it."""

    instruction: str
    facts: dict[str, Any]
    instance: Instance | None = None


Finished: TypeAlias = list[tuple[Instance, dict[str, Any], Fault | None]]
Then: TypeAlias = Callable[[str], Dialogue[Finished | Fault]]
"""What is asked once an instruction is there: its rows, each with what is known of it and why it is not kept."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How replies are drawn that should differ."""

    max_tokens: int
    temperature: float
    top_p: float

    def __call__(self, text: str, rng: Rng) -> Prompt:
        seed = between(rng, 0, 2**31 - 1)
        return Prompt((Message("user", text),), self.max_tokens, self.temperature, self.top_p, seed=seed)


class Way(Protocol):
    """A way to make rows: `round` asks for items, in the order of their prompts; `finish` makes rows of one of them.

    `left` says whether there is something to ask with, `used` has the sample ids of the seeds that were shown.
    """

    @property
    def left(self) -> bool: ...

    @property
    def used(self) -> set[str]: ...

    def round(self, rng: Rng) -> Dialogue[tuple[list[Item], list[Rejected]]]: ...

    def finish(self, item: Item) -> Dialogue[Finished | Fault]: ...


@dataclass(frozen=True, slots=True)
class ByLists:
    """Instructions in lists first; `then` makes rows of each."""

    growth: Growth
    then: Then

    @property
    def left(self) -> bool:
        return bool(self.growth.seeds)

    @property
    def used(self) -> set[str]:
        return self.growth.drawn

    def round(self, rng: Rng) -> Dialogue[tuple[list[Item], list[Rejected]]]:
        new, left = yield from self.growth.round(rng)
        return [Item(one.text, one.facts) for one in new], left

    def finish(self, item: Item) -> Dialogue[Finished | Fault]:
        return (yield from self.then(item.instruction))


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances of an instruction as Self-Instruct asks for them; `kind` None asks first which order fits."""

    writer: Writer
    output_first: bool | None = None

    def __call__(self, instruction: str) -> Dialogue[Finished | Fault]:
        first: bool | Fault | None = self.output_first
        if first is None:
            first = yield from self.writer.kind(instruction)
        if isinstance(first, Fault):
            return first
        found = yield from self.writer.instances(instruction, first)
        if isinstance(found, Fault):
            return found
        return [(one, {"output_first": first, "instance": k}, fault) for k, (one, fault) in enumerate(found)]


@dataclass(frozen=True, slots=True)
class Answers:
    """The reply of the model in role "answerer" to the instruction as it is."""

    tally: Tally
    max_tokens: int

    def __call__(self, instruction: str) -> Dialogue[Finished | Fault]:
        reply = yield from self.tally.ask(ANSWERER, Prompt(question(instruction, ""), self.max_tokens))
        text = text_of(reply)
        return text if isinstance(text, Fault) else [(Instance("", text), {}, None)]


@dataclass(eq=False, slots=True)
class InOne:
    """Instruction, input and output in one reply, after three examples (as Unnatural Instructions asks for them)."""

    seeds: Sequence[Task]
    novelty: Novelty
    tally: Tally
    batch: int
    draw: Draw
    used: set[str] = field(default_factory=set)
    rounds: int = 0

    @property
    def left(self) -> bool:
        return bool(self.seeds)

    def round(self, rng: Rng) -> Dialogue[tuple[list[Item], list[Rejected]]]:
        self.rounds += 1
        shown = [[self.seeds[i] for i in rng.permutation(len(self.seeds))[:SHOWN]] for _ in range(self.batch)]
        prompts = [self.draw(EXAMPLE(tasks=tasks), rng) for tasks in shown]
        replies: list[Completion] = yield [Complete(GENERATOR, prompt) for prompt in prompts]
        items, left = list[Item](), list[Rejected]()
        for tasks, prompt, reply in zip(shown, prompts, replies, strict=True):
            self.tally.add(reply)
            parents = sorted(task.key for task in tasks)
            self.used.update(parents)
            facts = {"parents": parents, "round": self.rounds, "reply": reply.key}
            found = self._read(reply, facts)
            if isinstance(found, Item) and (fault := admitted(found.instruction, self.novelty)):
                left.append(refusal(fault, question(found.instruction, ""), facts))
            elif isinstance(found, Item):
                items.append(found)
            else:
                left.append(refusal(found, prompt.messages, facts))
        return items, left

    def _read(self, reply: Completion, facts: dict[str, Any]) -> Item | Fault:
        text = text_of(reply)
        found = text if isinstance(text, Fault) else read_sections(text)
        return found if isinstance(found, Fault) else Item(found[0], facts, found[1])

    def finish(self, item: Item) -> Dialogue[Finished | Fault]:
        assert item.instance is not None  # `round` read it
        yield from ()
        return [(item.instance, {}, fault_of(item.instance))]


@dataclass(eq=False, slots=True)
class Reversed:
    """Instructions for texts that are there: each document is the reply, and the model writes what was asked for."""

    documents: Sequence[tuple[Example, str]]
    novelty: Novelty
    tally: Tally
    batch: int
    draw: Draw
    used: set[str] = field(default_factory=set)
    at: int = 0
    rounds: int = 0
    _order: list[int] = field(default_factory=list)

    @property
    def left(self) -> bool:
        return self.at < len(self.documents)

    def round(self, rng: Rng) -> Dialogue[tuple[list[Item], list[Rejected]]]:
        if not self._order:
            self._order = [int(i) for i in rng.permutation(len(self.documents))]
        self.rounds += 1
        taken = [self.documents[i] for i in self._order[self.at : self.at + self.batch]]
        self.at += len(taken)
        prompts = [self.draw(REVERSE(text=text), rng) for _, text in taken]
        replies: list[Completion] = yield [Complete(GENERATOR, prompt) for prompt in prompts]
        items, left = list[Item](), list[Rejected]()
        for (seed, text), reply in zip(taken, replies, strict=True):
            self.tally.add(reply)
            self.used.add(seed.sample_id)
            facts = {"parents": [seed.sample_id], "round": self.rounds, "reply": reply.key}
            found = self._read(reply)
            if isinstance(found, str):
                items.append(Item(found, facts, Instance("", text)))
            else:
                left.append(refusal(found, (Message("assistant", text),), facts))
        return items, left

    def _read(self, reply: Completion) -> str | Fault:
        text = text_of(reply)
        if isinstance(text, Fault):
            return text
        if UNUSABLE in text:
            return Fault("unusable_document")
        instruction = one_line(text)
        return admitted(instruction, self.novelty) or instruction

    def finish(self, item: Item) -> Dialogue[Finished | Fault]:
        assert item.instance is not None  # `round` had the document
        yield from ()
        return [(item.instance, {}, fault_of(item.instance))]


def read_sections(reply: str) -> tuple[str, Instance] | Fault:
    """The three labelled sections of a reply, in their order; an input that says "none" is none."""
    found = SECTIONS.search(reply)
    if found is None or not (instruction := one_line(found["instruction"].strip(" \t*\n"))):
        return Fault("missing_section", reply[:80])
    given = found["given"].strip(" \t*\n")
    output = re.split(r"\n[ \t*#]*Example[ \t]*\d+", found["output"], maxsplit=1)[0].strip(" \t*\n")
    return instruction, Instance("" if NO_INPUT.fullmatch(given) else given, output)


def documents_of(seeds: Seeds) -> tuple[list[tuple[Example, str]], list[tuple[Example, Fault]]]:
    """Seeds with their last reply, or the last turn where there is no reply, in the order of their keys; and the
    seeds that have no such text."""
    texts, left = list[tuple[Example, str]](), list[tuple[Example, Fault]]()
    for seed in sorted(seeds, key=lambda seed: seed.sample_id):
        turns = [turn for turn in seed.messages if turn.role == "assistant"] or seed.messages
        text = turns[-1].content.strip() if turns else ""
        if text:
            texts.append((seed, text))
        else:
            left.append((seed, Fault("no_document")))
    return texts, left


def refusal(fault: Fault, messages: tuple[Message, ...], facts: dict[str, Any]) -> Rejected:
    return refused(Example(messages, SOURCE, facts), fault)
