"""What a person sees: lines on stderr, live progress on a terminal, plain lines without one, tables that stay flat."""

import io
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from rich.console import Console

from flows import console
from flows.console import ConsoleListener
from flows.outcome import STAGE, RaceOutcome
from flows.tables import MOST_ROWS, WIDEST, render
from warehouse.runs import StageRecord

RESULT = {
    "method": "rds_plus",
    "budget": 5,
    "seeds": [0],
    "task": "exact_match",
    "metric": "exact_match",
    "value": 0.5,
    "low": 0.25,
    "high": 0.75,
    "n": 12,
    "verdict": "better",
    "versus_control": {"difference": 0.1, "low": -0.05, "high": 0.25},
}


def listener(terminal: bool) -> tuple[ConsoleListener, io.StringIO]:
    text = io.StringIO()
    made = ConsoleListener(Console(file=text, force_terminal=terminal, width=100, highlight=False, color_system=None))
    return made, text


def record(name: str = "measure x", computed: bool = True) -> StageRecord:
    return StageRecord(name, "measure", "abcdef0123456789", computed, datetime.now(UTC), 1.25, 10, 7, {"too_large": 3})


def test_a_stage_is_one_line_with_its_funnel() -> None:
    made, text = listener(terminal=False)
    with made:
        made.stage(record())
        made.stage(record(computed=False))
    computed, cached = text.getvalue().splitlines()
    assert computed.startswith("computed in    1.2 s  measure x")
    assert computed.endswith("abcdef012345  10 → 7 rows, 3 too_large")
    assert cached.startswith("cached")


def test_plain_lines_come_seldom_and_say_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    made, text = listener(terminal=False)
    with made:
        for second in range(0, 25, 5):
            now[0] = float(second)
            made.progress("measure x", second * 10, 400)
    assert text.getvalue().splitlines() == [
        "  measure x: 100 of 400 (10/s, 30 s left)",
        "  measure x: 200 of 400 (10/s, 20 s left)",
    ]


def test_a_terminal_shows_progress_and_clears_it() -> None:
    made, text = listener(terminal=True)
    with made:
        made.progress("measure x", 5, 10)
        made.progress("measure x", 10, 10)
        made.stage(record())
    assert "measure x" in text.getvalue()
    assert "computed in" in text.getvalue()


def test_markup_in_names_is_text() -> None:
    made, text = listener(terminal=False)
    made.say("[red]no[/red] [link=file:///etc]x[/link]")
    assert text.getvalue().strip() == "[red]no[/red] [link=file:///etc]x[/link]"


def test_the_main_metric_and_the_loss_of_every_task_are_in_the_table() -> None:
    metrics = {
        "a": ["p_correct", "accuracy", "nll", "ece"],
        "b": ["refused", "nll"],
        "c": ["brier"],
        "overall": ["score", "nll"],
    }
    results = [RESULT | {"task": task, "metric": name} for task, names in metrics.items() for name in names]
    lines = RaceOutcome(run="r", home="/h", report="x", ui=None, stages=[], selections=[], results=results).found()
    cells = [[cell.strip() for cell in line.split("│")[3:5]] for line in lines[0].splitlines() if "rds_plus" in line]
    assert cells == [
        ["a", "accuracy"],
        ["a", "nll"],
        ["b", "refused"],
        ["b", "nll"],
        ["c", "brier"],
        ["overall", "score"],
        ["overall", "nll"],
    ]
    assert "2 results of ece, p_correct" in lines[1]


def test_a_table_is_flat_cut_and_counted() -> None:
    table = pa.table({"a": ["x" * 200, "two\nlines", None], "[b]": [1.23456789, 2.0, None]})
    lines = render(table).split("\n")
    assert len(lines) == 4
    assert lines[0].split() == ["a", "[b]"]
    assert "x" * (WIDEST - 1) + "…" in lines[1]
    assert "two lines" in lines[2]
    many = render(pa.table({"a": list(range(MOST_ROWS + 7))})).splitlines()
    assert many[-1] == "(7 more rows)"


def test_no_control_character_reaches_the_terminal() -> None:
    assert "\x1b" not in render(pa.table({"a": ["\x1b[2Jgone\x07"]}))


def test_the_text_of_an_outcome_ends_with_what_to_ask_next() -> None:
    outcome = RaceOutcome(
        run="r",
        home="/h",
        report="/h/report.html",
        ui="http://ui",
        stages=[dict.fromkeys(STAGE, computed) for computed in (True, False)],
        selections=[{"key": "k"}],
        results=[RESULT, *(RESULT | {"metric": name, "value": 0.125} for name in ("nll_item_mean", "p_correct"))],
        out="c.jsonl",
    )
    text = outcome.as_text()
    assert "0.500 [0.250, 0.750]" in text
    assert "+0.100 [-0.050, +0.250]" in text
    assert "0.125" not in text
    assert "not in this table: 2 results of nll_item_mean, p_correct; the report has them, and --json" in text
    assert "1 stages computed, 1 found in the cache" in text
    assert "report:      /h/report.html" in text
    assert text.splitlines()[-1].startswith("ask more:    winnow sql --home /h ")
    assert "WHERE selection = 'k'" in text.splitlines()[-1]
    assert outcome.as_dict()["results"][1]["metric"] == "nll_item_mean"
