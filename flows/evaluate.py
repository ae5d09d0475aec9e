"""`winnow evaluate`: models as they are on the tasks of a recipe, each compared with the first; nothing is tuned."""

from functools import partial
from pathlib import Path

from flows import assess
from flows.assess import Examiner, voice_of_weights
from flows.compare import Arm, compare, rows_of
from flows.engine import Engine
from flows.exams import Exams, check_sets, sets_of
from flows.outcome import RaceOutcome
from flows.race import Race
from flows.recipes import Examined, Recipe
from flows.report import write_report
from flows.report.write import NAME
from flows.run import Listener, begun
from flows.tune import WEIGHTS
from flows.voices import Local
from flows.workers import Workers
from warehouse.errors import InputError

CHECKPOINT = "checkpoint:"
Known = tuple[str, Local]
"""The key of a checkpoint ("" for a model that is none), and the model."""


def check(recipe: Recipe) -> None:
    """Raise `InputError` for all that can be known to be wrong before work starts; checkpoints are looked up later."""
    if not recipe.models or not recipe.tasks:
        raise InputError("nothing is evaluated: give `models`, a list of paths or hub names, and `tasks`")
    titles = [each.title for each in recipe.models]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise InputError(f"several models are called {', '.join(twice)}: give each a `label`")
    check_sets(recipe)
    assess.check(recipe)
    for each in recipe.models:
        if not each.name.startswith(CHECKPOINT):
            _local(each).check()


def evaluate(
    recipe: Recipe,
    home: Path,
    command: str,
    *,
    engine: Engine,
    workers: Workers,
    listener: Listener,
    ui: str | None = None,
) -> RaceOutcome:
    """Examine the models of `recipe` in `home`. An interrupted run keeps its finished evaluations and all replies."""
    with begun(recipe, home, command, listener, NAME) as run:
        outcome = _stages(Race.of(recipe, run, engine, workers), ui)
    engine.call("report", partial(write_report, run.store.home, run.log.run))
    return outcome


def _stages(race: Race, ui: str | None) -> RaceOutcome:
    recipe, run = race.recipe, race.run
    found = {each.title: known(each, run.store.home) for each in recipe.models}
    exams = Exams(race.prepared(sets_of(recipe)))
    for _, voice in found.values():
        race.examiner(exams).check(voice)
    steps = [(title, partial(_arm, race.examiner(exams), title, each)) for title, each in found.items()]
    arms = race.engine.map(steps)
    first = recipe.models[0].title
    compared = race.engine.call("compare", partial(compare, run, arms, first, {}, recipe.seed))
    return RaceOutcome(
        run=run.log.run,
        home=str(run.store.home),
        report=str(run.log.folder / NAME),
        ui=ui,
        stages=run.log.stages(),
        selections=[],
        results=rows_of(compared),
        control=first,
    )


def _arm(examiner: Examiner, title: str, known: Known) -> Arm:
    key, voice = known
    return Arm(title, 0, 0, None, None, tuple(examiner.assess(f"assess {title}", voice, key)))


def known(each: Examined, home: Path) -> Known:
    """The model that the recipe names. Raises `InputError` for a checkpoint that is not in `home`, or not one alone."""
    if not each.name.startswith(CHECKPOINT):
        return "", _local(each)
    begins = each.name.removeprefix(CHECKPOINT)
    keys = sorted(path.parent.name for path in home.glob(f"artifacts/*/{begins}*/checkpoint.parquet"))
    if len(keys) != 1:
        raise InputError(
            f'{len(keys)} checkpoints have keys that begin with {begins!r}; `winnow sql "SELECT checkpoint, trainer, '
            'seed FROM checkpoints"` lists them'
        )
    [weights] = home.glob(f"artifacts/*/{keys[0]}/{WEIGHTS}")
    given = each.model_dump(exclude={"name", "label", "revision"})
    return keys[0], voice_of_weights(weights, **given)


def _local(each: Examined) -> Local:
    return Local(**each.model_dump(exclude={"label"}))
