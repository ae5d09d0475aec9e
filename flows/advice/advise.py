"""Advice: which mixture of sources to train on, from pilot runs on mixtures of them or from distances alone."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from flows import race as racing
from flows.advice.advised import Pilot, told, told_file
from flows.advice.advising import Advising, asked_of, pilots_of, rehearsed, with_runs
from flows.advice.outcome import AdviceOutcome
from flows.advice.pilots import Stock
from flows.choose import check_clean
from flows.engine import Engine
from flows.race import Race
from flows.recipes import Advise, Recipe
from flows.report import write_report
from flows.report.write import NAME
from flows.run import Listener, begun
from flows.tune import trainer
from flows.workers import Workers
from selection.advisors import NEEDS, Needs, build
from warehouse.errors import InputError


def check(recipe: Recipe) -> None:
    """Raise `InputError` for all that can be known to be wrong before work starts."""
    asked = asked_of(recipe)
    build(asked.advisor, asked.params)
    racing.check(recipe)
    needs = NEEDS[asked.advisor]
    if needs.distance and not recipe.target:
        raise InputError(f"advisor {asked.advisor!r} measures distances to a target set: give `target`")
    if needs.pilots:
        _check_pilots(recipe, asked, needs)


def _check_pilots(recipe: Recipe, asked: Advise, needs: Needs) -> None:
    sizes = pilots_of(asked).sizes
    if recipe.train is None:
        raise InputError(f"advisor {asked.advisor!r} learns from pilot runs: give `train`, `test` and `tasks`")
    if recipe.train.then or recipe.train.merge:
        raise InputError(
            "pilot runs have one stage, so advice would be for another training than the recipe's: leave out "
            "`train.then` and `train.merge` (`train.then=[] train.merge=null` on the command line)"
        )
    if asked.budget is None:
        raise InputError(f"advisor {asked.advisor!r} forecasts for a number of rows: give `advise.budget`")
    if len(sizes) < needs.pilots:
        raise InputError(f"advisor {asked.advisor!r} needs pilots of {needs.pilots} sizes or more, found {sizes}")
    if needs.one_pass and (epochs := trainer(recipe.train).epochs) != 1:
        raise InputError(
            f"advisor {asked.advisor!r} counts how often a row is seen, but the trainer makes {epochs:g} passes: "
            "give `train.params.epochs: 1`; pilots larger than a source repeat it"
        )


def advise(
    recipe: Recipe,
    home: Path,
    command: str,
    *,
    engine: Engine,
    workers: Workers,
    listener: Listener,
    ui: str | None = None,
) -> AdviceOutcome:
    """Answer the part `advise` of `recipe` in `home`. An interrupted run keeps its finished pilots and goes on."""
    with begun(recipe, home, command, listener, NAME) as run:
        outcome = _stages(Race.of(recipe, run, engine, workers), ui)
    engine.call("report", partial(write_report, run.store.home, run.log.run))
    return outcome


def _stages(race: Race, ui: str | None) -> AdviceOutcome:
    asked = asked_of(race.recipe)
    advisor = build(asked.advisor, asked.params)
    question, exams = race.question()
    race = race.begun()
    advising = Advising(race, asked, question, Stock.of(question, asked.sources), exams)
    evidence, pilots = advising.evidence(), list[Pilot]()
    if NEEDS[asked.advisor].pilots:
        blends = advising.blends(advisor)
        evidence = with_runs(evidence, blends)
        if not rehearsed(advisor, evidence).refusals:
            pilots = advising.pilots(blends)
            evidence = replace(evidence, values=np.array([each.measured()["value"] for each in pilots]))
    advice = race.engine.call(f"advise {asked.advisor}", partial(advising.advice, advisor, evidence, pilots))
    files = race.engine.call("mix advised", partial(advising.files, advice))
    check_clean(files, question.pool, exams.held_out)
    return AdviceOutcome(
        run=race.run.log.run,
        home=str(race.run.store.home),
        report=str(race.run.log.folder / NAME),
        ui=ui,
        key=advice.key,
        advisor=asked.advisor,
        budget=asked.budget,
        advice=told(advice),
        stages=race.run.log.stages(),
        files=[told_file(each) for each in files],
    )
