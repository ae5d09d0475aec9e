"""Replies to choose from (GRAPE, Zhang et al. 2025, arXiv 2502.04194, §3): what several sources, and models that are
asked, say to the same instruction. Which of them a base model is tuned on is for the selection method `grape`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected, each
from models.protocol import Completion, Prompt, Verdict
from models.verify.checked import check_verifier, checked, judge_roles, told_of, undecided, verifier_roles
from models.verify.checked import unusable as uncheckable
from models.verify.reference import question_of
from synthesis.attempts import LOST, UNUSABLE, answered, gold_of, lost, streams, turned_away, unusable
from synthesis.join import Join
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between
from warehouse.errors import InputError
from warehouse.records import Example, Messages, canonical, digest

SOURCE = "grape_collect"


@dataclass(frozen=True, slots=True)
class Reply:
    """One candidate: the row it would be, the sources and models it came from, the seeds it was found in, and the
    instruction that it was given to, where that was joined to this one."""

    messages: Messages
    sources: tuple[str, ...]
    models: tuple[str, ...]
    parents: tuple[str, ...]
    joined: tuple[str, Join] | None = None
    draw: int = 0

    @property
    def key(self) -> str:
        """Equal for the same reply to one instruction: its user turns are the same but for case and white space."""
        return digest(canonical([[m.role, m.content.strip()] for m in self.messages if m.role != "user"]))


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction (a `prompt_id`), the seeds that answer it, and those that answer what was joined to it."""

    name: str
    seeds: tuple[Example, ...]
    joined: tuple[tuple[Example, Join], ...] = ()

    @property
    def replies(self) -> list[Reply]:
        """The candidates among the seeds, each once, in an order of their own."""
        own = [_reply_of(seed, seed.messages) for seed in self.seeds]
        asked = question_of(self.seeds[0])
        near = [
            replace(_reply_of(seed, answered(asked, gold_of(seed))), joined=(seed.prompt_id, join))
            for seed, join in self.joined
        ]
        return [*own, *near]


@dataclass(frozen=True, slots=True)
class GrapeCollect:
    """One row per instruction and different reply to it, of all seeds and of the models in `roles`.

    roles      roles of models that write further replies, each of its own name
    replies    how many each of them writes to an instruction
    verifier   the name of a verifier, or `judge`: replies that are not right are rejected, where a seed states the
               right answer in its meta; "" checks nothing
    near       join instructions that are at least so similar, in (0, 1], and hold the same numbers; None joins none
    max_tokens, temperature  how replies are drawn

    Instructions are the same where their user turns are, without regard to case and white space (`prompt_id`), which
    is what `grape` groups by.
    """

    reasons: ClassVar[frozenset[str]] = LOST | UNUSABLE | {"duplicate", "not_right"}

    roles: Sequence[str] = ()
    replies: int = 1
    verifier: str = ""
    near: float | None = None
    max_tokens: int = 1024
    temperature: float = 0.7

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", tuple(self.roles))  # a recipe gives a list
        if len(set(self.roles)) < len(self.roles) or self.replies < 1:
            raise InputError(
                f"roles are {list(self.roles)} and replies {self.replies}; give each role once and at least 1"
            )
        if self.roles and self.replies > 1 and self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}; replies that differ need one above 0")
        if self.near is not None and not 0 < self.near <= 1:
            raise InputError(f"near is {self.near}; give a similarity above 0 and at most 1, or none")
        if self.verifier:
            check_verifier(self.verifier)

    @property
    def needs(self) -> Needs:
        if not self.verifier:
            return Needs(tuple(self.roles), seeds=True)
        models = dict.fromkeys((*self.roles, *judge_roles(self.verifier)))
        return Needs(tuple(models), verifiers=verifier_roles(self.verifier), seeds=True)

    @property
    def told(self) -> str:
        return told_of(self.verifier) if self.verifier else ""

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        usable = [seed for seed in seeds if not unusable(seed)]
        yield [Emit(tuple(turned_away(seed, SOURCE, reason) for seed in seeds if (reason := unusable(seed))))]
        asked = instructions(usable, self.near)
        drawn = streams([one.seeds[0] for one in asked], rng)
        yield from each(zip(asked, drawn, strict=True), lambda pair: self._collected(*pair))

    def _collected(self, instruction: Instruction, rng: Rng) -> Dialogue[None]:
        written, failed = yield from self._written(instruction, between(rng, 0, 2**31 - 1))
        found, again = merged([*instruction.replies, *written])
        item = self._item(instruction)
        verdicts: Sequence[Verdict | None] = [None] * len(found)
        if item is not None:
            verdicts = yield from each(found, lambda reply: checked(self.verifier, reply.messages[-1].content, item))
        right = sum(verdict is None or verdict.right for verdict in verdicts)
        facts = {"instruction_id": instruction.name, "candidates": right, "verified_by": item and item.sample_id}
        rows: list[Accepted | Rejected] = [*failed, *(Rejected("duplicate", "", _row(one, facts)) for one in again)]
        for reply, verdict in zip(found, verdicts, strict=True):
            row = _row(reply, {**facts, "verdict": _told(verdict), "template": [self.told] if self.told else []})
            if verdict is None or verdict.right:
                rows.append(Accepted(row))
            elif undecided(verdict):
                rows.append(Rejected(verdict.reason, verdict.detail, row))
            else:
                rows.append(Rejected("not_right", verdict.reason, row))
        yield [Emit(tuple(rows))]

    def _written(self, instruction: Instruction, number: int) -> Dialogue[tuple[list[Reply], list[Rejected]]]:
        """What the models say, and the replies that are of no use."""
        question = question_of(instruction.seeds[0])
        draws = [(role, draw) for role in self.roles for draw in range(1, self.replies + 1)]
        prompts = [Prompt(question, self.max_tokens, self.temperature, seed=number, draw=draw) for _, draw in draws]
        found: list[Completion] = yield [
            Complete(role, prompt) for (role, _), prompt in zip(draws, prompts, strict=True)
        ]
        written, failed = list[Reply](), list[Rejected]()
        parents = (instruction.seeds[0].sample_id,)
        for (role, draw), reply in zip(draws, found, strict=True):
            one = Reply(answered(question, reply.text.strip()), (), (role,), parents, draw=draw)
            if reason := lost(reply):
                failed.append(Rejected(reason, reply.detail, _row(one, {"instruction_id": instruction.name})))
            else:
                written.append(one)
        return written, failed

    def _item(self, instruction: Instruction) -> Example | None:
        """What replies are checked against: the first seed that states what is right, without its own reply."""
        if not self.verifier:
            return None
        bare = (Example(question_of(seed), seed.source, seed.meta) for seed in instruction.seeds)
        return next((item for item in bare if not uncheckable(self.verifier, item)), None)


