"""`winnow advise` under Prefect: one recipe, every pilot run a task."""

from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows import leftovers, recipes
from flows.advice_outcome import AdviceOutcome
from flows.advise import advise
from flows.console import ConsoleListener
from flows.engine import PrefectEngine
from flows.flow_page import flow_page
from flows.settings import Settings, be_quiet
from flows.workers import RayWorkers

PILOTS_AT_ONCE = 16  # threads that wait for Ray; Ray decides how many pilots really run


@flow(
    name="winnow-advise",
    flow_run_name="advise-{recipe[name]}",
    task_runner=ThreadPoolTaskRunner(max_workers=PILOTS_AT_ONCE),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=False,
)
def advice_flow(recipe: dict[str, Any], home: str) -> dict[str, Any]:
    """Answer `recipe` (as `Recipe.model_dump` gives it) in `home`; the fields of an `AdviceOutcome`."""
    be_quiet()
    settings = Settings()
    workers = RayWorkers(settings.ray_address, settings.workers)
    try:
        with ConsoleListener() as listener, leftovers.noted(Path(home), str(runtime.flow_run.id)):
            outcome = advise(
                recipes.parse(recipe),
                Path(home),
                "advise",
                engine=PrefectEngine(),
                workers=workers,
                listener=listener,
                ui=flow_page(),
            )
    finally:
        workers.close()
    create_markdown_artifact(key="advice", markdown=f"```\n{outcome.as_text()}\n```\n")
    return {name: getattr(outcome, name) for name in AdviceOutcome.__dataclass_fields__}
