"""Inputs that look like a reference set's, answered by a teacher (Trans-LoRA, Wang et al. 2024, arXiv 2405.17258).

A generator continues a list of a few real inputs; a discriminator, which knows more of them, keeps what could be real.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Embed, Emit, Rejected, each
from models.protocol import Completion, Prompt, Vectors
from models.reply_logprobs import reply_logprobs
from models.telling import telling
from synthesis.attempts import LOST, NO_QUESTION, TEMPLATES, answered, lost, turned_away
from synthesis.discriminator import Scorer, area_under_curve, best_threshold, logistic, nearest
from synthesis.mimics import EXAMPLES, GENERATOR, SOURCE, Candidate, Mimics, input_of, references
from synthesis.mmd import median_distance, squared_mmd
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between
from warehouse.errors import InputError
from warehouse.records import Example, Floats, Message, canonical, digest

Kind = Literal["logistic", "knn", "likelihood", "reply"]
IS_REAL = telling(TEMPLATES, "matched_is_real.v1")
TEACHER, DISCRIMINATOR, ENCODER = "teacher", "discriminator", "encoder"
LEAST_REAL = 8  # real inputs besides those that are shown: a few to fit to, a few to choose the threshold by
LEAST_PILOT = 4
ENDS: Mapping[str, str] = {
    "too_few_candidates": "the generator wrote no list that could be read, or copies only: look at the rejected rows",
    "acceptance_too_low": "no input of the last ones was accepted: an AUC near 1 says that the generator's inputs are "
    "far from the real ones; give another generator or more demonstrations",
    "budget_spent": "the budget is spent: raise it, or give another generator or more demonstrations",
}


@dataclass(frozen=True, slots=True)
class Judge:
    """The score from which on a candidate is accepted, how well scores tell held-out real inputs from synthetic ones
    (AUC, in [0, 1]), and what scores embeddings; None where a model is asked."""

    threshold: float
    auc: float
    scorer: Scorer | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate, its embedding (d,) and its score; NaN where the model's answer could not be read."""

    candidate: Candidate
    vector: Vectors
    score: float


