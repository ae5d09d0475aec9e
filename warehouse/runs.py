"""The log of runs: which stages a run asked for, which were computed, how long they took.

Every event is a small Parquet file of its own, so any process of a run (a Ray worker too) can write it, a second
process can query a run that is going on, and a killed run leaves a log without an end.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.tables import RUN, RUN_END, STAGE, write_rows


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of one run. `rows_in` = `rows_out` + what `dropped` counts by reason."""

    name: str
    stage: str
    key: str
    computed: bool
    started: datetime
    seconds: float
    rows_in: int
    rows_out: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RunLog:
    """The log of one run, in `<home>/runs/<run>/`."""

    home: Path
    run: str

    @property
    def folder(self) -> Path:
        return self.home / "runs" / self.run

    def start(self, *, recipe: str, command: str, recipe_text: str, version: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        row = {
            "run": self.run,
            "recipe": recipe,
            "command": command,
            "started": datetime.now(UTC),
            "version": version,
            "recipe_text": recipe_text,
            "home": str(self.home),
        }
        self._write("run", RUN, [row])

    def stage(self, record: StageRecord) -> None:
        row = {
            "run": self.run,
            "name": record.name,
            "stage": record.stage,
            "key": record.key,
            "computed": record.computed,
            "started": record.started,
            "seconds": record.seconds,
            "rows_in": record.rows_in,
            "rows_out": record.rows_out,
            "dropped": json.dumps(dict(record.dropped)),
        }
        self._write(f"stage-{record.started:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}", STAGE, [row])

    def end(self, status: str, *, error: str = "", report: str = "") -> None:
        """`status` is "done", "failed" or "cancelled"."""
        row = {"run": self.run, "ended": datetime.now(UTC), "status": status, "error": error, "report": report}
        self._write("end", RUN_END, [row])

    def stages(self) -> list[dict[str, Any]]:
        """The stages logged so far, in the order they started."""
        files = sorted(self.folder.glob("stage-*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def _write(self, name: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
        draft = self.folder / f".{name}-{uuid.uuid4().hex}"
        write_rows(draft, schema, rows)
        draft.replace(self.folder / f"{name}.parquet")


def new_run_id() -> str:
    """An id that sorts by its start: second in UTC, microsecond as five hexadecimal digits, three random ones."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}-{now.microsecond:05x}{uuid.uuid4().hex[:3]}"
