"""DART and S3FT by a learner that is right about some questions and wrong about others."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.synthesis_here import ASKED, MAX_TOKENS, SKILLS, Home, asked, markdown, material, within
from eval.calibration import wilson
from eval.statistics import paired_bootstrap
from flows.synth.outcome import SynthOutcome
from synthesis.allocation import Strategy

TRIALS = 12  # a question, in the mean: the budget of all strategies
REFERENCE = 20  # trials a question that tell its fail rate, independent of those that are compared
K = 4
STRATEGIES: Sequence[Strategy] = ("vrt", "uniform", "prop2diff")
REFUSED = ("wrong", "duplicate", "surplus", "uncovered", "label_suspect", "budget_spent")


def dart(strategy: Strategy, trials: int = TRIALS) -> dict[str, Any]:
    """Parameters of one strategy; every one may ask `trials` times the number of questions."""
    k = trials if strategy == "vrt" else K
    return {
        "strategy": strategy, "k": k, "verifier": "numeric", "budget": trials * ASKED, "max_trials": 4 * TRIALS,
        "pilot": 4, "max_tokens": MAX_TOKENS,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spent:
    """What a strategy asked and kept of one question; `target` None where the strategy has none."""

    trials: int
    kept: int
    target: int | None
    ended: str


def spent(rows: Sequence[Mapping[str, Any]]) -> dict[str, Spent]:
    """By the id of the question."""
    return {
        row["query_id"]: Spent(row["trials"], row["kept"], row["target"], row["ended"])
        for row in rows
        if row.get("trials") is not None
    }


def fail_rates(home: Home, seed: int) -> dict[str, float]:
    """The share of wrong replies of each question, from trials that no strategy sees (another seed of the draws)."""
    params = dart("vrt", REFERENCE)
    outcome = home.made(home.recipe("reference", [asked(home, seed, "dart", params)], seed=1000 + seed))
    return {row["query_id"]: row["difficulty"] for row in home.generated(outcome) if row.get("trials") is not None}


def by_difficulty(home: Home, seed: int = 0) -> str:
    """A line per decile of the fail rate: rows, trials and questions covered, by strategy."""
    difficulty = fail_rates(home, seed)
    outcomes: dict[Strategy, SynthOutcome] = {}
    for strategy in STRATEGIES:
        source = asked(home, seed, "dart", dart(strategy))
        outcomes[strategy] = home.made(home.recipe(f"dart-{strategy}", [source], seed=seed))
    found = {strategy: spent(list(home.generated(outcome))) for strategy, outcome in outcomes.items()}
    deciles: dict[int, list[str]] = defaultdict(list)
    for query, rate in difficulty.items():
        deciles[min(math.floor(rate * 10 + 1e-9), 9)].append(query)
    header = ["fail rate", "questions", *(f"{s}: rows (target), trials, covered" for s in STRATEGIES)]
    groups = [(f"{d / 10:.1f} to {(d + 1) / 10:.1f}", deciles[d]) for d in sorted(deciles)]
    groups.append(("all", list(difficulty)))
    lines = [[name, len(ids), *(_told([found[s][i] for i in ids]) for s in STRATEGIES)] for name, ids in groups]
    over = [f"`{s}` covers {_more(found[s], found[STRATEGIES[0]])} more than `{STRATEGIES[0]}`" for s in STRATEGIES[1:]]
    return f"{markdown(header, lines)}\n\n{_bill(outcomes, found)}\n\nOf the questions, {', '.join(over)}."


def _more(found: Mapping[str, Spent], control: Mapping[str, Spent]) -> str:
    """The difference of the shares of questions with a row, paired by question."""
    mine, theirs = (np.array([[one[query].kept > 0 for query in control]], np.float64) for one in (found, control))
    return within(paired_bootstrap(mine, theirs, np.random.default_rng(0)).difference)


def _bill(outcomes: Mapping[Strategy, SynthOutcome], found: Mapping[Strategy, Mapping[str, Spent]]) -> str:
    """A line per strategy: what was asked for, what became of the trials, and of the questions without a row."""
    lines = []
    for strategy, outcome in outcomes.items():
        [made] = outcome.syntheses
        refused: Mapping[str, int] = made["refused"]
        met = sum(one.ended == "target" for one in found[strategy].values())
        costs = [f"{made[name]:,}" for name in ("requests", "prompt_tokens", "completion_tokens", "accepted")]
        lines.append([f"`{strategy}`", *costs, *(refused.get(name, 0) for name in REFUSED), met])
    header = ["strategy", "trials", "prompt tokens", "reply tokens", "rows", *(f"`{name}`" for name in REFUSED)]
    return markdown([*header, "targets met"], lines)


def _told(those: Sequence[Spent]) -> str:
    kept, trials = sum(one.kept for one in those), sum(one.trials for one in those)
    targets = [one.target for one in those if one.target is not None]
    target = f" ({sum(targets)})" if targets else ""
    covered = wilson(sum(one.kept > 0 for one in those), len(those))
    return f"{kept}{target}, {trials}, {within(covered)}"


def s3ft() -> dict[str, Any]:
    return {"verifier": "numeric", "max_tokens": MAX_TOKENS}


def whose_words(home: Home, seed: int = 0) -> str:
    """A line per skill: the share of rows in the learner's own words, in its paraphrase, and with the gold reply."""
    outcome = home.made(home.recipe(f"s3ft-{seed}", [asked(home, seed, "s3ft", s3ft())], seed=seed))
    skill_of = {row.sample_id: row.meta["skill"] for row in material(seed)[1]}
    rows = [row for row in home.generated(outcome) if not row["reason"]]
    counts = Counter((skill_of[row["parents"][0]], row["source"]) for row in rows)
    lines = [_line(skill, [skill], counts) for skill in SKILLS] + [_line("all", SKILLS, counts)]
    return markdown(["skill", "rows", "self", "paraphrase", "gold"], lines)


def _line(name: str, skills: Sequence[str], counts: Mapping[tuple[str, str], int]) -> list[object]:
    of = {source: sum(counts.get((skill, source), 0) for skill in skills) for source in ("self", "paraphrase", "gold")}
    n = sum(of.values())
    return [name, n, *(within(wilson(count, n)) for count in of.values())]
