"""`winnow scorers` under Prefect: one recipe, each grade and each training run a task."""

from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows import leftovers, recipes
from flows.console import ConsoleListener
from flows.engine import PrefectEngine
from flows.flow_page import flow_page
from flows.scorer_outcome import ScorerOutcome
from flows.scorers import scorers
from flows.settings import Settings, be_quiet
from flows.workers import RayWorkers


@flow(
    name="winnow-scorers",
    flow_run_name="scorers-{recipe[name]}",
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=False,
)
def scorer_flow(recipe: dict[str, Any], home: str) -> dict[str, Any]:
    """Make the scorers of `recipe` (as `Recipe.model_dump` gives it) in `home`; the fields of a `ScorerOutcome`."""
    be_quiet()
    settings = Settings()
    workers = RayWorkers(settings.ray_address, settings.workers)
    try:
        with ConsoleListener() as listener, leftovers.noted(Path(home), str(runtime.flow_run.id)):
            outcome = scorers(
                recipes.parse(recipe),
                Path(home),
                "scorers",
                engine=PrefectEngine(),
                workers=workers,
                listener=listener,
                ui=flow_page(),
            )
    finally:
        workers.close()
    create_markdown_artifact(key="scorers", markdown=f"```\n{outcome.as_text()}\n```\n")
    return {name: getattr(outcome, name) for name in ScorerOutcome.__dataclass_fields__}
