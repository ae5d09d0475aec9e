"""One run: the store it writes to, the log of its stages, and whoever listens to its progress.

A stage is a plain function that asks `Run.stage` for the artifact of a `Work`: found whole in the store, or made.
"""

import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Protocol

from flows import recipes
from flows.recipes import Recipe
from flows.workers import Workers
from warehouse import catalogue
from warehouse.runs import RunLog, StageRecord, new_run_id
from warehouse.store import Artifact, Draft, Store, Work

# What the stages called inside the current step did; a step is one Prefect task, or one plain call.
_step: contextvars.ContextVar[list[StageRecord] | None] = contextvars.ContextVar("step", default=None)


@dataclass(frozen=True, slots=True)
class Counts:
    """The funnel of a stage: `rows_in` = `rows_out` + all of `dropped`, unless the stage makes rows (`rows_in` 0)."""

    rows_in: int
    rows_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)


class Listener(Protocol):
    """Is told what a run does. Messages are plain text."""

    def stage(self, record: StageRecord) -> None: ...

    def progress(self, name: str, done: int, total: int | None, note: str = "") -> None: ...

    def say(self, text: str) -> None: ...


class Silent:
    """Listens to nothing."""

    def stage(self, record: StageRecord) -> None:
        pass

    def progress(self, name: str, done: int, total: int | None, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        pass


Make = Callable[[Draft], Counts]


@dataclass(frozen=True, slots=True)
class Run:
    """What a stage needs to know of the run it belongs to."""

    store: Store
    log: RunLog
    listener: Listener
    stopping: Event = field(default_factory=Event)
    """Set when the run ends otherwise than well: steps in other threads stop as soon as they can."""

    @classmethod
    def begin(cls, home: Path, listener: Listener, **facts: str) -> "Run":
        """Start a run in `home`; `facts` go into the log (recipe, command, recipe_text)."""
        store = Store.open(home)
        log = RunLog(store.home, new_run_id())
        log.start(version=version("winnow"), **facts)
        catalogue.ensure(store.home)
        return cls(store, log, listener)

    def stage(self, name: str, work: Work, make: Make, workers: Workers | None = None) -> Artifact:
        """The artifact of `work`: from the store where it is whole, else made by `make`, which fills a draft's folder.

        With `workers` it is made by one of them; `make` must then be picklable.
        """
        started, clock = datetime.now(UTC), time.monotonic()
        found = self.store.find(work)
        if found is not None:
            artifact = found
        elif workers is not None:
            artifact = workers.call(produce, self.store, work, make)
        else:
            artifact = produce(self.store, work, make)
        # what making it took, not the wait for a free worker
        seconds = float(artifact.manifest["seconds"]) if found is None else time.monotonic() - clock
        self.record(name, artifact, computed=found is None, started=started, seconds=seconds)
        return artifact

    def record(self, name: str, artifact: Artifact, *, computed: bool, started: datetime, seconds: float) -> None:
        """Log a finished stage and tell the listener."""
        facts = artifact.manifest["facts"]
        counts = Counts(facts["rows_in"], facts["rows_out"], facts["dropped"])
        self.note(name, artifact.stage, artifact.key, counts, computed=computed, started=started, seconds=seconds)

    def note(
        self, name: str, stage: str, key: str, counts: Counts, *, computed: bool, started: datetime, seconds: float
    ) -> None:
        """Log a finished stage that is not an artifact (a signal)."""
        record = StageRecord(
            name, stage, key, computed, started, round(seconds, 3), counts.rows_in, counts.rows_out, counts.dropped
        )
        self.log.stage(record)
        step = _step.get()
        if step is not None:
            step.append(record)
        self.listener.stage(record)


def produce(store: Store, work: Work, make: Make) -> Artifact:
    """Make the artifact of `work` in `store`; runs in any process."""
    with store.write(work) as draft:
        counts = make(draft)
        draft.facts.update(rows_in=counts.rows_in, rows_out=counts.rows_out, dropped=dict(counts.dropped))
    artifact = store.find(work)
    if artifact is None:
        raise OSError(f"{work.stage} {work.key[:12]} was written but cannot be read back under {store.home}")
    return artifact


class Stopped(Exception):
    """A step ended because its run did."""


@contextmanager
def step() -> Iterator[list[StageRecord]]:
    """Collect the records of the stages called inside the block (in this thread)."""
    records: list[StageRecord] = []
    token = _step.set(records)
    try:
        yield records
    finally:
        _step.reset(token)


@contextmanager
def logged(log: RunLog) -> Iterator[None]:
    """Log how the block ended where it did not end well; on a full disk the log keeps a run without an end."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            # Prefect's name for SIGTERM; this module does without Prefect
            stopped = isinstance(error, KeyboardInterrupt) or type(error).__name__ == "TerminationSignal"
            log.end("cancelled" if stopped else "failed", error="" if stopped else f"{type(error).__name__}: {error}")
        raise


@contextmanager
def begun(recipe: Recipe, home: Path, command: str, listener: Listener, report: str = "") -> Iterator[Run]:
    """A run of `recipe` that is logged from its start to its end; `report` is a file in the folder of its log."""
    run = Run.begin(home, listener, recipe=recipe.name, command=command, recipe_text=recipes.dump(recipe))
    with logged(run.log):
        try:
            yield run
        except BaseException:
            run.stopping.set()
            raise
    run.log.end("done", report=str(run.log.folder / report) if report else "")
