"""R-Tuning (Zhang et al. 2024, arXiv 2311.09677): rows that teach a model to say what it does not know.

The model that will be trained is probed first; what it can answer is its own matter, so the rows are good for no other
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected, each
from models.protocol import Completion, Prompt, Verdict
from models.sureness import SURENESS, with_sureness
from models.telling import telling
from models.verify.checked import check_verifier, checked, judge_roles, told_of, undecided, verifier_roles
from models.verify.checked import unusable as uncheckable
from models.verify.reference import question_of, reference_of
from synthesis.attempts import (
    LEARNER,
    LOST,
    TEMPLATES,
    UNUSABLE,
    answered,
    gold_of,
    lost,
    streams,
    turned_away,
    unusable,
)
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between, pick
from synthesis.squad import best_f1, normalised
from warehouse.errors import InputError
from warehouse.records import Example, canonical, digest

Kind = Literal["unsure", "replacement", "unsupervised"]
REFUSALS = telling(TEMPLATES, "r_tuning_refusals.v1")
MATCH = "f1"
SOURCE = "r_tuning"


@dataclass(frozen=True, slots=True)
class Probe:
    """What the model answered to one seed: greedily, and in `k` independent samples.

    verdicts  of the greedy answer, then of the samples; `answer` of each is what was taken for its answer
    scores    how well each of these matches the gold answer, in [0, 1]; higher is closer
    """

    texts: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    scores: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether the greedy answer is right."""
        return self.verdicts[0].right

    @property
    def frequencies(self) -> tuple[float, ...]:
        """How often each different answer came among the samples, as shares, the largest first."""
        return shares([verdict.answer for verdict in self.verdicts[1:]])

    @property
    def facts(self) -> dict[str, Any]:
        """What is kept in `meta`. `margin` is the lead of the most frequent answer over the second, in [0, 1]."""
        samples = self.verdicts[1:]
        most = (*self.frequencies, 0.0)
        return {
            "known": self.known,
            "pass_rate": float(np.mean([verdict.right for verdict in samples])) if samples else None,
            "entropy": entropy(self.frequencies) if samples else None,
            "margin": most[0] - most[1] if samples else None,
            "probe_answers": list(self.texts),
            "probe_found": [verdict.answer for verdict in self.verdicts],
            "probe_right": [verdict.right for verdict in self.verdicts],
            "probe_scores": list(self.scores),
        }


