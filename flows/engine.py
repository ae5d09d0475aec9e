"""How the steps of a run are carried out: plainly in this process, or each as one Prefect task.

A step is a function without arguments that calls stages. The rooms know nothing of this file.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from flows.console import line
from flows.run import step
from warehouse.runs import StageRecord

T = TypeVar("T")


class Engine(Protocol):
    """Carries out named steps, one by one or side by side; answers come in the order asked."""

    def call(self, name: str, work: Callable[[], T]) -> T: ...

    def map(self, steps: Sequence[tuple[str, Callable[[], T]]]) -> list[T]: ...


class PlainEngine:
    """Calls the steps; `width` of them side by side in threads."""

    def __init__(self, width: int = 1) -> None:
        self.width = width

    def call(self, name: str, work: Callable[[], T]) -> T:
        return work()

    def map(self, steps: Sequence[tuple[str, Callable[[], T]]]) -> list[T]:
        with ThreadPoolExecutor(self.width) as threads:
            futures = [threads.submit(copy_context().run, work) for _, work in steps]
            return [future.result() for future in futures]


class PrefectEngine:
    """Each step is a Prefect task that ends in a state named Cached or Computed; to be used inside a flow.

    There is one cache, the artifact store, so Prefect's own is off.
    """

    def call(self, name: str, work: Callable[[], T]) -> T:
        return self.map([(name, work)])[0]

    def map(self, steps: Sequence[tuple[str, Callable[[], T]]]) -> list[T]:
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        futures = [
            task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(_as_task).submit(
                name, work
            )
            for name, work in steps
        ]
        return [future.result() for future in futures]


def _as_task(name: str, work: Callable[[], T]) -> Any:
    """Run one step and return its state: Cached where no stage inside computed anything."""
    from prefect.logging import get_run_logger
    from prefect.states import Completed

    with step() as records:
        answer = work()
    for record in records:
        get_run_logger().info(line(record))
    computed = sum(record.computed for record in records)
    _publish(name, records)
    state, message = ("Computed", f"{computed} of {len(records)} stages computed") if computed else ("Cached", "found")
    return Completed(name=state, message=message, data=answer)


def _publish(name: str, records: Sequence[StageRecord]) -> None:
    """A table artifact of the step's stages, for the Prefect UI."""
    from prefect.artifacts import create_table_artifact

    if records:
        create_table_artifact(
            key=artifact_key(name),
            table=[
                {
                    "stage": record.name,
                    "key": record.key[:12],
                    "state": "computed" if record.computed else "cached",
                    "seconds": record.seconds,
                    "rows in": record.rows_in,
                    "rows out": record.rows_out,
                    "dropped": ", ".join(f"{n} {reason}" for reason, n in sorted(record.dropped.items())),
                }
                for record in records
            ],
        )


def artifact_key(name: str) -> str:
    """`name` as Prefect wants an artifact's key: lower-case letters, digits and single hyphens."""
    kept = "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower())
    return "-".join(kept.split())
