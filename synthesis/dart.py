"""DART: rejection sampling that knows which queries are hard (Tong et al. 2024, arXiv 2407.13690).

Vanilla rejection sampling tries every query equally often, so most of what it keeps answers easy queries, and the
hardest ones often go without. Here queries are sampled until each has as many correct replies as it should.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected, each
from models.protocol import Completion, Prompt, Verdict
from models.verify.checked import (
    ALL_REASONS,
    check_verifier,
    checked,
    judge_roles,
    told_of,
    undecided,
    unusable,
    verifier_roles,
)
from models.verify.reference import question_of
from synthesis.allocation import Strategy, draws, shares, target
from synthesis.attempts import LEARNER
from synthesis.protocol import Needs, Seeds
from synthesis.repeats import Repeats
from warehouse.errors import InputError
from warehouse.records import Example, Message, digest

SOURCE = "dart"
ANSWER_CHARS = 200  # longer answers are texts, which never agree
OF_QUERIES = ("uncovered", "label_suspect", "budget_spent", "unanswered")


@dataclass(frozen=True, slots=True)
class Trial:
    """One reply to a query, and the verdict on it.

    `answered` is false where there was no reply, or where the model lost a part of the question. `reply` is the key of
    the reply in the response store, where there is one.
    """

    draw: int
    text: str
    verdict: Verdict
    answered: bool
    reply: str


@dataclass(eq=False, slots=True)
class Query:
    """A seed and what its trials gave: `trials` asked for, of them `answered`, of these `correct`, of these `kept`.

    `target` is None until the pilot has told it; `ended` says why no more is asked: "target", "max_trials", "budget",
    "unanswered", or "" while more may be.
    """

    seed: Example
    key: str
    draw_seed: int
    trials: int = 0
    answered: int = 0
    correct: int = 0
    target: int | None = None
    ended: str = ""
    kept: list[Trial] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)

    @property
    def facts(self) -> dict[str, Any]:
        """What its last rows say about the query."""
        pass_rate = self.correct / self.answered if self.answered else None
        return {
            "trials": self.trials,
            "answered": self.answered,
            "correct": self.correct,
            "kept": len(self.kept),
            "target": self.target,
            "ended": self.ended,
            "pass_rate": pass_rate,
            "difficulty": None if pass_rate is None else 1 - pass_rate,
        }


@dataclass(frozen=True, slots=True)
class Dart:
    """Correct replies to the seeds' questions by the model in role "learner", checked against the seeds' references.

    strategy      "prop2diff": `k` times the fail rate of a query, rounded up, at least 1; "uniform": `k` of each query;
                  "vrt": every correct one of `k` trials
    verifier      what tells right replies: a name of `models.verify.table.VERIFIERS`, or "judge"
    budget        trials in all, pilots included; None for no limit but `max_trials`
    max_trials    trials of one query, pilots included
    pilot         trials that tell the fail rate (`prop2diff`), and the first ones of `uniform`, at most `k` there
    near          correct replies to one query whose word 5-grams overlap by so much (Jaccard) are one
    back_fill     a query without a correct reply gets its own gold reply, flagged `back_filled`
    suspect       of a query without a correct reply, the share of replies that agree on another answer from which its
                  reference is suspect

    Each trial ends as one row: accepted, or rejected by what the verifier said, as `duplicate`, or as `surplus`
    (correct, but the target was reached). A query with nothing to keep ends in one more rejected row that says why.
    """

    strategy: Strategy = "prop2diff"
    k: int = 8
    verifier: str = "math"
    budget: int | None = None
    max_trials: int = 64
    pilot: int = 8
    near: float = 0.9
    back_fill: bool = False
    suspect: float = 0.5
    max_tokens: int = 2048
    temperature: float = 1.0
    top_p: float = 0.95

    reasons: ClassVar[frozenset[str]] = ALL_REASONS | {
        "no_question", "no_reference", "duplicate_seed", "duplicate", "surplus", *OF_QUERIES,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.strategy not in get_args(Strategy):
            raise InputError(f"unknown strategy {self.strategy!r}; known: {', '.join(get_args(Strategy))}")
        counts = {"k": self.k, "max_trials": self.max_trials, "pilot": self.pilot, "budget": self.budget}
        if wrong := {name: count for name, count in counts.items() if count is not None and count < 1}:
            raise InputError(f"these must be at least 1: {wrong}")
        if not (0 < self.near <= 1 and 0 < self.suspect <= 1):
            raise InputError(f"near and suspect must be above 0 and at most 1, not {self.near} and {self.suspect}")
        if self.k > self.max_trials:
            raise InputError(
                f"k is {self.k}, but a query gets at most max_trials = {self.max_trials}; raise max_trials"
            )
        if not self.temperature > 0:
            raise InputError("temperature is 0: every trial of a query would be the same; give one above 0")

    @property
    def needs(self) -> Needs:
        models = (LEARNER, *judge_roles(self.verifier))
        return Needs(models=models, verifiers=verifier_roles(self.verifier), seeds=True)

    @property
    def told(self) -> str:
        return told_of(self.verifier)

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        queries, refused = self._queries(seeds, int(rng.integers(2**31)))
        yield [Emit(tuple(refused))]
        left = self.budget
        while open_queries := [query for query in queries if not query.ended]:
            wants = [self._wanted(query) for query in open_queries]
            given = shares(wants, [query.key for query in open_queries], sum(wants) if left is None else left)
            left = None if left is None else left - sum(given)
            yield from self._round(open_queries, given)
            rows = [row for query in open_queries for row in self._closed(query, left)]
            yield [Emit(tuple(rows))]

    def _queries(self, seeds: Seeds, stream: int) -> tuple[list[Query], list[Rejected]]:
        """The seeds that can be asked and checked, and the others, rejected."""
        queries: dict[str, Query] = {}
        refused = []
        for seed in seeds:
            key = seed.sample_id
            if reason := unusable(self.verifier, seed) or ("duplicate_seed" if key in queries else ""):
                refused.append(Rejected(reason, example=self._row(seed, seed.messages, key, {})))
            else:
                own = int(digest(f"{stream} {key}")[:8], 16) % 2**31  # of the query, wherever it stands
                queries[key] = Query(seed, key, own, repeats=Repeats(self.near))
        return list(queries.values()), refused

    def _wanted(self, query: Query) -> int:
        """How many trials `query` is to get next, within its cap."""
        if self.strategy == "vrt":
            wanted = self.k
        elif not query.trials:
            wanted = self.pilot if self.strategy == "prop2diff" else min(self.pilot, self.k)
        else:
            assert query.target is not None  # the pilot told it
            wanted = draws(query.target - len(query.kept), len(query.kept), query.answered)
        return min(wanted, self.max_trials - query.trials)

    def _round(self, queries: Sequence[Query], given: Sequence[int]) -> Dialogue[None]:
        """Ask for the trials that were given to each query, and hand out those that are right but not kept."""
        asked = [(query, query.trials + i) for query, count in zip(queries, given, strict=True) for i in range(count)]
        trials = yield from each(asked, lambda pair: self._trial(*pair))
        found: dict[Query, list[Trial]] = {query: [] for query in queries}
        for (query, _), trial in zip(asked, trials, strict=True):
            found[query].append(trial)
        yield [Emit(tuple(row for query in queries for row in self._taken(query, found[query])))]

    def _trial(self, query: Query, draw: int) -> Dialogue[Trial]:
        prompt = Prompt(
            question_of(query.seed), self.max_tokens, self.temperature, self.top_p, seed=query.draw_seed, draw=draw
        )
        (reply,) = yield [Complete(LEARNER, prompt)]
        assert isinstance(reply, Completion)  # what `Complete` is answered by
        verdict = yield from checked(self.verifier, reply, query.seed)
        answered = not undecided(verdict) and not reply.truncated
        trial = Trial(draw, reply.text.strip(), verdict, answered, reply.key)
        if not verdict.right:
            yield [Emit((Rejected(verdict.reason, verdict.detail, self._trial_row(query, trial, {})),))]
        return trial

    def _taken(self, query: Query, trials: Sequence[Trial]) -> list[Rejected]:
        """Count `trials`, in the order of their draws; those that are right but not kept."""
        query.trials += len(trials)
        query.answered += sum(trial.answered for trial in trials)
        query.correct += sum(trial.verdict.right for trial in trials)
        if query.target is None and query.answered:
            query.target = target(self.strategy, self.k, query.correct, query.answered)
        if trials and not any(trial.answered for trial in trials):
            query.ended = "unanswered"
        answers = (trial.verdict.answer for trial in trials if trial.answered)
        query.answers.update(answer for answer in answers if 0 < len(answer) <= ANSWER_CHARS)
        return [row for trial in trials if trial.verdict.right and (row := self._kept(query, trial)) is not None]

    def _kept(self, query: Query, trial: Trial) -> Rejected | None:
        """Keep a right trial, or say why not."""
        if query.target is not None and len(query.kept) >= query.target:
            return Rejected("surplus", example=self._trial_row(query, trial, {}))
        if earlier := query.repeats.of(trial.text):
            return Rejected("duplicate", earlier, self._trial_row(query, trial, {}))
        query.kept.append(trial)
        return None

    def _closed(self, query: Query, left: int | None) -> list[Accepted | Rejected]:
        """The last rows of `query` where it has ended: what is kept, or why nothing is."""
        if query.target is not None and len(query.kept) >= query.target:
            query.ended = "target"
        elif not query.ended and query.trials >= (self.k if self.strategy == "vrt" else self.max_trials):
            query.ended = "max_trials"
        elif not query.ended and left == 0:
            query.ended = "budget"
        if not query.ended:
            return []
        if query.kept:
            return [Accepted(self._trial_row(query, trial, query.facts)) for trial in query.kept]
        return self._uncovered(query)

    def _uncovered(self, query: Query) -> list[Accepted | Rejected]:
        agreed, count = next(iter(query.answers.most_common(1)), ("", 0))
        suspect = query.ended == "max_trials" and count > 1 and count >= self.suspect * query.answered
        reason = {"budget": "budget_spent", "unanswered": "unanswered"}.get(query.ended, "uncovered")
        facts = query.facts | {"agreed_answer": agreed, "agreement": count / max(query.answered, 1)}
        row = self._row(query.seed, query.seed.messages, query.key, facts)
        detail = f"{count} of {query.answered} replies agree on {agreed[:80]!r}" if count else ""
        rows: list[Accepted | Rejected] = [Rejected("label_suspect" if suspect else reason, detail, row)]
        gold = query.seed.messages[-1].role == "assistant"
        if self.back_fill and gold and reason == "uncovered" and not suspect:
            rows.append(Accepted(self._row(query.seed, query.seed.messages, query.key, facts | {"back_filled": True})))
        return rows

    def _trial_row(self, query: Query, trial: Trial, facts: dict[str, Any]) -> Example:
        messages = (*question_of(query.seed), Message("assistant", trial.text))
        known = {"draw": trial.draw, "answer": trial.verdict.answer[:ANSWER_CHARS], "reply": trial.reply}
        return self._row(query.seed, messages, query.key, known | facts)

    def _row(self, seed: Example, messages: tuple[Message, ...], key: str, facts: dict[str, Any]) -> Example:
        told = [self.told] if self.told else []
        meta = {"parents": [key], "template": told, "query_id": key, "back_filled": False, "strategy": self.strategy}
        return Example(messages, SOURCE, meta | facts)
