"""Schedules: `winnow deploy` registers a recipe with Prefect, `winnow serve` runs what is due on this machine."""

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flows import leftovers, recipes, server
from flows.console import ConsoleListener
from flows.race import check_race
from flows.settings import CONSOLE, Settings
from warehouse.errors import InputError
from warehouse.store import Store, write_atomically

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment


def deploy_recipe(path: Path, overrides: Sequence[str], cron: str, timezone: str | None, home: Path) -> str:
    """Register `path` under its recipe's name; what to do next. The recipe is stored whole, with absolute paths.

    Registering the same name again replaces recipe and schedule. Raises `InputError` for a wrong recipe or cron line.
    """
    recipe = recipes.load(path, overrides)
    check_race(recipe)
    check_schedule(cron, timezone)
    Store.open(home)
    ui = server.ensure(home, Settings().prefect_port, ConsoleListener().say)
    _deployments(home).mkdir(exist_ok=True)
    order = {"recipe": recipe.model_dump(mode="json"), "cron": cron, "timezone": timezone}
    registered = _deployment(recipe.name, order, home).apply()
    write_atomically(_deployments(home) / f"{recipe.name}.json", json.dumps(order).encode())
    return (
        f"deployed winnow/{recipe.name}: {cron} {timezone or 'UTC'}\n"
        f"{ui}/deployments/deployment/{registered}\n"
        f"runs what is due, until stopped:  winnow serve --home {home}"
    )


def check_schedule(cron: str, timezone: str | None) -> None:
    """Raise `InputError` where Prefect would refuse the cron line or this machine does not know the time zone."""
    from prefect.schedules import Cron

    try:
        Cron(cron)
    except ValueError as error:
        raise InputError(
            f"{cron!r} is no cron line; expected minute, hour, day of month, month and day of week, for instance "
            "'0 3 * * *' for every night at three"
        ) from error
    try:
        ZoneInfo(timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(f"unknown time zone {timezone!r}; expected a name such as Europe/Berlin or UTC") from error


def serve_deployments(home: Path) -> None:
    """Run every deployed recipe of `home` when it is due, until interrupted; runs that were missed are run late."""
    os.environ[CONSOLE] = "ERROR"  # nobody waits for a scheduled run: its errors belong into the log of what serves
    say = ConsoleListener().say
    orders = {file.stem: json.loads(file.read_text()) for file in sorted(_deployments(home).glob("*.json"))}
    if not orders:
        raise InputError(
            f"nothing is deployed in {home}; deploy a recipe first: winnow deploy RECIPE --cron '0 3 * * *'"
        )
    ui = server.ensure(home, Settings().prefect_port, say)
    say(f"serving {', '.join(orders)} of {home}; see {ui}/deployments; stop with Ctrl-C")
    leftovers.settle(home, run_again=True)
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_serve([_deployment(name, order, home) for name, order in orders.items()]))


async def _serve(deployments: Sequence["RunnerDeployment"]) -> None:
    from prefect.runner import Runner

    loop, serving = asyncio.get_running_loop(), asyncio.current_task()
    assert serving is not None  # a coroutine that runs is some task's
    stop = serving.cancel

    class Server(Runner):
        def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
            """Stop as Ctrl-C does; Prefect's own way leaves a coroutine behind."""
            loop.call_soon_threadsafe(stop)

    # schedules stay on when this process stops: what falls due meanwhile is late, not lost
    runner = Server(pause_on_shutdown=False)
    for deployment in deployments:
        await runner.aadd_deployment(deployment)
    await runner.start()


def _deployment(name: str, order: Mapping[str, Any], home: Path) -> "RunnerDeployment":
    """One at a time: a run that is due while the last one goes on waits for it."""
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.pipeline import pipeline

    deployment = pipeline.to_deployment(
        name=name,
        schedule=Cron(order["cron"], timezone=order["timezone"] or "UTC"),
        parameters={"recipe": order["recipe"], "home": str(home), "command": "scheduled"},
        concurrency_limit=1,
        tags=["winnow"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
    return deployment


def _deployments(home: Path) -> Path:
    return home / "deployments"
