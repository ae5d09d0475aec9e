"""Inputs like given ones: a model continues a numbered list (Trans-LoRA, 2024, fig. 7), and its items are read."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from models.dialogue import Complete, Dialogue, Rejected
from models.protocol import Completion, Prompt
from models.telling import telling
from models.verify.reference import question_of
from synthesis.attempts import NO_QUESTION, TEMPLATES, lost, turned_away
from synthesis.protocol import Seeds
from warehouse.records import Example, Message

EXAMPLES = telling(TEMPLATES, "matched_examples.v1")
GENERATOR = "generator"
SOURCE = "matched"
MOST_CALLS = 64  # in one round
ITEM = re.compile(r"^[ \t]*(?:\*\*)?(\d{1,3})[.)](?:\*\*)?[ \t]+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An input that the generator wrote in its call number `draw`."""

    text: str
    draw: int

    @property
    def example(self) -> Example:
        return Example((Message("user", self.text),), SOURCE)


@dataclass(slots=True)
class Mimics:
    """What a job asks the generator for: `items` inputs in each call, which go on from the `shown` seeds.

    `real` holds the `prompt_id` of every seed. `left` calls may still be made; `asked` inputs were asked for last.
    `rejected` collects what replies held besides new inputs, until it is handed out.
    """

    shown: Sequence[Example]
    items: int
    seed: int
    max_tokens: int
    temperature: float
    real: frozenset[str]
    left: int
    calls: int = 0
    asked: int = 0
    seen: set[str] = field(default_factory=set)
    rejected: list[Rejected] = field(default_factory=list)

    def more(self, wanted: int) -> Dialogue[list[Candidate]]:
        """New inputs, from as many calls as `wanted` take or as are left."""
        calls = min(math.ceil(wanted / self.items), MOST_CALLS, self.left)
        draws = range(self.calls + 1, self.calls + calls + 1)
        self.calls, self.left, self.asked = self.calls + calls, self.left - calls, calls * self.items
        replies: list[Completion] = yield [Complete(GENERATOR, self._prompt(draw)) for draw in draws]
        return [one for draw, reply in zip(draws, replies, strict=True) for one in self._new(draw, reply)]

    def refused(self, reason: str, candidate: Candidate, detail: str = "") -> Rejected:
        meta = {"parents": [seed.sample_id for seed in self.shown], "template": [EXAMPLES.key], "draw": candidate.draw}
        return Rejected(reason, detail, Example(candidate.example.messages, SOURCE, meta))

    def _prompt(self, draw: int) -> Prompt:
        examples = [input_of(seed) for seed in self.shown]
        asked = Message("user", EXAMPLES(examples=examples, shown=len(examples) + self.items))
        return Prompt((asked,), self.max_tokens, self.temperature, seed=self.seed, draw=draw)

    def _new(self, draw: int, reply: Completion) -> list[Candidate]:
        """The inputs of a reply that were not there before; the last one of a reply that was cut off is left out."""
        cut = reply.finish_reason == "length"
        reason = lost(reply, whole=False)
        found = [] if reason else listed(reply.text)
        kept = [Candidate(text, draw) for text in (found[:-1] if cut else found)]
        if not kept:
            why = reason or ("cut_off" if cut else "unreadable")
            self.rejected.append(self.refused(why, Candidate(reply.text, draw), reply.detail))
        return [one for one in kept if self._is_new(one)]

    def _is_new(self, candidate: Candidate) -> bool:
        key = candidate.example.prompt_id
        if reason := "copy" if key in self.real else "duplicate" if key in self.seen else "":
            self.rejected.append(self.refused(reason, candidate))
            return False
        self.seen.add(key)
        return True


def listed(reply: str) -> list[str]:
    """The items of a numbered list, without what stands before it.

    An item ends where a line begins with the next number, so a list inside an item belongs to the item.
    """
    starts: list[re.Match[str]] = []
    for mark in ITEM.finditer(reply):
        if not starts or int(mark[1]) == int(starts[-1][1]) + 1:
            starts.append(mark)
    items = (
        reply[mark.end() : following.start() if following else len(reply)].strip()
        for mark, following in pairwise([*starts, None])
        if mark
    )
    return [item for item in items if item]


def references(seeds: Seeds) -> tuple[list[Example], list[Rejected]]:
    """The seeds with different inputs, in an order of their own, and those that are of no use."""
    real: dict[str, Example] = {}
    unfit = list[Rejected]()
    for seed in sorted(seeds, key=lambda seed: seed.sample_id):
        turns = [turn for turn in question_of(seed) if turn.role != "system"]
        if not any(turn.role == "user" and turn.content.strip() for turn in turns):
            unfit.append(turned_away(seed, SOURCE, NO_QUESTION))
        elif len(turns) > 1:
            unfit.append(turned_away(seed, SOURCE, "several_turns", f"{len(turns)} before the reply"))
        elif seed.prompt_id in real:
            unfit.append(turned_away(seed, SOURCE, "duplicate"))
        else:
            real[seed.prompt_id] = seed
    return list(real.values()), unfit


def input_of(seed: Example) -> str:
    """The content of the seed's turn of the user's."""
    return next(turn.content for turn in seed.messages if turn.role == "user").strip()
