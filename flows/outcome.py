"""What a run answers: for people a table and where to look next, for programs one JSON object."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Json = Mapping[str, Any]
NOT_SHOWN = ("nll_item_mean",)  # in the report and the JSON; beside `nll` it says little in a terminal
WIDTH = 160


@dataclass(frozen=True, slots=True)
class Outcome:
    """`stages`, `selections` and `results` as documented in docs/quickstart.md, plain JSON values throughout."""

    run: str
    home: str
    report: str | None
    ui: str | None
    stages: Sequence[Json]
    selections: Sequence[Json]
    results: Sequence[Json] = ()
    out: str | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "home": self.home,
            "report": self.report,
            "ui": self.ui,
            "out": self.out,
            "stages": list(self.stages),
            "selections": list(self.selections),
            "results": list(self.results),
        }

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def as_text(self) -> str:
        """The result table where models were evaluated, then where to look next."""
        lines = [_render(_table(self.results))] if self.results else []
        computed = sum(bool(stage["computed"]) for stage in self.stages)
        lines.append(f"run {self.run}: {computed} stages computed, {len(self.stages) - computed} found in the cache")
        lines += self.notes
        if self.out:
            lines.append(f"chosen rows: {self.out}")
        if self.report:
            lines.append(f"report:      {self.report}")
        if self.ui:
            lines.append(f"Prefect UI:  {self.ui}")
        lines.append(f"ask more:    {self._query()}")
        return "\n".join(lines)

    def _query(self) -> str:
        key = self.selections[0]["key"] if self.selections else ""
        where = f" WHERE selection = '{key}'" if len(self.selections) == 1 else ""
        sql = f"SELECT method, source, count(*) AS n FROM selected{where} GROUP BY ALL ORDER BY method, n DESC"
        return f'winnow sql --home {shlex.quote(self.home)} "{sql}"'


def _table(results: Sequence[Json]) -> Table:
    table = Table(title="95 % intervals; differences are paired with balanced random by item and seed")
    for column in ("method", "budget", "task", "metric"):
        table.add_column(column)
    for column in ("value", "n", "difference", "verdict"):
        table.add_column(column, justify="right" if column != "verdict" else "left")
    for result in results:
        if result["metric"] in NOT_SHOWN:
            continue
        versus = result["versus_balanced_random"]
        table.add_row(
            escape(str(result["method"])),
            str(result["budget"]),
            escape(str(result["task"])),
            str(result["metric"]),
            f"{result['value']:.3f} [{result['low']:.3f}, {result['high']:.3f}]",
            str(result["n"]),
            f"{versus['difference']:+.3f} [{versus['low']:+.3f}, {versus['high']:+.3f}]" if versus else "",
            str(result.get("verdict") or ""),
        )
    return table


def _render(table: Table) -> str:
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
