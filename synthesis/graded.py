"""What DEITA's scorers are trained on (Liu et al. 2024, §2): texts evolved step by step, then graded side by side.

Graded one by one nearly all texts get the same score; graded in one prompt, next to their own evolutions, they do not.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected, each
from models.protocol import Completion, Failure, Prompt
from models.scorer import GRADES, Grade, Turn, prompt, turns_of
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between, pick
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical, digest

Reason = Literal[
    "no_instruction", "no_response", "prompt_too_long", "cut_off", "empty", "echoes_prompt", "same_as_earlier",
    "nothing_to_rank", "judge_prompt_too_long", "score_missing", "score_twice", "score_of_no_variant",
    "score_not_a_number", "score_out_of_range",
]  # fmt: skip
REASONS: tuple[str, ...] = get_args(Reason)
OF_THE_JUDGE: tuple[str, ...] = REASONS[REASONS.index("judge_prompt_too_long") :]

COMPLICATE = """\
Rewrite the given prompt into a version that is a bit harder for an AI assistant, in one way only: {operation}. It must
stay reasonable, and a person must be able to understand it and answer it. Keep its language, and keep tables, code and
other data that it holds. Add 10 to 20 words at most. Answer with the rewritten prompt alone, without a solution.

#Given Prompt#:
{text}

#Rewritten Prompt#:
"""
IMPROVE = """\
Rewrite the given response to the given prompt into a better one, in one way only: {operation}. Keep its language, and
say nothing that is not true. Add 10 to 20 words at most. Answer with the rewritten response alone.

#Given Prompt#:
{instruction}

#Given Response#:
{text}

#Rewritten Response#:
"""
RANK_COMPLEXITY = """\
Rank the following {count} questions by their difficulty and complexity, and score each from 1 to 5. Give 6 to a
question that is too complex for you to answer. Compare them with each other. Answer with one line for each and nothing
else, in this format:
[1] Score: 2
[2] Score: 4

{list}
"""
RANK_QUALITY = """\
Rank the following {count} responses to one question by their quality (helpfulness, relevance, accuracy, depth,
creativity, level of detail), and score each from 1 to 5. 6 is reserved for a response that is already very well written
and cannot be improved. Compare them with each other. Answer with one line for each and nothing else, in this format:
[1] Score: 2
[2] Score: 4

#Question#:
{instruction}

