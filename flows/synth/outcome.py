"""What `winnow synth run` and `plan` answer: rows made, rows refused and why, what it cost or would cost."""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.markup import escape
from rich.table import Table

from flows.outcome import Json, Outcome, rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthOutcome(Outcome):
    """`syntheses` and `kept` as docs/synthesis.md describes them."""

    name: ClassVar[str] = "synthesis"
    report: str
    pool: str
    selection: str
    kept: int
    of: int
    dropped: Json
    syntheses: Sequence[Json]

    def found(self) -> list[str]:
        """The yield of every synthesis, then what of it the cleaning kept."""
        table = Table(
            title="rows made; requests and cost are all tries behind them, failed ones and those of earlier runs too"
        )
        for column in ("synthesizer", "models", "accepted", "refused", "requests", "tokens", "USD", "USD a row"):
            table.add_column(column, justify="left" if column in ("synthesizer", "models", "refused") else "right")
        for each in self.syntheses:
            table.add_row(*map(escape, _row(each)))
        lines = [rendered(table)]
        if left := sum(each["unanswered"] for each in self.syntheses):
            lines.append(f"{left:,} requests got no answer; the same command asks for them again, and for nothing else")
        dropped = "".join(f", {n:,} {name}" for name, n in self.dropped.items())
        lines.append(f"pool {self.pool[:12]}: {self.kept:,} of {self.of:,} rows kept{dropped}")
        return lines

    def places(self) -> list[str]:
        export = f"winnow export {self.selection[:12]} --home {shlex.quote(self.home)} --out rows.jsonl"
        return [f"report:      {self.report}", f"write them:  {export}"]

    def query(self) -> str:
        return "SELECT synthesizer, source, count(*) AS n FROM generations GROUP BY ALL ORDER BY n DESC"


def _row(each: Json) -> list[str]:
    dollars, accepted = each["cost_usd"], each["accepted"]
    return [
        each["synthesizer"],
        ", ".join(f"{role}: {name}" for role, name in each["models"].items()),
        f"{accepted:,}",
        ", ".join(f"{n:,} {reason}" for reason, n in each["refused"].items()),
        f"{each['requests']:,}",
        f"{each['prompt_tokens'] + each['completion_tokens']:,}",
        "" if dollars is None else f"{dollars:.4f}",
        "" if dollars is None or not accepted else f"{dollars / accepted:.5f}",
    ]


@dataclass(frozen=True, slots=True)
class Plan:
    """What running a recipe's syntheses would ask and cost, from a pilot."""

    plans: Sequence[Json]

    def as_json(self) -> str:
        return json.dumps({"plans": list(self.plans)}, ensure_ascii=False)

    def as_text(self) -> str:
        return "\n".join(line for each in self.plans for line in _planned(each))


def _planned(each: Json) -> list[str]:
    notes = [f"  note: {note}" for note in each["notes"]]
    if each["seeds"] is None:
        return [f"{each['synthesizer']}: no forecast", *notes]
    lines = [
        f"{each['synthesizer']}: {each['seeds']:,} seeds, {each['answered']:,} of them answered by kept replies",
        f"  pilot of {each['pilot']:,} others: {each['accepted']:,} rows accepted, {each['refused']:,} refused",
    ]
    if each["cut"]:
        lines.append(f"  the pilot was cut short by `spend`: {each['cut']:,} of its seeds were not asked about")
    if each["cut"] and not each["pilot"]:
        lines.append("  no forecast: raise `spend`")
    if not each["left"]:
        return [*lines, "  nothing is left to ask", *notes]
    lines.append(f"  the pilot cost {', '.join(f'{_plain(paid)} {name}' for name, paid in each['paid'].items())}")
    lines.append(f"  the {each['left']:,} seeds that are left:")
    return [*lines, *(_forecast(name, forecast) for name, forecast in each["forecasts"].items()), *notes]


def _forecast(name: str, forecast: Json) -> str:
    value, n = f"  {name}: {_plain(forecast['value'])}", forecast["n"]
    if forecast["low"] is None:
        return f"{value}, scaled up from {n} seeds; no interval: they are decided on together"
    return f"{value} [{_plain(forecast['low'])}, {_plain(forecast['high'])}] (95 % interval from {n} seeds)"


def _plain(value: float) -> str:
    """Three significant digits or all whole ones, without powers of ten."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
