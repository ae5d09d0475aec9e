"""What the verbs of the command line share: options, the home, and how a result is printed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from warehouse.errors import InputError

Home = Annotated[
    Path | None, typer.Option("--home", help="Where everything is kept; default WINNOW_HOME or ./winnow-home.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, for instance budgets=[500].")]


def run_job(recipe: Path, overrides: list[str] | None, home: Path | None, as_json: bool, command: str) -> None:
    from flows.launch import launch

    print_result(launch(recipe, overrides or [], home_of(home), command), as_json)


def print_result(result: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(result.as_json())
    else:
        typer.echo(result.as_text())


def home_of(home: Path | None) -> Path:
    """The home, made absolute: a schedule starts elsewhere."""
    from flows.settings import Settings

    return (home or Settings().home).expanduser().absolute()


def existing(home: Path | None) -> Path:
    found = home_of(home)
    if not (found / "artifacts").is_dir():
        raise InputError(
            f"there is no home at {found}; name one with --home or WINNOW_HOME, or make one with `winnow demo`"
        )
    return found
