"""S3FT, selective self-to-supervised fine-tuning (2025, arXiv 2502.08130): the model's own words where they are right.

Tuned on its own right answers a model drifts less from what it could do before than tuned on another's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Emit, each
from models.protocol import UNANSWERED, Completion, Prompt, Verdict
from models.reply_logprobs import mean_logprob, reply_logprobs
from models.telling import telling
from models.verify.checked import check_verifier, checked, judge_roles, told_of, undecided, verifier_roles
from models.verify.checked import unusable as uncheckable
from models.verify.reference import question_of
from synthesis.attempts import (
    LEARNER,
    LOST,
    TEMPLATES,
    UNUSABLE,
    answered,
    asked_instead,
    gold_of,
    lost,
    streams,
    turned_away,
    unusable,
)
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between
from warehouse.errors import InputError
from warehouse.records import Example, canonical, digest

Source = Literal["self", "paraphrase", "gold"]
PARAPHRASE = telling(TEMPLATES, "s3ft_paraphrase.v1")
LEAK = re.compile(
    r"\b(?:(?:reference|correct|given|provided|supplied|original|above)\s+(?:answer|response|solution)"
    r"|(?:answer|response|solution)\s+(?:given|provided|supplied)\s+(?:above|to\s+me|in\s+the\s+prompt)"
    r"|in\s+my\s+own\s+words)\b",
    re.IGNORECASE,
)
SOURCE = "s3ft"
LEAKED = Verdict(False, reason="leak")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reply and what it was found to be; `logprob` is its mean per token under the learner, where that was asked."""

    text: str
    verdict: Verdict
    logprob: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        verdict = self.verdict
        found = {"right": verdict.right, "answer": verdict.answer, "reason": verdict.reason}
        return {"text": self.text, "logprob": self.logprob, **found}


