"""What a run answers: for people a table and where to look next, for programs one JSON object."""

import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.metrics import leading

Json = Mapping[str, Any]
STAGE = ("name", "key", "computed", "seconds", "rows_in", "rows_out")
WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(ABC):
    """What every job answers, plain JSON values throughout; a job adds its own fields."""

    name: ClassVar[str]
    run: str
    home: str
    ui: str | None
    stages: Sequence[Json]

    def values(self) -> dict[str, Any]:
        """The fields, from which the same outcome can be made again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def as_dict(self) -> dict[str, Any]:
        return self.values() | {"stages": [{name: stage[name] for name in STAGE} for stage in self.stages]}

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def as_text(self) -> str:
        """What was found, what it took, then where to look next."""
        lines = [*self.found(), f"run {self.run}: {self.tally}", *self.places()]
        if self.ui:
            lines.append(f"Prefect UI:  {self.ui}")
        if query := self.query():
            lines.append(f'ask more:    winnow sql --home {shlex.quote(self.home)} "{query}"')
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """What the page of the flow run shows."""
        return f"```\n{self.as_text()}\n```\n"

    @property
    def tally(self) -> str:
        """How many stages were computed, how many found."""
        computed = sum(bool(stage["computed"]) for stage in self.stages)
        return f"{computed} stages computed, {len(self.stages) - computed} found in the cache"

    @abstractmethod
    def found(self) -> list[str]:
        """Lines of what was found."""

    def places(self) -> list[str]:
        """Lines of where files are."""
        return []

    def query(self) -> str:
        """The SQL that asks the warehouse more; empty where there is none."""
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceOutcome(Outcome):
    """`stages`, `selections` and `results` as documented in docs/quickstart.md."""

    name: ClassVar[str] = "outcome"
    report: str | None
    selections: Sequence[Json]
    results: Sequence[Json] = ()
    control: str = "balanced_random"
    out: str | None = None
    notes: Sequence[str] = ()

    def found(self) -> list[str]:
        if not self.results:
            return []
        told = _first(self.results)
        rest = [each for each in self.results if each not in told]
        lines = [rendered(_table(told, self.control))]
        if rest:
            names = ", ".join(sorted({each["metric"] for each in rest}))
            lines.append(f"not in this table: {len(rest)} results of {names}; the report has them, and --json")
        return lines

    def places(self) -> list[str]:
        lines = list(self.notes)
        if self.out:
            lines.append(f"chosen rows: {self.out}")
        if self.report:
            lines.append(f"report:      {self.report}")
        return lines

    def query(self) -> str:
        if not self.selections:
            return "SELECT method, task, metric, value, low, high, n, verdict FROM results"
        key = self.selections[0]["key"]
        where = f" WHERE selection = '{key}'" if len(self.selections) == 1 else ""
        return f"SELECT method, source, count(*) AS n FROM selected{where} GROUP BY ALL ORDER BY method, n DESC"

    def as_markdown(self) -> str:
        return (
            f"**{self.tally}.**\n\n"
            f"- run `{self.run}`\n- report `{self.report}`\n- warehouse `{self.home}/winnow.duckdb`\n"
        )

    def flat(self) -> list[dict[str, str]]:
        """The results as a table of texts."""
        return [_flat(result) for result in self.results]


def interval(estimate: Json, sign: str = "") -> str:
    """A value and its interval."""
    return f"{estimate['value']:{sign}.3f} [{estimate['low']:{sign}.3f}, {estimate['high']:{sign}.3f}]"


def rendered(table: Table) -> str:
    """A table as text."""
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _difference(versus: Json | None) -> str:
    return interval({**versus, "value": versus["difference"]}, "+") if versus else ""


def _flat(result: Json) -> dict[str, str]:
    return {
        "method": f"{result['method']} {result['budget'] or ''}".strip(),
        "metric": result["metric"],
        "value [95 %]": interval(result),
        "minus the control": _difference(result["versus_control"]),
        "verdict": result["verdict"] or "",
        "task": result["task"],
        "n": str(result["n"]),
    }


def _first(results: Sequence[Json]) -> list[Json]:
    """Of every task the metric that counts and its loss."""
    names: dict[str, list[str]] = {}
    for each in results:
        names.setdefault(each["task"], []).append(each["metric"])
    wanted = {task: leading(set(found)) for task, found in names.items()}
    return [each for each in results if each["metric"] in wanted[each["task"]]]


def _table(results: Sequence[Json], control: str) -> Table:
    table = Table(title=f"95 % intervals; differences are paired with {escape(control)} by item and seed")
    for column in ("method", "budget", "task", "metric"):
        table.add_column(column)
    for column in ("value", "n", "difference", "verdict"):
        table.add_column(column, justify="right" if column != "verdict" else "left")
    for result in results:
        table.add_row(
            escape(str(result["method"])),
            str(result["budget"]),
            escape(str(result["task"])),
            str(result["metric"]),
            interval(result),
            str(result["n"]),
            _difference(result["versus_control"]),
            str(result.get("verdict") or ("the control" if result["method"] == control else "")),
        )
    return table
