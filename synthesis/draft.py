"""A row before it has a source: what was asked, what was replied, and the truth about the reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from synthesis.noise import DynamicNoise, StaticNoise
from synthesis.skill import Rng, Skill, Slots, Split, pick

Noise = Literal["clean", "static", "dynamic", "wrong_skill", "verbose"]


@dataclass(frozen=True, slots=True)
class Draft:
    """`problem` is the identity that decides the split, `answer` the right answer whatever the reply says.

    n_corrupted     edits (static) or corrupted values (dynamic)
    first_bad_step  the first trace line or word that one of them touched, or None
    final_correct   whether the reply's answer is the right one
    log             dynamic noise only: step, value before and after, enough to derive the wrong answer again
    """

    skill: str
    problem: str
    question: str
    reply: str
    answer: str
    noise: Noise = "clean"
    n_corrupted: int = 0
    first_bad_step: int | None = None
    final_correct: bool = True
    log: Sequence[Mapping[str, Any]] = field(default=())


class Family(Protocol):
    """One skill of the world as a maker of drafts. A draft that noise happened to leave untouched is labelled clean."""

    @property
    def name(self) -> str: ...

    def clean(self, split: Split, rng: Rng) -> Draft: ...

    def static(self, rng: Rng, noise: StaticNoise) -> Draft: ...

    def dynamic(self, rng: Rng, noise: DynamicNoise) -> Draft: ...


@dataclass(frozen=True, slots=True)
class Short:
    """A skill whose reply is the bare answer.

    Static noise makes slips of the pen in the question, outside the operands; dynamic noise corrupts the one value.
    """

    skill: Skill

    @property
    def name(self) -> str:
        return self.skill.name

    def clean(self, split: Split, rng: Rng) -> Draft:
        slots = self.skill.draw_in(split, rng)
        return self.draft(slots, pick(rng, self.skill.phrasings).format(**slots))

    def draft(self, slots: Slots, question: str, **label: Any) -> Draft:
        answer = self.skill.answer(slots)
        label.setdefault("reply", answer)
        return Draft(self.skill.name, self.skill.identity(slots), question, answer=answer, **label)

    def static(self, rng: Rng, noise: StaticNoise) -> Draft:
        slots = self.skill.draw_in("pool", rng)
        words = pick(rng, self.skill.phrasings).split(" ")
        edited, touched = noise(words, ["{" in word for word in words], rng)
        question = " ".join(edited).format(**slots)
        return self.draft(slots, question, **touched_label(touched))

    def dynamic(self, rng: Rng, noise: DynamicNoise) -> Draft:
        """A wrong answer: another number for a number, the answer to another problem for a text."""
        draft = self.clean("pool", rng)
        if draft.answer.isdecimal():
            reply = str(noise.corrupt(int(draft.answer), rng))
        else:
            reply = self.other_answer(draft.answer, rng)
        log = ({"step": 0, "before": draft.answer, "after": reply},)
        return replace(
            draft, reply=reply, noise="dynamic", n_corrupted=1, first_bad_step=0, final_correct=False, log=log
        )

    def other_answer(self, answer: str, rng: Rng) -> str:
        while (other := self.skill.answer(self.skill.draw(rng))) == answer:
            pass
        return other


def touched_label(touched: Sequence[int]) -> dict[str, Any]:
    """The label of a static draft from the places that were touched: clean where none was."""
    if not touched:
        return {}
    return {"noise": "static", "n_corrupted": len(touched), "first_bad_step": min(touched)}
