"""What the sections of a report read from: one run, the keys of its artifacts, and SQL over the catalogue."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warehouse import catalogue
from warehouse.errors import InputError
from warehouse.store import Artifact, load_artifact

LISTED_RUNS = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the run as the log has it. `begun` is in seconds since 1970."""

    name: str
    kind: str
    key: str
    computed: bool
    begun: float
    seconds: float
    rows_in: int
    rows_out: int
    dropped: Mapping[str, int]

    @property
    def title(self) -> str:
        """The name without its seed: stages that differ in nothing else are shown as one."""
        return re.sub(r" seed \d+$", "", self.name)


@dataclass(frozen=True, slots=True)
class Book:
    """One run of one home. `connection` is a read-only DuckDB connection to the catalogue."""

    home: Path
    run: str
    connection: Any
    stages: tuple[Stage, ...]

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """The answer to `sql`, whose `?` stand for `values`."""
        return _rows(self.connection, sql, *values)

    def keys(self, kind: str) -> list[str]:
        """Keys of the run's artifacts of one kind of stage, in the order the stages started, each once."""
        return list(dict.fromkeys(stage.key for stage in self.stages if stage.kind == kind))

    def artifact(self, kind: str, key: str) -> Artifact | None:
        """None where it was pruned since."""
        return load_artifact(self.home / "artifacts" / kind / key)


@contextmanager
def open_book(home: Path, run_id: str | None) -> Iterator[Book]:
    """The run whose id begins with `run_id`; without one the last run that ended "done".

    Raises `InputError`, listing the last known runs, where there is no such run or more than one.
    """
    if not (home / "runs").is_dir():
        raise InputError(f"{home} holds no runs; give the home of a run with --home or WINNOW_HOME")
    with catalogue.connect(home) as connection:
        known = _rows(connection, "SELECT run, recipe, status FROM runs ORDER BY run DESC")
        run = _last_done(home, known) if run_id is None else _named(home, known, run_id)
        yield Book(home, run, connection, _stages(connection, run))


def _rows(connection: Any, sql: str, *values: object) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = connection.sql(sql, params=list(values)).to_arrow_table().to_pylist()
    return answer


def _last_done(home: Path, known: list[dict[str, Any]]) -> str:
    for row in known:
        if row["status"] == "done":
            return str(row["run"])
    raise InputError(f"no run in {home} has ended well, so there is nothing to report by default{_listed(known)}")


def _named(home: Path, known: list[dict[str, Any]], run_id: str) -> str:
    ids = [str(row["run"]) for row in known]
    found = [name for name in ids if name.startswith(run_id)] if run_id else []
    if run_id in ids or len(found) == 1:
        return run_id if run_id in ids else found[0]
    if found:
        shown = ", ".join(found[:LISTED_RUNS])
        raise InputError(f"{len(found)} runs in {home} begin with {run_id!r}: {shown}; give more of the id")
    raise InputError(f"no run in {home} has an id that begins with {run_id!r}{_listed(known)}")


def _listed(known: list[dict[str, Any]]) -> str:
    if not known:
        return "; there are no runs yet"
    runs = (f"{row['run']} ({row['recipe']}, {row['status']})" for row in known[:LISTED_RUNS])
    return f"; the last runs are {', '.join(runs)}"


def _stages(connection: Any, run: str) -> tuple[Stage, ...]:
    rows = _rows(
        connection,
        """SELECT name, stage, key, computed, epoch_us(started) / 1e6 AS begun, seconds, rows_in, rows_out, dropped
           FROM stages WHERE run = ? ORDER BY started, name""",
        run,
    )
    return tuple(
        Stage(
            name=row["name"],
            kind=row["stage"],
            key=row["key"],
            computed=row["computed"],
            begun=row["begun"],
            seconds=row["seconds"],
            rows_in=row["rows_in"],
            rows_out=row["rows_out"],
            dropped=json.loads(row["dropped"]),
        )
        for row in rows
    )
