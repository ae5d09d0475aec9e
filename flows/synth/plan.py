"""`winnow synth plan`: what a synthesis will ask and cost, from what it asks for a few of its seeds."""

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.statistics import bootstrap
from flows import recipes, sources
from flows.console import ConsoleListener
from flows.recipes import Recipe, Source
from flows.run import Run, logged
from flows.settings import Settings
from flows.synth import rows
from flows.synth.asked import synthesis_of
from flows.synth.job import check
from flows.synth.outcome import Plan
from flows.synth.stage import Kitchen, Making, seeds_of
from flows.voices import NotAsked
from flows.workers import RayWorkers, Workers
from models.protocol import UNANSWERED
from warehouse.errors import InputError
from warehouse.records import Example, Floats

PILOT = 20  # seeds that are really asked about; their replies are kept and not asked for again


def plan(path: Path, overrides: Sequence[str], home: Path) -> Plan:
    """Ask for `PILOT` seeds of every synthesis of the recipe in `path`, and say what all of them will come to."""
    recipe = recipes.load(path, overrides)
    check(recipe)
    settings = Settings()
    with ConsoleListener() as listener, closing(RayWorkers(settings.ray_address, settings.workers)) as workers:
        run = Run.begin(home, listener, recipe=recipe.name, command="synth plan", recipe_text=recipes.dump(recipe))
        with logged(run.log):
            planned = [_planned(run, recipe, source, workers) for source in recipe.pool if source.models]
            run.log.end("done")
    if not planned:
        raise InputError("no synthesis of this recipe asks a model: `winnow synth run` costs nothing but time")
    return Plan(planned)


def _planned(run: Run, recipe: Recipe, source: Source, workers: Workers) -> dict[str, Any]:
    kitchen = Kitchen.of(recipe)
    asked = synthesis_of(source, recipe.endpoints, Path(recipe.data))
    name = f"{recipe.name} pool"
    seeds = sources.prepare(run, f"{name} seeds", source.seeds, Path(recipe.data), kitchen, workers)
    making = Making(run, f"plan {name}", asked, seeds, kitchen, workers)
    examples, _ = seeds_of(seeds)
    answered = _answered(making, examples)
    open_ = [example for example in examples if example.sample_id not in answered]
    drawn = np.random.default_rng(recipe.seed).permutation(len(open_))[:PILOT]
    pilot = [open_[at] for at in np.sort(drawn)]
    found = _pilot(making, pilot)
    rng = np.random.default_rng(recipe.seed)
    return {
        "synthesizer": asked.name,
        "models": asked.named,
        "seeds": len(examples),
        "answered": len(answered),
        "pilot": len(pilot),
        "accepted": found.accepted,
        "refused": found.refused,
        "forecasts": {what: _forecast(values, len(open_), rng) for what, values in found.values.items()},
    }


def _forecast(values: Floats, seeds: int, rng: np.random.Generator) -> dict[str, Any]:
    """What `values` (n,) of the pilot's seeds come to for all `seeds`, with a 95 % interval over seeds."""
    if not len(values):
        return {"value": 0.0, "low": 0.0, "high": 0.0, "n": 0}
    mean = bootstrap(values, rng)
    return {"value": mean.value * seeds, "low": mean.low * seeds, "high": mean.high * seeds, "n": mean.n}


def _answered(making: Making, examples: Sequence[Example]) -> set[str]:
    """The seeds whose whole dialogue is among the kept replies: they cost nothing."""
    with tempfile.TemporaryFile() as spool, making.open("only") as till:
        emitted = rows.Emitted(spool)
        try:
            making.converse(examples, emitted, till)
        except NotAsked:
            return set()
        lacking = {parent for row in emitted.in_order() if row["reason"] in UNANSWERED for parent in parents_of(row)}
    return {example.sample_id for example in examples} - lacking


@dataclass(frozen=True, slots=True)
class Pilot:
    """What some seeds led to: rows, and for each thing measured one value (n,) per seed."""

    accepted: int
    refused: int
    values: Mapping[str, Floats]


def _pilot(making: Making, examples: Sequence[Example]) -> Pilot:
    with tempfile.TemporaryFile() as spool, making.open() as till:
        emitted = rows.Emitted(spool)
        making.converse(examples, emitted, till)
        replies: dict[str, set[str]] = defaultdict(set)
        kept: dict[str, int] = defaultdict(int)
        for row in emitted.in_order():
            for parent in parents_of(row)[:1]:
                replies[parent].update(row["replies"])
                kept[parent] += not row["reason"]
        table = np.array([till.cost(replies[each.sample_id]) for each in examples], np.float64).reshape(-1, 4)
    accepted = np.array([kept[each.sample_id] for each in examples], np.float64)
    columns = dict(zip(("requests", "prompt tokens", "completion tokens", "USD"), table.T, strict=True))
    if not any(spec.prices for spec in making.asked.endpoints):
        columns.pop("USD")
    counts = dict(emitted.counts)
    return Pilot(counts.pop("", 0), sum(counts.values()), columns | {"accepted rows": accepted})


def parents_of(row: Mapping[str, Any]) -> list[str]:
    parents: list[str] = row["meta"].get("parents", [])
    return parents
