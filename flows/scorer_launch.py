"""From a recipe to scorers: check it, find or start a Prefect server, run the flow, hand back the outcome."""

from collections.abc import Sequence
from pathlib import Path

from flows import leftovers, recipes, server
from flows.console import ConsoleListener
from flows.scorer_outcome import ScorerOutcome
from flows.scorers import check
from flows.settings import Settings
from warehouse.store import Store


def launch_scorers(path: Path, overrides: Sequence[str], home: Path) -> ScorerOutcome:
    """Make what the part `scorers` of the recipe in `path` asks for. What can be known to be wrong is said before."""
    recipe = recipes.load(path, overrides)
    check(recipe)
    Store.open(home)
    say = ConsoleListener().say
    ui = server.ensure(home, Settings().prefect_port, say)
    say(f"Prefect UI: {ui}")
    leftovers.settle(home)
    from flows.scorer_flow import scorer_flow

    return ScorerOutcome(**scorer_flow(recipe.model_dump(mode="json"), str(home)))
