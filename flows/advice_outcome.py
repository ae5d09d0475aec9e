"""What `winnow advise` answers: for people tables and where to look next, for programs one JSON object."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Json = Mapping[str, Any]
WIDTH = 160
STAGE = ("name", "key", "computed", "seconds", "rows_in", "rows_out")


@dataclass(frozen=True, slots=True)
class AdviceOutcome:
    """`advice` as docs/advice.md describes it, `files` the training files that come with it; plain JSON."""

    run: str
    home: str
    ui: str | None
    key: str
    advisor: str
    budget: int | None
    advice: Json
    stages: Sequence[Json]
    files: Sequence[Json]

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "home": self.home,
            "ui": self.ui,
            "key": self.key,
            "advisor": self.advisor,
            "budget": self.budget,
            "advice": dict(self.advice),
            "stages": [{name: stage[name] for name in STAGE} for stage in self.stages],
            "files": list(self.files),
        }

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def as_text(self) -> str:
        """What is advised and how sure it is, then where to look next."""
        lines = [f"{self.advisor}: {self.advice['says']}"]
        if self.advice["shares"]:
            lines.append(_render(self._shares()))
        if self.advice["forecasts"]:
            lines.append(_render(_forecasts(self.advice["forecasts"])))
        lines += [f"refused ({each['reason']}): {each['detail']}" for each in self.advice["refusals"]]
        lines += [f"warning ({each['reason']}): {each['detail']}" for each in self.advice["warnings"]]
        failed = [each for each in self.advice["pilots"] if each["value"] is None]
        lines += [f"failed pilot ({each['name']}): {each['detail']}" for each in failed]
        lines += [f"{each['purpose']}, {sum(each['rows'].values()):,} rows: {each['path']}" for each in self.files]
        computed = sum(bool(stage["computed"]) for stage in self.stages)
        lines.append(f"run {self.run}: {computed} stages computed, {len(self.stages) - computed} found in the cache")
        if self.ui:
            lines.append(f"Prefect UI:  {self.ui}")
        lines.append(f"ask more:    {self._query()}")
        return "\n".join(lines)

    def _shares(self) -> Table:
        table = Table(title=f"shares, 95 % intervals{f'; {self.budget:,} rows' if self.budget else ''}")
        for column in ("source", "share", "candidates", "rows", "of them again"):
            table.add_column(column, justify="left" if column == "source" else "right")
        rows, repeats = ({}, {}) if not self.files else (self.files[0]["rows"], self.files[0]["repeats"])
        for name, share in self.advice["shares"].items():
            given = [f"{found.get(name, 0):,}" if self.files else "" for found in (rows, repeats)]
            table.add_row(escape(name), _interval(share), f"{self.advice['available'][name]:,}", *given)
        return table

    def _query(self) -> str:
        sql = f"SELECT kind, name, value, low, high, detail FROM advice WHERE advice = '{self.key}'"
        return f'winnow sql --home {shlex.quote(self.home)} "{sql}"'


def _forecasts(forecasts: Mapping[str, Json]) -> Table:
    table = Table(title="forecasts, 95 % intervals")
    for column in ("of", "value", "n"):
        table.add_column(column, justify="left" if column == "of" else "right")
    for name, forecast in forecasts.items():
        table.add_row(escape(name), _interval(forecast), str(forecast["n"]))
    return table


def _interval(estimate: Json) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _render(table: Table) -> str:
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
