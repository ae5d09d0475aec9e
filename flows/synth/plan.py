"""`winnow synth plan`: what a synthesis will ask and cost, from what it asks for a few of its seeds."""

import tempfile
from collections import Counter, defaultdict
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

COSTS = ("requests", "prompt tokens", "completion tokens", "USD")
WHOLE_JOB = ("budget", "tokens", "instructions", "rows")  # parameters that limit a whole job, not a seed
NOT_YET = {"forecasts": {}, "notes": ["its seeds are made by a model too: make them first, then plan this"]}
PILOT = 20  # seeds that are really asked about; their replies are kept and not asked for again


def plan(path: Path, overrides: Sequence[str], home: Path) -> Plan:
    """Ask for `PILOT` seeds of every synthesis of the recipe in `path`, and say what all of them will come to."""
    recipe = recipes.load(path, overrides)
    check(recipe)
    settings = Settings()
    with ConsoleListener() as listener, closing(RayWorkers(settings.ray_address, settings.workers)) as workers:
        run = Run.begin(home, listener, recipe=recipe.name, command="synth plan", recipe_text=recipes.dump(recipe))
        with logged(run.log):
            kitchen = Kitchen.of(recipe)
            planned = [_planned(run, recipe, each, kitchen, workers) for each in recipe.pool if each.models]
            run.log.end("done")
    if not planned:
        raise InputError("no synthesis of this recipe asks a model: `winnow synth run` costs nothing but time")
    return Plan(planned)


def _planned(run: Run, recipe: Recipe, source: Source, kitchen: Kitchen, workers: Workers) -> dict[str, Any]:
    asked = synthesis_of(source, recipe.endpoints, Path(recipe.data))
    told = {"synthesizer": asked.name, "models": asked.named, "notes": _notes(source)}
    if any(each.models for each in source.seeds):
        return (
            told | dict.fromkeys(("seeds", "answered", "pilot", "cut", "accepted", "refused", "left", "paid")) | NOT_YET
        )
    name = f"{recipe.name} pool"
    seeds = sources.prepare(run, f"seeds of {asked.name}", source.seeds, Path(recipe.data), kitchen, workers)
    making = Making(run, f"plan {name}", asked, seeds, kitchen, workers)
    examples, _ = seeds_of(seeds)
    answered = _answered(making, examples)
    open_ = [example for example in examples if example.sample_id not in answered]
    drawn = np.random.default_rng(recipe.seed).permutation(len(open_))[:PILOT]
    found = _pilot(making, [open_[at] for at in np.sort(drawn)])
    rng = np.random.default_rng(recipe.seed)
    return told | {
        "seeds": len(examples),
        "answered": len(answered),
        "pilot": found.seeds,
        "cut": len(drawn) - found.seeds,
        "accepted": found.accepted,
        "refused": found.refused,
        "left": len(open_) - found.seeds,
        "paid": found.paid,
        "forecasts": _forecasts(found, len(open_) - found.seeds, rng) if found.seeds else {},
    }


def _forecasts(found: "Pilot", seeds: int, rng: np.random.Generator) -> dict[str, Any]:
    divided = {what: _forecast(values, seeds, rng) for what, values in found.values.items()}
    return divided | {what: _scaled(total, found.seeds, seeds) for what, total in found.totals.items()}


def _notes(source: Source) -> list[str]:
    """What a forecast from seeds cannot know."""
    limits = {name: source.params[name] for name in WHOLE_JOB if source.params.get(name) is not None}
    return [f"the job ends at its own limit, {name} {value:,}, whatever is forecast" for name, value in limits.items()]


def _scaled(total: float, pilot: int, seeds: int) -> dict[str, Any]:
    """A sum over the whole pilot, which nobody can divide among its seeds, for all `seeds`: without an interval."""
    return {"value": total / pilot * seeds if pilot else 0.0, "low": None, "high": None, "n": pilot}


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
        answered, lacking = set[str](), set[str]()
        for row in emitted.in_order():
            named = parents_of(row)
            if row["reason"] in UNANSWERED and not named:
                return set()  # the job is one dialogue about all seeds
            if row["reason"] in UNANSWERED:
                lacking.update(named)
            elif row["replies"]:  # a row that no reply is behind says nothing: its job may not have come so far
                answered.update(named)
    return answered - lacking


@dataclass(frozen=True, slots=True)
class Pilot:
    """What some `seeds` led to: rows, and for each thing measured one value (n,) per seed; `paid` is what they cost.

    What cannot be told of single seeds, because the job decides on all of them at once, is in `totals`.
    """

    seeds: int
    accepted: int
    refused: int
    values: Mapping[str, Floats]
    totals: Mapping[str, float]
    paid: Mapping[str, float]


def _pilot(making: Making, examples: Sequence[Example]) -> Pilot:
    """The pilot's sums, without the seeds that `spend` kept from being asked about."""
    with tempfile.TemporaryFile() as spool, making.open() as till:
        emitted = rows.Emitted(spool)
        making.converse(examples, emitted, till)
        replies: dict[str, set[str]] = defaultdict(set)
        accepted, cut = Counter[str](), set[str]()
        for row in emitted.in_order():
            for parent in parents_of(row)[:1]:
                replies[parent].update(row["replies"])
                accepted[parent] += not row["reason"]
                if row["reason"] == "over_budget":
                    cut.add(parent)
        asked = [example.sample_id for example in examples if example.sample_id not in cut]
        table = np.array([till.cost(replies[each]) for each in asked], np.float64).reshape(-1, len(COSTS))
        whole = till.cost(emitted.heard)
        known = set().union(*replies.values()) >= emitted.heard
    costs = [name for name in COSTS if name != "USD" or any(spec.prices for spec in making.asked.endpoints)]
    columns = {name: table[:, COSTS.index(name)] for name in costs} if known else {}
    paid = {name: float(whole[COSTS.index(name)]) for name in costs}
    kept = np.array([accepted[each] for each in asked], np.float64)
    counts = dict(emitted.counts)
    return Pilot(
        len(asked),
        counts.pop("", 0),
        sum(counts.values()),
        columns | {"accepted rows": kept},
        {} if known else paid,
        paid,
    )


def parents_of(row: Mapping[str, Any]) -> list[str]:
    parents: list[str] = row["meta"].get("parents", [])
    return parents
