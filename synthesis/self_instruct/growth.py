"""The growing pool of a job: rounds of prompts that each show some of its tasks and ask for more."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.dialogue import Complete, Dialogue, Rejected
from models.protocol import Completion, Prompt
from models.telling import telling
from synthesis.attempts import TEMPLATES
from synthesis.fault import Fault
from synthesis.outcomes import refused
from synthesis.self_instruct.instructions import BLACKLIST, admitted, one_line, read_list
from synthesis.self_instruct.novelty import Novelty
from synthesis.self_instruct.tasks import Task
from synthesis.skill import Rng, between
from synthesis.tally import Tally, text_of
from warehouse.records import Example, Message, Messages

LIST = telling(TEMPLATES, "self_instruct_list.v1")
GENERATOR = "generator"
SOURCE = "self_instruct"
LAST = 15  # the number at which a list ends
STOP = (f"\n{LAST + 1}.",)


@dataclass(frozen=True, slots=True)
class Lists:
    """How instructions are asked for: `batch` prompts a round, each showing up to `made` of the machine's instructions
    and, to make up `shown`, those of people. The defaults are the published ones.

    classification  ask for classification tasks alone
    self_contained  ask for tasks that need no input
    """

    batch: int = 5
    shown: int = 8
    made: int = 2
    classification: bool = False
    self_contained: bool = False
    blacklist: Sequence[str] = BLACKLIST
    ascii_start: bool = True
    max_tokens: int = 1024
    temperature: float = 0.7
    top_p: float = 0.5
    presence_penalty: float = 2.0


@dataclass(frozen=True, slots=True)
class Instruction:
    """A new instruction, the seeds that were shown for it, the round and the key of the reply that it came in."""

    text: str
    parents: tuple[str, ...]
    round: int
    origin: str

    @property
    def facts(self) -> dict[str, Any]:
        return {"parents": list(self.parents), "round": self.round, "origin": self.origin}


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and the seeds that it shows."""

    prompt: Prompt
    parents: tuple[str, ...]


@dataclass(eq=False, slots=True)
class Growth:
    """The state of one job. `idle` counts the rounds in a row that brought nothing new."""

    seeds: Sequence[Task]
    lists: Lists
    novelty: Novelty
    tally: Tally
    made: list[Instruction] = field(default_factory=list)
    drawn: set[str] = field(default_factory=set)
    rounds: int = 0
    idle: int = 0

    def __post_init__(self) -> None:
        for seed in self.seeds:
            self.novelty.add(seed.instruction)

    def round(self, rng: Rng) -> Dialogue[tuple[list[Instruction], list[Rejected]]]:
        """New instructions of one round, and what was refused, in the order of the prompts and of their lists.

        All prompts show the pool as it was before the round, so the order in which replies come changes nothing.
        """
        self.rounds += 1
        asked = [self._prompt(rng) for _ in range(self.lists.batch)]
        replies: list[Completion] = yield [Complete(GENERATOR, one.prompt) for one in asked]
        new, left = list[Instruction](), list[Rejected]()
        for one, reply in zip(asked, replies, strict=True):
            self.tally.add(reply)
            for found in self._read(one, reply):
                if isinstance(found, Fault):
                    left.append(_rejected(found, one, one.prompt.messages, reply.key))
                elif fault := admitted(found.text, self.novelty, self.lists.blacklist, self.lists.ascii_start):
                    left.append(_rejected(fault, one, (Message("user", found.text),), reply.key))
                else:
                    new.append(found)
        self.made += new
        self.idle = 0 if new else self.idle + 1
        return new, left

    def _prompt(self, rng: Rng) -> Asked:
        made = _some(rng, self.made, min(self.lists.made, self.lists.shown - 1))
        people = _some(rng, self.seeds, self.lists.shown - len(made))
        entries = [*(one.text for one in made), *(one.instruction for one in people)]
        shown = [one_line(entries[i]) for i in rng.permutation(len(entries))]
        self.drawn.update(one.key for one in people)
        prompt = Prompt(
            (Message("user", self._told(shown)),),
            self.lists.max_tokens,
            self.lists.temperature,
            self.lists.top_p,
            STOP,
            between(rng, 0, 2**31 - 1),
            presence_penalty=self.lists.presence_penalty,
        )
        return Asked(prompt, tuple(sorted(one.key for one in people)))

    def _told(self, shown: Sequence[str]) -> str:
        kinds = {"classification": self.lists.classification, "self_contained": self.lists.self_contained}
        return LIST(instructions=shown, first=len(shown) + 1, last=LAST, **kinds)

    def _read(self, asked: Asked, reply: Completion) -> Sequence[Instruction | Fault]:
        """The instructions of a reply; a reply that was cut off is not used at all, as published."""
        text = text_of(reply)
        found = text if isinstance(text, Fault) else read_list(text)
        if isinstance(found, Fault):
            return [found]
        return [Instruction(one, asked.parents, self.rounds, reply.key) for one in found]


def _rejected(fault: Fault, asked: Asked, turns: Messages, reply: str) -> Rejected:
    """An instruction that is refused, or the prompt whose reply cannot be used."""
    meta = {"parents": list(asked.parents), "template": [LIST.key], "reply": reply}
    return refused(Example(turns, SOURCE, meta), fault)


def _some(rng: Rng, options: Sequence[Any], k: int) -> list[Any]:
    """`k` different options, or all where there are fewer."""
    return [options[i] for i in rng.permutation(len(options))[:k]]
