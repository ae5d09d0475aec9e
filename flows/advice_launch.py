"""From a recipe to advice: check it, find or start a Prefect server, run the flow, hand back the outcome."""

from collections.abc import Sequence
from pathlib import Path

from flows import leftovers, recipes, server
from flows.advice_outcome import AdviceOutcome
from flows.advise import check
from flows.console import ConsoleListener
from flows.settings import Settings
from warehouse.store import Store


def launch_advice(path: Path, overrides: Sequence[str], home: Path) -> AdviceOutcome:
    """Answer the part `advise` of the recipe in `path`. What can be known to be wrong is said before work begins."""
    recipe = recipes.load(path, overrides)
    check(recipe)
    Store.open(home)
    say = ConsoleListener().say
    ui = server.ensure(home, Settings().prefect_port, say)
    say(f"Prefect UI: {ui}")
    leftovers.settle(home)
    from flows.advice_flow import advice_flow

    return AdviceOutcome(**advice_flow(recipe.model_dump(mode="json"), str(home)))
