"""The Prefect flow: one recipe, every step a task. Deployments name it as `flows.pipeline.pipeline`."""

from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows import leftovers, recipes
from flows.console import ConsoleListener
from flows.engine import PrefectEngine
from flows.flow_page import flow_page
from flows.outcome import Outcome
from flows.race import race
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
    """Run `recipe` (as `Recipe.model_dump` gives it) in `home`; the fields of an `Outcome`."""
    be_quiet()
    settings = Settings()
    workers = RayWorkers(settings.ray_address, settings.workers)
    try:
        with ConsoleListener() as listener, leftovers.noted(Path(home), str(runtime.flow_run.id)):
            outcome = race(
                recipes.parse(recipe),
                Path(home),
                command,
                engine=PrefectEngine(),
                workers=workers,
                listener=listener,
                ui=flow_page(),
            )
            listener.say(f"{outcome.run}: {_tally(outcome)}")
    finally:
        workers.close()
    _publish(outcome)
    return {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}


def _publish(outcome: Outcome) -> None:
    """The outcome for the run's page: what was computed, where the report is, and the results as a table."""
    create_markdown_artifact(
        key="outcome",
        markdown=f"**{_tally(outcome)}.**\n\n"
        f"- run `{outcome.run}`\n- report `{outcome.report}`\n- warehouse `{outcome.home}/winnow.duckdb`\n",
    )
    if outcome.results:
        create_table_artifact(key="results", table=[_flat(result) for result in outcome.results])


def _tally(outcome: Outcome) -> str:
    computed = sum(bool(stage["computed"]) for stage in outcome.stages)
    return f"{computed} stages computed, {len(outcome.stages) - computed} found in the cache"


def _flat(result: Any) -> dict[str, str]:
    versus = result["versus_balanced_random"]
    return {
        "method": f"{result['method']} {result['budget'] or ''}".strip(),
        "metric": result["metric"],
        "value [95 %]": _interval(result["value"], result["low"], result["high"]),
        "minus balanced random": _interval(versus["difference"], versus["low"], versus["high"], "+") if versus else "",
        "verdict": result["verdict"] or "",
        "task": result["task"],
        "n": str(result["n"]),
    }


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
