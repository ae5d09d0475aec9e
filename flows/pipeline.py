"""The Prefect flow: one recipe, every step a task. Deployments name it as `flows.pipeline.pipeline`."""

import os
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows import leftovers, recipes
from flows.console import ConsoleListener
from flows.engine import PrefectEngine
from flows.jobs import JOBS
from flows.outcome import RaceOutcome
from flows.settings import Settings, be_quiet
from flows.workers import RayWorkers

ARMS_AT_ONCE = 16  # threads that wait for Ray; Ray decides how many arms really run


@flow(
    name="winnow",
    flow_run_name="{command}-{recipe[name]}",
    task_runner=ThreadPoolTaskRunner(max_workers=ARMS_AT_ONCE),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=False,
)
def pipeline(recipe: dict[str, Any], home: str, command: str = "run") -> dict[str, Any]:
    """Do the job `command` for `recipe` (as `Recipe.model_dump` gives it) in `home`; the fields of its outcome."""
    be_quiet()
    settings = Settings()
    workers = RayWorkers(settings.ray_address, settings.workers)
    try:
        with ConsoleListener() as listener, leftovers.noted(Path(home), str(runtime.flow_run.id)):
            outcome = JOBS[command].work(
                recipes.parse(recipe),
                Path(home),
                command,
                engine=PrefectEngine(),
                workers=workers,
                listener=listener,
                ui=_page(),
            )
            listener.say(f"{outcome.run}: {outcome.tally}")
    finally:
        workers.close()
    create_markdown_artifact(key=outcome.name, markdown=outcome.as_markdown())
    if isinstance(outcome, RaceOutcome) and outcome.results:
        create_table_artifact(key="results", table=outcome.flat())
    return outcome.values()


def _page() -> str | None:
    """The address of this flow run's page; None outside a flow run."""
    api = os.environ.get("PREFECT_API_URL", "")
    run = runtime.flow_run.id
    return f"{api.removesuffix('/api')}/runs/flow-run/{run}" if api and run else None