@dataclass(frozen=True, slots=True)
class S3FT:
    """One row per seed: the learner's own answer where it is right, else its own wording of the gold reply where that
    still is right, else the gold reply.

    verifier     the name of a verifier, or `judge`
    candidates   answers, and then paraphrases, to choose from: the first is greedy, the others are drawn at
                 `temperature`. Of several right ones the row takes the one with the highest mean log-probability per
                 token; more than one needs `likelihoods`, or the learner's own figures with each reply
    likelihoods  measure the mean log-probability of every reply and of the gold one under the learner: the model in
                 that role must then be one on this machine
    max_tokens   a reply that is longer is cut off, and so is not right
    """

    reasons: ClassVar[frozenset[str]] = LOST - {"cut_off"} | UNUSABLE | {"no_reference"}

    verifier: str
    candidates: int = 1
    likelihoods: bool = True
    max_tokens: int = 512
    temperature: float = 0.7

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.candidates < 1 or self.max_tokens < 1:
            raise InputError(f"candidates is {self.candidates}, max_tokens {self.max_tokens}; give at least 1 of each")
        if self.candidates > 1 and self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}; candidates that differ need one above 0")

    @property
    def needs(self) -> Needs:
        scored = (LEARNER,) if self.likelihoods else ()
        models = (LEARNER, *judge_roles(self.verifier))
        return Needs(models, verifiers=verifier_roles(self.verifier), scored=scored, seeds=True)

    @property
    def templates(self) -> list[str]:
        return [key for key in (PARAPHRASE.key, told_of(self.verifier)) if key]

    @property
    def told(self) -> str:
        return digest(canonical(self.templates))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(zip(seeds, streams(seeds, rng), strict=True), lambda pair: self._row(*pair))

    def _row(self, seed: Example, rng: Rng) -> Dialogue[None]:
        if reason := unusable(seed) or uncheckable(self.verifier, seed):
            yield [Emit((turned_away(seed, SOURCE, reason),))]
            return
        number = between(rng, 0, 2**31 - 1)
        made: dict[Source, list[Attempt]] = {}
        own: tuple[Source, ...] = ("self", "paraphrase")
        for source in own:
            replies: list[Completion] = yield [Complete(LEARNER, p) for p in self._prompts(seed, source, number)]
            silent = next((reply for reply in replies if reply.failure in UNANSWERED), None)
            usable = [reply for reply in replies if silent is None and not lost(reply, whole=False)]
            if not usable:
                failed = silent or replies[0]  # one that nobody answered is asked for again, so the seed has to wait
                yield [Emit((turned_away(seed, SOURCE, lost(failed, whole=False), failed.detail),))]
                return
            made[source] = yield from each(usable, partial(self._tried, seed, source))
            if open_ := next((a.verdict for a in made[source] if undecided(a.verdict)), None):
                yield [Emit((turned_away(seed, SOURCE, open_.reason, open_.detail),))]
                return
            if any(attempt.verdict.right for attempt in made[source]):
                break
        yield [Emit((Accepted((yield from self._chosen(seed, made))),))]

    def _prompts(self, seed: Example, source: Source, number: int) -> list[Prompt]:
        """The greedy request, and the k-th independent draw of each further candidate."""
        asked = question_of(seed)
        if source == "paraphrase":
            asked = asked_instead(asked, PARAPHRASE(question=asked[-1].content, gold=gold_of(seed)))
        greedy = Prompt(asked, self.max_tokens)
        drawn = (
            Prompt(asked, self.max_tokens, self.temperature, seed=number, draw=k) for k in range(1, self.candidates)
        )
        return [greedy, *drawn]

    def _tried(self, seed: Example, source: Source, reply: Completion) -> Dialogue[Attempt]:
        """A reply, judged: a paraphrase too, because other words may say something else."""
        text = reply.text.strip()
        if source == "paraphrase" and leaks(text, question_of(seed)[-1].content + gold_of(seed)):
            verdict = LEAKED
        else:
            verdict = yield from checked(self.verifier, reply, seed)
        logprob = mean_logprob(reply.logprobs)
        if self.likelihoods:
            logprob = yield from self._likelihood(seed, text)
        return Attempt(text, verdict, logprob)

    def _likelihood(self, seed: Example, text: str) -> Dialogue[float | None]:
        return mean_logprob((yield from reply_logprobs(LEARNER, question_of(seed), text)))

    def _chosen(self, seed: Example, made: dict[Source, list[Attempt]]) -> Dialogue[Example]:
        gold = gold_of(seed)
        best: dict[Source, Attempt] = {source: best_of(attempts) for source, attempts in made.items()}
        source: Source = next((name for name, attempt in best.items() if attempt.verdict.right), "gold")
        logprobs: dict[str, float | None] = {name: attempt.logprob for name, attempt in best.items()}
        if self.likelihoods:
            logprobs["gold"] = yield from self._likelihood(seed, gold)
        meta = {
            "parents": [seed.sample_id],
            "template": [key for key in self.templates if key != PARAPHRASE.key or "paraphrase" in made],
            "source": source,
            "gold": gold,
            "verifier": self.verifier,
            "attempts": {name: [attempt.facts for attempt in attempts] for name, attempts in made.items()},
            "logprobs": logprobs,
        }
        return Example(answered(question_of(seed), gold if source == "gold" else best[source].text), SOURCE, meta)


def leaks(text: str, allowed: str) -> bool:
    """Whether a paraphrase speaks of the response it was shown, in words that are not in `allowed` already."""
    known = {" ".join(found[0].lower().split()) for found in LEAK.finditer(allowed)}
    return any(" ".join(found[0].lower().split()) not in known for found in LEAK.finditer(text))


def best_of(attempts: Sequence[Attempt]) -> Attempt:
    """The right attempt with the highest mean log-probability, of equal ones the first; without a right one the best of
    all. One whose log-probability is not known comes after those that have one."""
    unknown = -np.inf
    return max(attempts, key=lambda one: (one.verdict.right, unknown if one.logprob is None else one.logprob))