@dataclass(frozen=True, slots=True)
class Probed:
    """A seed that was probed; `order` in [0, 1) and `refusal` were drawn for it, `replies` are keys of its probes."""

    seed: Example
    probe: Probe
    order: float
    refusal: str
    replies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RTuning:
    """One row per seed: its gold reply and whether the model in role "learner" is sure of it, or a refusal.

    kind        `unsure`: the gold reply, ended by "I am sure." where the greedy answer is right, else by "I am unsure."
                `replacement`: the gold reply where the greedy answer is right, else one of 16 refusals.
                `unsupervised`: the gold reply, "sure" in the half of the seeds whose samples have the lower entropy
    samples     answers drawn besides the greedy one; `unsupervised` needs at least 2
    verifier    what tells right from wrong: `f1` (words shared with the gold answer or an alias, at least `least_f1`),
                the name of a verifier, or `judge`
    max_share   no more than this share of the rows may be of one class; what is too many is drawn and rejected
    max_tokens, temperature, stop  how answers are drawn; one that is cut off is wrong
    """

    reasons: ClassVar[frozenset[str]] = LOST - {"cut_off"} | UNUSABLE | {"no_reference", "over_share"}

    kind: Kind = "unsure"
    samples: int = 10
    verifier: str = MATCH
    least_f1: float = 0.8
    max_share: float = 1.0
    max_tokens: int = 64
    temperature: float = 0.7
    stop: Sequence[str] = ("\n",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))  # a recipe gives a list
        if self.kind not in get_args(Kind):
            raise InputError(f"kind is {self.kind!r}; give one of {', '.join(get_args(Kind))}")
        if self.samples < (least := 2 if self.kind == "unsupervised" else 0):
            raise InputError(f"samples is {self.samples}; {self.kind} needs at least {least}")
        if self.samples and self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}; samples that differ need one above 0")
        if not 0 < self.least_f1 <= 1 or not 0.5 <= self.max_share <= 1:
            raise InputError(
                f"least_f1 is {self.least_f1} and max_share {self.max_share}; give an F1 above 0 and at most 1, and a "
                "share from 0.5 to 1"
            )
        if self.verifier != MATCH:
            check_verifier(self.verifier)

    @property
    def needs(self) -> Needs:
        if self.verifier == MATCH:
            return Needs(models=(LEARNER,), seeds=True)
        return Needs((LEARNER, *judge_roles(self.verifier)), verifiers=verifier_roles(self.verifier), seeds=True)

    @property
    def templates(self) -> list[str]:
        """Keys of the texts that rows are written with and models are told."""
        written = REFUSALS.key if self.kind == "replacement" else SURENESS.key
        judged = told_of(self.verifier) if self.verifier != MATCH else ""
        return [key for key in (written, judged) if key]

    @property
    def told(self) -> str:
        return digest(canonical(self.templates))

    @property
    def waits(self) -> bool:
        """Whether a row depends on the other rows, so that none can be handed out before all are probed."""
        return self.kind == "unsupervised" or self.max_share < 1

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        pairs = zip(seeds, streams(seeds, rng), strict=True)
        found = yield from each(pairs, lambda pair: self._probed(*pair))
        if self.waits:
            probed = [one for one in found if one is not None]
            yield [Emit(tuple(self._decided(probed)))]

    def _probed(self, seed: Example, rng: Rng) -> Dialogue[Probed | None]:
        """The seed with its probe, where it has to wait for others; else its row is handed out."""
        if reason := unusable(seed) or self._uncheckable(seed):
            yield [Emit((turned_away(seed, SOURCE, reason),))]
            return None
        order, refusal = float(rng.random()), pick(rng, tuple(REFUSALS().splitlines()))
        replies = yield [Complete(LEARNER, prompt) for prompt in self._prompts(seed, between(rng, 0, 2**31 - 1))]
        if failed := next((reply for reply in replies if lost(reply, whole=False)), None):
            yield [Emit((turned_away(seed, SOURCE, lost(failed, whole=False), failed.detail),))]
            return None
        keys = tuple(reply.key for reply in replies if reply.key)
        probed = Probed(seed, (yield from self._judged(seed, replies)), order, refusal, keys)
        if open_ := next((verdict for verdict in probed.probe.verdicts if undecided(verdict)), None):
            yield [Emit((turned_away(seed, SOURCE, open_.reason, open_.detail),))]
            return None
        if self.waits:
            return probed
        yield [Emit((Accepted(self._row(probed, probed.probe.known)),))]
        return None

    def _uncheckable(self, seed: Example) -> str:
        return uncheckable(self.verifier, seed) if self.verifier != MATCH else ""

    def _prompts(self, seed: Example, number: int) -> list[Prompt]:
        """The greedy probe, and the k-th independent draw of each sample."""
        asked, stop = question_of(seed), tuple(self.stop)
        greedy = Prompt(asked, self.max_tokens, stop=stop)
        drawn = [
            Prompt(asked, self.max_tokens, self.temperature, stop=stop, seed=number, draw=k)
            for k in range(1, self.samples + 1)
        ]
        return [greedy, *drawn]

    def _judged(self, seed: Example, replies: Sequence[Completion]) -> Dialogue[Probe]:
        golds = (gold_of(seed), *reference_of(seed).answers)
        scores = [best_f1(reply.text, golds) for reply in replies]
        if self.verifier == MATCH:
            right = [score >= self.least_f1 and not lost(reply) for score, reply in zip(scores, replies, strict=True)]
            verdicts = [
                Verdict(yes, normalised(reply.text), "" if yes else "wrong")
                for yes, reply in zip(right, replies, strict=True)
            ]
        else:
            given = yield from each(replies, lambda reply: checked(self.verifier, reply, seed))
            verdicts = [
                Verdict(v.right, v.answer or normalised(reply.text), v.reason)
                for v, reply in zip(given, replies, strict=True)
            ]
        return Probe(tuple(reply.text for reply in replies), tuple(verdicts), tuple(scores))

    def _decided(self, probed: Sequence[Probed]) -> list[Accepted | Rejected]:
        """All rows: which half is sure where that is a matter of rank, and which rows are too many."""
        sure = lower_half(probed) if self.kind == "unsupervised" else [one.probe.known for one in probed]
        kept = within_share(sure, [one.order for one in probed], self.max_share)
        rows = [self._row(one, yes) for one, yes in zip(probed, sure, strict=True)]
        return [
            Accepted(row) if keep else Rejected("over_share", f"max_share {self.max_share:g}", row)
            for row, keep in zip(rows, kept, strict=True)
        ]

    def _row(self, probed: Probed, sure: bool) -> Example:
        gold = gold_of(probed.seed)
        refused = self.kind == "replacement"
        reply = (gold if sure else probed.refusal) if refused else with_sureness(gold, sure)
        drawn = {"samples": self.samples, "temperature": self.temperature, "max_tokens": self.max_tokens}
        meta = {
            "parents": [probed.seed.sample_id],
            "template": self.templates,
            "kind": self.kind,
            "sure": sure,
            "gold": gold,
            "verifier": self.verifier,
            "probe": {**drawn, "stop": list(self.stop)},
            "replies": list(probed.replies),
            **probed.probe.facts,
        }
        return Example(answered(question_of(probed.seed), reply), SOURCE, meta)


def shares(answers: Sequence[str]) -> tuple[float, ...]:
    """How often each different answer comes, as shares that sum to 1, the largest first."""
    if not answers:
        return ()
    counts = np.unique(np.array(answers, np.object_), return_counts=True)[1]
    return tuple(sorted((counts / len(answers)).tolist(), reverse=True))


def entropy(frequencies: Sequence[float]) -> float:
    """-Σ p ln p in nats: 0 where all answers agree, ln k where all k differ."""
    p = np.asarray(frequencies)
    return float(-(p * np.log(p)).sum()) + 0.0


def lower_half(probed: Sequence[Probed]) -> list[bool]:
    """Whether each seed is in the half of lower entropy; the middle one of an odd number is not.

    Ties go by the drawn order, so that the order of the seeds decides nothing.
    """
    keys = [(entropy(one.probe.frequencies), one.order) for one in probed]
    ranked = sorted(range(len(keys)), key=lambda i: keys[i])
    sure = set(ranked[: len(ranked) // 2])
    return [i in sure for i in range(len(probed))]


def within_share(sure: Sequence[bool], order: Sequence[float], max_share: float) -> list[bool]:
    """Which rows to keep so that neither class has more than `max_share` of them; the lowest `order` stays.

    Where one class is empty the other is all there is, whatever is kept: then nothing is dropped.
    """
    counts = {yes: sum(1 for one in sure if one is yes) for yes in (True, False)}
    rare = min(counts.values())
    most = int(rare * max_share / (1 - max_share) + 1e-9) if max_share < 1 and rare else len(sure)
    kept = set[int]()
    for yes in (True, False):
        rows = sorted((i for i, one in enumerate(sure) if one is yes), key=lambda i: order[i])
        kept.update(rows[:most])
    return [i in kept for i in range(len(sure))]