def instructions(seeds: Seeds, near: float | None) -> list[Instruction]:
    """The different instructions of seeds, by their `prompt_id`; the seeds of each by their `sample_id` and source."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for seed in sorted(seeds, key=lambda seed: (seed.sample_id, seed.source)):
        groups[seed.prompt_id].append(seed)
    joined: Mapping[str, Join] = {}
    if near is not None:
        from synthesis.near_instructions import joins  # compiled loops over text take half a second to import

        texts = {
            name: "\n".join(m.content for m in group[0].messages if m.role == "user") for name, group in groups.items()
        }
        joined = joins(texts, {name: len(group) for name, group in groups.items()}, near)
    guests: dict[str, list[tuple[Example, Join]]] = defaultdict(list)
    for name, join in sorted(joined.items()):
        guests[join.centre] += [(seed, join) for seed in groups[name]]
    return [
        Instruction(name, tuple(group), tuple(guests[name]))
        for name, group in sorted(groups.items())
        if name not in joined
    ]


def merged(replies: Sequence[Reply]) -> tuple[list[Reply], list[Reply]]:
    """Each different reply once, with all sources, models and seeds it came from; and those merged into one of them."""
    found: dict[str, Reply] = {}
    again: list[Reply] = []
    for reply in replies:
        first = found.get(reply.key)
        if first is None:
            found[reply.key] = reply
            continue
        again.append(reply)
        found[reply.key] = replace(
            first,
            sources=_union(first.sources, reply.sources),
            models=_union(first.models, reply.models),
            parents=_union(first.parents, reply.parents),
        )
    return list(found.values()), again


def _reply_of(seed: Example, messages: Messages) -> Reply:
    model = seed.meta.get("model")
    return Reply(messages, (seed.source,), (model,) if isinstance(model, str) and model else (), (seed.sample_id,))


def _row(reply: Reply, facts: Mapping[str, Any]) -> Example:
    meta: dict[str, Any] = {
        "parents": list(reply.parents),
        "template": [],
        "response_id": digest(reply.messages[-1].content.strip()),
        "sources": list(reply.sources),
        "models": list(reply.models),
        "draw": reply.draw,
        **facts,
    }
    if reply.joined is not None:
        name, join = reply.joined
        meta |= {"joined_from": name, "similarity": join.similarity}
    return Example(reply.messages, reply.sources[0] if reply.sources else SOURCE, meta)


def _told(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {"right": verdict.right, "answer": verdict.answer, "reason": verdict.reason}


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
