"""Learning from one's own programs, right or right so far (Ni et al. 2023, arXiv 2205.14318), as offline rounds.

The paper samples while it trains; here a model that stays as it is samples for some rounds, each of which begins where
earlier ones were right, and what was found is written down as rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected, Verify, each
from models.protocol import Completion, Prompt, Verdict
from models.reply_logprobs import reply_logprobs
from models.telling import telling
from models.verify.checked import unusable as uncheckable
from models.verify.reference import question_of
from models.verify.trace import ROLE, Traced, source_in, straight, trace_of
from synthesis.attempts import (
    LEARNER,
    LOST,
    NO_QUESTION,
    TEMPLATES,
    answered,
    asked_instead,
    gold_of,
    lost,
    streams,
    turned_away,
)
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between
from synthesis.tracing import Known, Part, candidate, exported, kept, refused
from warehouse.errors import InputError
from warehouse.records import Example

SOURCE = "self_samples"
ASK = telling(TEMPLATES, "self_samples.v1")


@dataclass(frozen=True, slots=True)
class SelfSamples:
    """Programs for each seed that the model in role "learner" wrote itself: whole ones that give the right answer, and
    beginnings that reach a state which a right program goes through.

    rounds, samples  in each round so many programs are sampled for a seed; each continues nothing, or a beginning that
                     an earlier round found
    tolerance        statements by which a program may be longer than the shortest known one to the same state
    most             rows kept for a seed: whole programs first
    beta             weights: None gives each row 1 (MLE-Aug). A number gives a seed's rows softmax(beta · log p) under
                     the learner, which sums to 1: the gradient of β-MML, 1 is MML, 0 is equal shares
    max_tokens, temperature  how programs are sampled; the last line of one that is cut off is dropped

    A row's meta has `complete`; the rows where it is false must be trained without an end token.
    """

    reasons: ClassVar[frozenset[str]] = (
        LOST - {"cut_off"} | Traced.reasons | {NO_QUESTION, "gold_not_right", "duplicate", "longer", "superseded"}
    ) | {"over_most"}
    told: ClassVar[str] = ASK.key

    rounds: int = 4
    samples: int = 4
    tolerance: int = 0
    most: int = 10
    beta: float | None = None
    max_tokens: int = 256
    temperature: float = 0.8

    def __post_init__(self) -> None:
        low = {"rounds": 1, "samples": 1, "tolerance": 0, "most": 1, "max_tokens": 1}
        if wrong := {name: value for name, floor in low.items() if (value := getattr(self, name)) < floor}:
            raise InputError(f"self_samples: {wrong} is too small; the least values are {low}")
        if self.temperature <= 0 or (self.beta is not None and self.beta < 0):
            raise InputError(
                f"self_samples: temperature is {self.temperature} and beta {self.beta}; give a temperature above 0 and "
                "a beta of at least 0, or none"
            )

    @property
    def needs(self) -> Needs:
        scored = () if self.beta is None else (LEARNER,)
        return Needs((LEARNER,), verifiers=(ROLE,), scored=scored, seeds=True)

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(zip(seeds, streams(seeds, rng), strict=True), lambda pair: self._task(*pair))

    def _task(self, seed: Example, rng: Rng) -> Dialogue[None]:
        if reason := uncheckable(ROLE, seed):
            yield [Emit((turned_away(seed, SOURCE, reason),))]
            return
        known, rows = yield from self._gold(seed)
        number = between(rng, 0, 2**31 - 1)
        for round_ in range(self.rounds):
            prefixes = [_pick(rng, known.partial) for _ in range(self.samples)]
            draws = range(round_ * self.samples + 1, (round_ + 1) * self.samples + 1)
            asked = [self._prompt(seed, prefix, number, k) for prefix, k in zip(prefixes, draws, strict=True)]
            replies: list[Completion] = yield [Complete(LEARNER, prompt) for prompt in asked]
            tried = yield from each(zip(replies, prefixes, draws, strict=True), lambda one: self._tried(seed, *one))
            for draw, prefix, verdict in zip(draws, prefixes, tried, strict=True):
                known, refusals = self._offered(seed, known, draw, prefix, verdict)
                rows += refusals
        rows += yield from self._rows(seed, known)
        yield [Emit(tuple(rows))]

    def _gold(self, seed: Example) -> Dialogue[tuple[Known, list[Accepted | Rejected]]]:
        """The buffers to begin with: the gold program, where the seed has one that gives the right answer."""
        if not (gold := gold_of(seed)).strip():
            return Known(), []
        (verdict,) = yield [Verify(ROLE, gold, seed)]
        if verdict.right:
            trace = trace_of(verdict)
            return Known(complete=(Part(trace, trace.answered, True),)), []
        return Known(), [Rejected("gold_not_right", verdict.reason, self._row(seed, gold, {"draw": 0}))]

    def _prompt(self, seed: Example, prefix: Part | None, number: int, draw: int) -> Prompt:
        question = question_of(seed)
        text = ASK(problem=question[-1].content, prefix=prefix.text if prefix else "")
        return Prompt(asked_instead(question, text), self.max_tokens, self.temperature, seed=number, draw=draw)

    def _tried(self, seed: Example, reply: Completion, prefix: Part | None, draw: int) -> Dialogue[Verdict]:
        """The verdict on a sampled program, its beginning included; one with a reason of `LOST` has none."""
        if reason := lost(reply, whole=False):
            return Verdict(False, reason=reason, detail=reply.detail)
        text = reply.text.rpartition("\n")[0] if reply.finish_reason == "length" else reply.text
        (verdict,) = yield [Verify(ROLE, continued(prefix, text), seed)]
        assert isinstance(verdict, Verdict)  # what `Verify` is answered by
        return verdict

    def _offered(
        self, seed: Example, known: Known, draw: int, prefix: Part | None, verdict: Verdict
    ) -> tuple[Known, list[Accepted | Rejected]]:
        """The buffers after a sample, and the rows that are decided by it: itself, or what it took the place of."""
        trace = trace_of(verdict)
        part = candidate(known, trace, verdict.right, draw, prefix.k if prefix else 0)
        if part is None:
            detail = "" if trace.program.text else verdict.detail
            row = self._row(seed, trace.program.text, {"draw": draw})
            return known, [Rejected(verdict.reason, detail, row)]
        if reason := refused(known, part, self.tolerance):
            return known, [Rejected(reason, "", self._part(seed, part))]
        known, gone = kept(known, part)
        return known, [Rejected("superseded", f"draw {draw}", self._part(seed, other)) for other in gone]

    def _rows(self, seed: Example, known: Known) -> Dialogue[list[Accepted | Rejected]]:
        chosen = exported(known, self.most)
        weights = yield from self._weights(seed, chosen)
        over = [part for part in known.parts if part not in chosen]
        rows: list[Accepted | Rejected] = [
            Accepted(self._part(seed, part, weight=weight)) for part, weight in zip(chosen, weights, strict=True)
        ]
        return rows + [Rejected("over_most", f"most {self.most}", self._part(seed, part)) for part in over]

    def _weights(self, seed: Example, parts: Sequence[Part]) -> Dialogue[list[float]]:
        if self.beta is None:
            return [1.0] * len(parts)
        question = question_of(seed)
        found: list[NDArray[np.float32]] = yield from each(
            parts, lambda part: reply_logprobs(LEARNER, question, part.text)
        )
        scores = [
            float(np.sum(logprobs if part.complete else logprobs[:-1], dtype=np.float64))
            for part, logprobs in zip(parts, found, strict=True)
        ]
        return softmax(scores, self.beta)

    def _part(self, seed: Example, part: Part, **more: float) -> Example:
        facts = {"draw": part.draw, "complete": part.complete, "statements": part.k, **more}
        return self._row(seed, part.text, {"origin": "self" if part.draw else "gold", **facts})

    def _row(self, seed: Example, program: str, facts: dict[str, Any]) -> Example:
        meta = {"parents": [seed.sample_id], "template": [ASK.key], **facts}
        return Example(answered(question_of(seed), program), SOURCE, meta)


def continued(prefix: Part | None, reply: str) -> str:
    """The program that a reply makes of the beginning it was given, whether it repeats the beginning or not."""
    source = source_in(reply)
    if prefix is None or straight(source).statements[: prefix.k] == prefix.statements:
        return source
    return f"{prefix.text}\n{straight(source).text}"


def softmax(scores: Sequence[float], beta: float) -> list[float]:
    """exp(beta · score), as shares that sum to 1."""
    if not len(scores):
        return []
    powers = beta * np.asarray(scores)
    chances = np.exp(powers - powers.max())
    return [float(share) for share in chances / chances.sum()]


def _pick(rng: Rng, partial: Sequence[Part]) -> Part | None:
    """The empty program, or one of the partial ones, each as likely."""
    place = between(rng, 0, len(partial))
    return partial[place - 1] if place else None
