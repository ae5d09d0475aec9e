"""What made rows are worth to the model that they were made by: four arms of equal length, paired by seed and item."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.synthesis_here import Home, Tuned, asked, items_of, learner, markdown, material, within
from benchmarks.synthesis_own_words import dart, s3ft
from eval.compare import average, compare

CONTROLS = ("base", "gold")
METRIC = "numeric_match"


def arms(home: Home, seed: int) -> dict[str, Tuned]:
    """winnow-tiny tuned on the pool of `seed`, and on it and what was made of the questions; `gold` has their gold
    replies."""
    pool, questions = material(seed)
    files = {"gold": home.file(f"asked-{seed}", questions)}
    made: dict[str, Mapping[str, Any]] = {
        "dart": asked(home, seed, "dart", dart("prop2diff")),
        "s3ft": asked(home, seed, "s3ft", s3ft()),
    }
    base = home.file(f"pool-{seed}", pool)
    found = {"base": learner(home, seed)}
    found["gold"] = home.tuned(f"gold-{seed}", [base, files["gold"]], len(pool) + len(questions), seed, draws=seed)
    for name, source in made.items():
        rows = home.made(home.recipe(f"{name}-{seed}", [source], seed=seed)).kept
        found[name] = home.tuned(f"with-{name}-{seed}", [base, source], len(pool) + rows, seed, draws=seed)
    return found


def gains(home: Home, seeds: Sequence[int]) -> str:
    """A line per arm: what it was tuned on, its accuracy, and what it gained over the pool alone and over gold."""
    tuned = {seed: arms(home, seed) for seed in seeds}
    names = list(tuned[seeds[0]])
    lines = []
    for name in names:
        mine = {seed: found[name] for seed, found in tuned.items()}
        value = average(items_of(mine), METRIC, np.random.default_rng(0))
        rows, tokens = (_span([getattr(one, what) for one in mine.values()]) for what in ("rows", "tokens"))
        steps = _span([one.steps for one in mine.values()])
        over = [_over(tuned, name, control) for control in CONTROLS]
        lines.append([f"`{name}`", rows, steps, tokens, within(value), *over])
    header = ["arm", "different rows", "steps", "tokens read", "accuracy", *(f"over `{name}`" for name in CONTROLS)]
    return markdown(header, lines)


def _over(tuned: Mapping[int, Mapping[str, Tuned]], name: str, control: str) -> str:
    if name == control:
        return "-"
    mine, theirs = ({seed: found[arm] for seed, found in tuned.items()} for arm in (name, control))
    found = compare(items_of(mine), items_of(theirs), METRIC, np.random.default_rng(0))
    by_seed = ", ".join(f"{one:+.2f}" for one in found.by_seed)
    return f"{within(found.difference, 3)} ({by_seed}): {found.verdict}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