#Responses#:
{list}
"""


@dataclass(frozen=True, slots=True)
class Telling:
    """What models are told: how to evolve a text, the ways one of which is drawn for each step, and how to rank."""

    evolve: str
    operations: Mapping[str, str]
    rank: str


TELLINGS: Mapping[Grade, Telling] = {
    "complexity": Telling(
        COMPLICATE,
        {
            "constrain": "add one more constraint or requirement",
            "deepen": "if it asks about something, ask about it in more depth and breadth",
            "concretise": "replace general concepts by more specific ones",
            "reason": "if it can be solved by a few simple steps of thought, ask for reasoning in more steps",
        },
        RANK_COMPLEXITY,
    ),
    "quality": Telling(
        IMPROVE,
        {
            "helpfulness": "make it more helpful to who asked",
            "relevance": "make it more relevant: all of it should answer what was asked",
            "depth": "go into the matter more deeply",
            "creativity": "answer with more creativity",
            "detail": "give more details",
        },
        RANK_QUALITY,
    ),
}
MARKS = ("#Given Prompt#", "#Rewritten Prompt#", "#Given Response#", "#Rewritten Response#")
JUDGE_TOKENS = 512
LINE = re.compile(r"^[ \t]*\[([0-9]{1,9})\][ \t]*Score:(.*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Variant:
    """A text as step `step` of an evolution left it, by `operation`; step 0 is the seed's own."""

    step: int
    text: str
    operation: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a reply cannot be used."""

    reason: Reason | Failure
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Graded:
    """Rows that teach a scorer of `grade`: its prompt about a variant, and the digit that the judge gave the variant.

    The first turn of a seed is evolved `steps` times by the model in role "generator": its instruction is made more
    complex, or its response better, each time in one of the published ways, drawn from `rng`. A step that fails is
    rejected, and the next one starts from the last text that stands. All texts that stand are then scored in one
    prompt to the role "judge", in an order drawn from `rng`, because a judge that sees them in the order of their
    steps can score without reading. Every seed gives `steps` + 1 rows, each accepted, or rejected by one of `reasons`.
    """

    needs: ClassVar[Needs] = Needs(models=("generator", "judge"), seeds=True)
    reasons: ClassVar[frozenset[str]] = frozenset({*REASONS, *get_args(Failure)} - {""})

    grade: Grade
    steps: int = 5
    max_tokens: int = 1024
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if self.grade not in get_args(Grade):
            raise InputError(f"unknown grade {self.grade!r}; known grades: {', '.join(get_args(Grade))}")
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; a text must be evolved at least once to be compared")

    @property
    def source(self) -> str:
        return f"deita_{self.grade}"

    @property
    def told(self) -> str:
        """Changes with every word that a model is told; part of the key of what is made with it."""
        telling = TELLINGS[self.grade]
        return digest(canonical([telling.evolve, dict(telling.operations), telling.rank]))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(zip(seeds, rng.spawn(len(seeds)), strict=True), lambda pair: self._seed(*pair))

    def _seed(self, seed: Example, rng: Rng) -> Dialogue[None]:
        turn = next(iter(turns_of(seed.messages)), ("", ""))
        missing: Reason | None = None if all(self._needed(turn)) else ("no_response" if turn[0] else "no_instruction")
        if missing:
            yield [Emit(tuple(self._rejected(seed, step, "", Fault(missing)) for step in range(self.steps + 1)))]
            return
        variants, rows = yield from self._evolved(seed, turn, rng)
        graded = yield from self._ranked(seed, turn, variants, rng)
        yield [Emit((*rows, *graded))]

    def _needed(self, turn: Turn) -> Turn | tuple[str]:
        return turn[:1] if self.grade == "complexity" else turn

    def _evolved(self, seed: Example, turn: Turn, rng: Rng) -> Dialogue[tuple[list[Variant], list[Rejected]]]:
        """The seed's text and what was made of it, and the steps that failed."""
        variants, failed = [Variant(0, self._needed(turn)[-1])], list[Rejected]()
        telling = TELLINGS[self.grade]
        for step in range(1, self.steps + 1):
            operation = pick(rng, tuple(telling.operations))
            way = telling.operations[operation]
            asked = telling.evolve.format(operation=way, instruction=turn[0], text=variants[-1].text)
            reply = yield from self._reply(
                "generator", asked, self.max_tokens, self.temperature, between(rng, 0, 2**31)
            )
            if fault := _fault(reply, variants):
                failed.append(self._rejected(seed, step, reply.text.strip(), fault))
            else:
                variants.append(Variant(step, reply.text.strip(), operation))
        return variants, failed

    def _ranked(
        self, seed: Example, turn: Turn, variants: Sequence[Variant], rng: Rng
    ) -> Dialogue[list[Accepted | Rejected]]:
        """Every variant with its score; all rejected where one of the scores cannot be read."""
        if len(variants) < 2:
            return [self._rejected(seed, each.step, each.text, Fault("nothing_to_rank")) for each in variants]
        shown = [variants[i] for i in rng.permutation(len(variants))]
        listed = "\n\n".join(f"[{number}] {variant.text}" for number, variant in enumerate(shown, 1))
        asked = TELLINGS[self.grade].rank.format(count=len(shown), instruction=turn[0], list=listed)
        reply = yield from self._reply("judge", asked, JUDGE_TOKENS, 0.0, 0)
        scores = _scores(reply, len(shown))
        if isinstance(scores, Fault):
            return [self._rejected(seed, each.step, each.text, scores) for each in variants]
        scored = sorted(zip(shown, scores, strict=True), key=lambda pair: pair[0].step)
        return [Accepted(self._row(seed, turn, variant, score)) for variant, score in scored]

    def _reply(self, role: str, text: str, max_tokens: int, temperature: float, seed: int) -> Dialogue[Completion]:
        asked = Prompt((Message("user", text),), max_tokens=max_tokens, temperature=temperature, seed=seed)
        (reply,) = yield [Complete(role, asked)]
        assert isinstance(reply, Completion)  # what `Complete` is answered by
        return reply

    def _row(self, seed: Example, turn: Turn, variant: Variant, score: int) -> Example:
        graded = (variant.text, "") if self.grade == "complexity" else (turn[0], variant.text)
        messages = (Message("user", prompt(self.grade, graded)), Message("assistant", str(score)))
        meta = {
            "seed": seed.sample_id,
            "parents": [seed.sample_id],
            "step": variant.step,
            "operation": variant.operation,
            "score": score,
            "grade": self.grade,
        }
        return Example(messages, self.source, meta)

    def _rejected(self, seed: Example, step: int, text: str, fault: Fault) -> Rejected:
        """A variant that is not kept, as the text it was."""
        meta = {"seed": seed.sample_id, "parents": [seed.sample_id], "step": step, "grade": self.grade}
        return Rejected(fault.reason, fault.detail, Example((Message("user", text),), self.source, meta))


def _scores(reply: Completion, count: int) -> list[int] | Fault:
    if reply.failure:
        return Fault(reply.failure, reply.detail)
    return Fault("judge_prompt_too_long") if reply.truncated else read_scores(reply.text, count)


def read_scores(answer: str, count: int) -> list[int] | Fault:
    """The scores of variants 1 to `count` from lines `[i] Score: s`; other lines are passed over.

    One fault in any of these lines, or a variant without one, makes the whole answer a `Fault`: a judge that loses
    count cannot be trusted with the rest.
    """
    scores: dict[int, int] = {}
    for found in LINE.finditer(answer):
        number, score = int(found[1]), found[2].strip()
        if not 1 <= number <= count:
            return Fault("score_of_no_variant", f"[{number}] of {count}")
        if number in scores:
            return Fault("score_twice", f"[{number}]")
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", score):
            return Fault("score_not_a_number", f"[{number}] Score: {score[:40]}")
        if int(score) not in GRADES:
            return Fault("score_out_of_range", f"[{number}] Score: {score}")
        scores[number] = int(score)
    if missing := [number for number in range(1, count + 1) if number not in scores]:
        return Fault("score_missing", f"of {', '.join(map(str, missing))} of {count}; answer: {answer.strip()[:80]!r}")
    return [scores[number] for number in range(1, count + 1)]


def _fault(reply: Completion, earlier: Sequence[Variant]) -> Fault | None:
    """What keeps a rewritten text from being ranked beside the `earlier` ones."""
    if reply.failure:
        return Fault(reply.failure, reply.detail)
    if reply.truncated:
        return Fault("prompt_too_long")
    if not reply.text.strip():
        return Fault("empty")
    if reply.finish_reason == "length":
        return Fault("cut_off", f"after {reply.usage.completion_tokens} tokens")
    if any(mark in reply.text for mark in MARKS):
        return Fault("echoes_prompt")
    same = next((variant.step for variant in earlier if variant.text.split() == reply.text.split()), None)
    return None if same is None else Fault("same_as_earlier", f"step {same}")
