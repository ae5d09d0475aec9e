"""`winnow synth run`: the rows that a recipe's synthesizers make, imported, cleaned, and ready to be trained on."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flows.choose import Choice, select
from flows.engine import Engine
from flows.race import Race
from flows.race import check as check_common
from flows.recipes import MethodEntry, Recipe
from flows.report import write_report
from flows.report.write import NAME
from flows.run import Listener, Run, begun
from flows.synth.outcome import SynthOutcome
from flows.workers import Workers
from selection.limits import Limits
from selection.random_rows import Random
from warehouse.errors import InputError
from warehouse.store import Artifact, load_artifact


def asked_of(recipe: Recipe) -> Recipe:
    """The recipe without what comes after its pool. Raises `InputError` where nothing in it is synthesized."""
    if not any(source.synthesize for source in recipe.pool):
        raise InputError("nothing in `pool` is synthesized: give a source with `synthesize: NAME`")
    without: dict[str, Any] = {
        "methods": [MethodEntry(name="random")], "budgets": [1], "budget_unit": "rows", "caps": {}, "floors": {},
        "train": None, "tasks": [],
    }  # fmt: skip
    return recipe.model_copy(update=without)


def check(recipe: Recipe) -> None:
    """Raise `InputError` for all that can be known to be wrong before work starts."""
    check_common(asked_of(recipe))


def synth(
    recipe: Recipe,
    home: Path,
    command: str,
    *,
    engine: Engine,
    workers: Workers,
    listener: Listener,
    ui: str | None = None,
) -> SynthOutcome:
    """Make the pool of `recipe` in `home`. A killed run keeps every reply; the same recipe goes on from there."""
    with begun(recipe, home, command, listener, NAME) as run:
        outcome = _stages(Race.of(asked_of(recipe), run, engine, workers), ui)
    engine.call("report", partial(write_report, run.store.home, run.log.run))
    return outcome


def _stages(race: Race, ui: str | None) -> SynthOutcome:
    question, _ = race.question()
    kept = question.candidates.manifest["facts"]["rows_out"]
    stages = race.run.log.stages()
    if not kept:
        raise InputError(f"no row is left: {_dropped(stages)}; the views `rejects` and `drops` say why, row by row")
    every = Choice("random", {}, Random(), Limits(kept), race.recipe.seed)
    chosen = race.engine.call("select every row", partial(select, race.run, question, every))
    stages = race.run.log.stages()
    return SynthOutcome(
        run=race.run.log.run,
        home=str(race.run.store.home),
        ui=ui,
        report=str(race.run.log.folder / NAME),
        pool=question.pool.key,
        selection=chosen.key,
        kept=kept,
        of=question.pool.manifest["facts"]["rows_out"],
        dropped=_cleaned(stages),
        syntheses=[told(_artifact(race.run, stage)) for stage in stages if stage["stage"] == "synthesize"],
        stages=stages,
    )


def _artifact(run: Run, stage: Mapping[str, Any]) -> Artifact:
    found = load_artifact(run.store.folder(stage["stage"], stage["key"]))
    assert found is not None  # the run has just made or found it
    return found


def told(made: Artifact) -> dict[str, Any]:
    """What a synthesis made and what it cost, as plain JSON."""
    facts = made.manifest["facts"]
    asked = ("requests", "prompt_tokens", "completion_tokens", "cost_usd", "unanswered", "models")
    return {
        "synthesizer": made.manifest["params"]["synthesizer"],
        "key": made.key,
        "accepted": facts["rows_out"],
        "refused": dict(facts["dropped"]),
        **{name: facts[name] for name in asked},
    }


def _cleaned(stages: list[dict[str, Any]]) -> dict[str, int]:
    """What cleaning dropped, by reason."""
    counts: dict[str, int] = {}
    for stage in stages:
        if stage["stage"] in ("clean", "overlap"):
            for reason, n in json.loads(stage["dropped"]).items():
                counts[reason] = counts.get(reason, 0) + n
    return counts


def _dropped(stages: list[dict[str, Any]]) -> str:
    refused: dict[str, int] = {}
    for stage in stages:
        if stage["stage"] == "synthesize":
            refused |= {f"refused as {name}": n for name, n in json.loads(stage["dropped"]).items()}
    return ", ".join(f"{n:,} {name}" for name, n in (refused | _cleaned(stages)).items()) or "nothing was made"
