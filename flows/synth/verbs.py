"""The verbs `winnow synth run` and `winnow synth plan`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.verb import AsJson, Home, Overrides, home_of, print_result, run_job

synth = typer.Typer(help="Make new rows: from seeds, models and endpoints.", no_args_is_help=True)


@synth.command("run")
def synthrun_job(
    recipe: Annotated[Path, typer.Argument(help="A recipe whose pool names synthesizers, YAML.")],
    overrides: Overrides = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make the rows of a recipe's synthesizers, clean them, and say what they cost; kept replies are used again."""
    run_job(recipe, overrides, home, as_json, "synth")


@synth.command("plan")
def synth_plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe whose pool names synthesizers, YAML.")],
    overrides: Overrides = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Ask for 20 seeds and say what all of them will ask and cost; their replies are kept."""
    from flows.synth.plan import plan

    print_result(plan(recipe, overrides or [], home_of(home)), as_json)
