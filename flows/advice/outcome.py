"""What `winnow advise` answers: for people tables and where to look next, for programs one JSON object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.markup import escape
from rich.table import Table

from flows.outcome import Json, Outcome, interval, rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceOutcome(Outcome):
    """`advice` as docs/advice.md describes it, `files` the training files that come with it."""

    name: ClassVar[str] = "advice"
    report: str
    key: str
    advisor: str
    budget: int | None
    advice: Json
    files: Sequence[Json]

    def found(self) -> list[str]:
        """What is advised and how sure it is."""
        lines = [f"{self.advisor}: {self.advice['says']}"]
        if self.advice["shares"]:
            lines.append(rendered(self._shares()))
        if self.advice["forecasts"]:
            lines.append(rendered(_forecasts(self.advice["forecasts"])))
        lines += [f"refused ({each['reason']}): {each['detail']}" for each in self.advice["refusals"]]
        lines += [f"warning ({each['reason']}): {each['detail']}" for each in self.advice["warnings"]]
        failed = [each for each in self.advice["pilots"] if each["value"] is None]
        lines += [f"failed pilot ({each['name']}): {each['detail']}" for each in failed]
        return [
            *lines,
            *(f"{each['purpose']}, {sum(each['rows'].values()):,} rows: {each['path']}" for each in self.files),
        ]

    def places(self) -> list[str]:
        return [f"report:      {self.report}"]

    def query(self) -> str:
        return f"SELECT kind, name, value, low, high, detail FROM advice WHERE advice = '{self.key}'"

    def _shares(self) -> Table:
        table = Table(title=f"shares, 95 % intervals{f'; {self.budget:,} rows' if self.budget else ''}")
        for column in ("source", "share", "candidates", "rows", "of them again"):
            table.add_column(column, justify="left" if column == "source" else "right")
        rows, repeats = ({}, {}) if not self.files else (self.files[0]["rows"], self.files[0]["repeats"])
        for name, share in self.advice["shares"].items():
            given = [f"{found.get(name, 0):,}" if self.files else "" for found in (rows, repeats)]
            table.add_row(escape(name), interval(share), f"{self.advice['available'][name]:,}", *given)
        return table


def _forecasts(forecasts: Mapping[str, Json]) -> Table:
    table = Table(title="forecasts, 95 % intervals")
    for column in ("of", "value", "n"):
        table.add_column(column, justify="left" if column == "of" else "right")
    for name, forecast in forecasts.items():
        table.add_row(escape(name), interval(forecast), str(forecast["n"]))
    return table