@dataclass(frozen=True, slots=True)
class Matched:
    """`rows` new inputs, each answered by the model in role "teacher".

    demonstrations  seeds, drawn once, that the model in role "generator" is shown
    shown           length of the list that it continues: a call gives `shown` - `demonstrations` inputs
    discriminator   `logistic`: a logistic regression on embeddings. `knn`: similarity to the nearest real inputs. Both
                    accept from the threshold that best parts held-out real inputs from synthetic ones.
                    `likelihood`: the model in role "discriminator" finds "yes" as likely as "no"; `reply`: it says yes
    dataset         what the reference set is called when that model is asked
    neighbours      of `knn`
    pilot           synthetic inputs that the discriminator is fitted to and judged by; they become no rows
    held_out        share of the real inputs and of the pilot that is not fitted to
    budget          inputs asked for, at most, the pilot included
    patience        end once so many inputs in a row were asked for and none was accepted
    max_tokens, temperature  how lists are drawn; answers of the teacher are greedy, of at most `answer_tokens`
    """

    reasons: ClassVar[frozenset[str]] = (
        LOST | set(ENDS) | {NO_QUESTION, "several_turns", "reference", "unreadable", "copy", "duplicate", "pilot"}
    ) | {"unlike", "unreadable_verdict", "enough"}

    rows: int = 250
    demonstrations: int = 5
    shown: int = 10
    discriminator: Kind = "logistic"
    dataset: str = "given"
    neighbours: int = 5
    pilot: int = 100
    held_out: float = 0.3
    budget: int = 5000
    patience: int = 200
    max_tokens: int = 1024
    temperature: float = 1.0
    answer_tokens: int = 512

    def __post_init__(self) -> None:
        if self.discriminator not in get_args(Kind):
            raise InputError(f"discriminator is {self.discriminator!r}; give one of {', '.join(get_args(Kind))}")
        low = {"rows": 1, "demonstrations": 1, "neighbours": 1, "pilot": LEAST_PILOT, "patience": 1}
        if wrong := {name: value for name, floor in low.items() if (value := getattr(self, name)) < floor}:
            raise InputError(f"matched: {wrong} is too small; the least values are {low}")
        if not self.demonstrations < self.shown <= 99 or not 0 < self.held_out < 1 or self.temperature <= 0:
            raise InputError(
                f"matched: shown is {self.shown}, held_out {self.held_out} and temperature {self.temperature}; give a "
                f"list of {self.demonstrations + 1} to 99, a share between 0 and 1 and a temperature above 0"
            )
        if self.budget < self.pilot:
            raise InputError(f"matched: the budget of {self.budget} inputs is less than the pilot of {self.pilot}")

    @property
    def by_model(self) -> bool:
        return self.discriminator in ("likelihood", "reply")

    @property
    def needs(self) -> Needs:
        asked = (DISCRIMINATOR,) if self.by_model else ()
        scored = asked if self.discriminator == "likelihood" else ()
        return Needs((GENERATOR, TEACHER, *asked), (ENCODER,), scored=scored, seeds=True)

    @property
    def templates(self) -> list[str]:
        return [EXAMPLES.key, IS_REAL.key] if self.by_model else [EXAMPLES.key]

    @property
    def told(self) -> str:
        return digest(canonical(self.templates))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        real, unfit = references(seeds)
        yield [Emit(tuple(unfit))]
        if len(real) < (least := self.demonstrations + LEAST_REAL):
            raise InputError(f"matched: the seeds hold {len(real)} different inputs of one turn; give at least {least}")
        drawn = [real[i] for i in rng.permutation(len(real))]
        mimics = self._mimics(drawn, rng)
        any_row = yield from self._job(mimics, drawn[self.demonstrations :])
        unused = drawn[self.demonstrations if any_row else 0 :]
        yield [Emit(tuple(turned_away(seed, SOURCE, "reference") for seed in unused))]

    def _mimics(self, real: Sequence[Example], rng: Rng) -> Mimics:
        items = self.shown - self.demonstrations
        keys = frozenset(seed.prompt_id for seed in real)
        number, calls = between(rng, 0, 2**31 - 1), math.ceil(self.budget / items)
        shown = real[: self.demonstrations]
        return Mimics(shown, items, number, self.max_tokens, self.temperature, keys, calls)

    def _job(self, mimics: Mimics, others: Sequence[Example]) -> Dialogue[bool]:
        """All rows that come of candidates; whether any was accepted."""
        pilot, barren = list[Candidate](), 0
        while len(pilot) < self.pilot and mimics.left and barren < self.patience:
            found = yield from mimics.more(self.pilot - len(pilot))
            pilot, barren = pilot + found, 0 if found else barren + mimics.asked
        yield [_handed_out(mimics, *(mimics.refused("pilot", one) for one in pilot))]
        if len(pilot) < LEAST_PILOT:
            yield [_ended("too_few_candidates", {"candidates": len(pilot), "calls": mimics.calls})]
            return False
        real = yield from _embedded([input_of(seed) for seed in others])
        judge = yield from self._judge(others, real, pilot)
        judged, accepted, why = yield from self._accepted(mimics, judge)
        held = real[: self._held(len(real))]
        facts = {**self._facts(judge, held, judged, accepted), "calls": mimics.calls}
        if why:
            yield [_ended(why, facts)]
        kept = yield from each(accepted, lambda one: self._answered(mimics, one, facts))
        return any(kept)

    def _held(self, n: int) -> int:
        """How many of `n`, the first, are held out: at least 2, and at least 2 are left."""
        return min(max(round(n * self.held_out), 2), n - 2)

    def _judge(self, others: Sequence[Example], real: Vectors, pilot: Sequence[Candidate]) -> Dialogue[Judge]:
        synthetic = yield from _embedded([one.text for one in pilot])
        a, b = self._held(len(real)), self._held(len(synthetic))
        if self.by_model:
            asked = [*(input_of(seed) for seed in others[:a]), *(one.text for one in pilot[:b])]
            scores = yield from each(asked, self._asked)
            found = np.nan_to_num(np.array(scores), nan=-1.0)
            return Judge(0.0, area_under_curve(found[:a], found[a:]))
        if self.discriminator == "logistic":
            scorer = logistic(real[a:], synthetic[b:])
        else:
            scorer = nearest(real[a:], self.neighbours)
        of_real, of_synthetic = scorer(real[:a]), scorer(synthetic[:b])
        threshold = best_threshold(of_real, of_synthetic)
        return Judge(threshold, area_under_curve(of_real, of_synthetic), scorer)

    def _asked(self, text: str) -> Dialogue[float]:
        """What the model in role "discriminator" makes of an input: above 0 for a real one, NaN for no answer.

        For `likelihood` ln p("yes") - ln p("no"), each a whole reply; for `reply` 1 or -1.
        """
        question = (Message("user", IS_REAL(example=text, dataset=self.dataset)),)
        if self.discriminator == "likelihood":
            yes, no = yield from each(("yes", "no"), lambda word: reply_logprobs(DISCRIMINATOR, question, word))
            return float(np.sum(yes, dtype=np.float64) - np.sum(no, dtype=np.float64))
        (reply,) = yield [Complete(DISCRIMINATOR, Prompt(question, 8))]
        words = reply.text.casefold().split()
        first = words[0].strip(".,!*\"'") if words and not lost(reply, whole=False) else ""
        return {"yes": 1.0, "no": -1.0}.get(first, math.nan)

    def _accepted(self, mimics: Mimics, judge: Judge) -> Dialogue[tuple[list[Judged], list[Judged], str]]:
        """All candidates that were judged, those accepted, and why the job ended before it had its rows, or ""."""
        judged, accepted, barren = list[Judged](), list[Judged](), 0
        while len(accepted) < self.rows and barren < self.patience and mimics.left:
            missing = self.rows - len(accepted)
            rate = (len(accepted) + 1) / (len(judged) + 1)
            found = yield from self._scored(judge, (yield from mimics.more(math.ceil(missing / rate))))
            kept = [one for one in found if one.score >= judge.threshold]
            over = [mimics.refused("enough", one.candidate) for one in kept[missing:]]
            yield [
                _handed_out(
                    mimics, *(self._unlike(mimics, one) for one in found if not one.score >= judge.threshold), *over
                )
            ]
            judged, accepted = judged + found, accepted + kept[:missing]
            barren = 0 if kept else barren + mimics.asked
        if len(accepted) == self.rows:
            return judged, accepted, ""
        return judged, accepted, "acceptance_too_low" if barren >= self.patience else "budget_spent"

    def _scored(self, judge: Judge, candidates: Sequence[Candidate]) -> Dialogue[list[Judged]]:
        if not candidates:
            return []
        texts = [one.text for one in candidates]
        vectors: Vectors = yield from _embedded(texts)
        scores: Sequence[float] | Floats
        if judge.scorer is None:
            scores = yield from each(texts, self._asked)
        else:
            scores = judge.scorer(vectors)
        return [Judged(*one) for one in zip(candidates, vectors, map(float, scores), strict=True)]

    def _unlike(self, mimics: Mimics, one: Judged) -> Rejected:
        if math.isnan(one.score):
            return mimics.refused("unreadable_verdict", one.candidate)
        return mimics.refused("unlike", one.candidate, f"score {one.score:.4g}")

    def _facts(
        self, judge: Judge, real: Vectors, judged: Sequence[Judged], accepted: Sequence[Judged]
    ) -> dict[str, Any]:
        """What the whole job says of itself; MMD² is to the held-out real inputs, before and after judging."""
        before, after = (
            np.array([one.vector for one in part]).reshape(-1, real.shape[1]) for part in (judged, accepted)
        )
        bandwidth = median_distance(np.concatenate([real, before]))
        return {
            "discriminator": self.discriminator,
            "auc": judge.auc,
            "threshold": judge.threshold,
            "judged": len(judged),
            "accepted": len(accepted),
            "mmd2_before": squared_mmd(real, before, bandwidth),
            "mmd2_after": squared_mmd(real, after, bandwidth),
        }

    def _answered(self, mimics: Mimics, one: Judged, facts: Mapping[str, Any]) -> Dialogue[bool]:
        """The teacher's answer to an accepted input, as a row."""
        question = one.candidate.example.messages
        (reply,) = yield [Complete(TEACHER, Prompt(question, self.answer_tokens))]
        assert isinstance(reply, Completion)  # what `Complete` is answered by
        if reason := lost(reply):
            yield [Emit((mimics.refused(reason, one.candidate, reply.detail),))]
            return False
        meta = {
            "parents": [seed.sample_id for seed in mimics.shown],
            "template": self.templates,
            "draw": one.candidate.draw,
            "score": one.score,
            "match": dict(facts),
        }
        yield [Emit((Accepted(Example(answered(question, reply.text.strip()), SOURCE, meta)),))]
        return True


def _embedded(texts: Sequence[str]) -> Dialogue[Vectors]:
    """(n, d) float32, of unit length."""
    vectors = yield [Embed(ENCODER, text) for text in texts]
    return np.array(vectors, np.float32)


def _handed_out(mimics: Mimics, *rows: Rejected) -> Emit:
    """What the generator's replies held besides new inputs, and `rows`."""
    emit = Emit((*mimics.rejected, *rows))
    mimics.rejected.clear()
    return emit


def _ended(reason: str, facts: Mapping[str, Any]) -> Emit:
    return Emit((Rejected(reason, f"{ENDS[reason]}; {canonical(dict(facts))}"),))
