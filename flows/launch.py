"""From a recipe to a finished run: find or start a Prefect server, run the flow, hand back the outcome."""

from collections.abc import Sequence
from pathlib import Path

from flows import leftovers, recipes, server
from flows.console import ConsoleListener
from flows.jobs import JOBS
from flows.outcome import Outcome
from flows.settings import Settings
from warehouse.store import Store


def launch(path: Path, overrides: Sequence[str], home: Path, command: str) -> Outcome:
    """Do the job `command` for the recipe in `path`. All that can be known to be wrong is said before work begins."""
    recipe = recipes.load(path, overrides)
    JOBS[command].check(recipe)
    Store.open(home)
    say = ConsoleListener().say
    ui = server.ensure(home, Settings().prefect_port, say)
    say(f"Prefect UI: {ui}")
    leftovers.settle(home)
    from flows.pipeline import pipeline

    return JOBS[command].outcome(**pipeline(recipe.model_dump(mode="json"), str(home), command))
