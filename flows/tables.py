"""Arrow tables as text for a terminal."""

import re

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDEST = 60  # characters of a cell; `winnow sql` is for looking, files are for keeping
MOST_ROWS = 200
WIDEST_LINE = 4000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a row's text must not steer the terminal it is shown in


def render(table: pa.Table) -> str:
    """The first `MOST_ROWS` rows with their column names; says how many were left out."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in table.column_names:
        shown.add_column(escape(_cell(name)), no_wrap=True)
    for row in table.slice(0, MOST_ROWS).to_pylist():
        shown.add_row(*(escape(_cell(value)) for value in row.values()))
    console = Console(highlight=False, width=WIDEST_LINE)  # lines are never folded: a pager scrolls, a pipe cuts
    with console.capture() as captured:
        console.print(shown)
    left = table.num_rows - MOST_ROWS
    more = f"\n({left:,} more rows; add LIMIT or aggregate)" if left > 0 else ""
    return captured.get().rstrip("\n") + more


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
