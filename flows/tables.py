"""Answers as text for a terminal, and answers written to files."""

import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse import ask
from warehouse.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa  # a fifth of a second, and only what is rendered needs its type

WIDEST = 60  # columns of a cell; `winnow sql` is for looking, files are for keeping
MOST_ROWS = 200
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a row's text must not steer the terminal it is shown in
EXPLAINED = ("explain_key", "explain_value")  # of EXPLAIN: drawings of many lines
TABLE = "table"
STDIN = "-"


def render(table: "pa.Table") -> str:
    """The first `MOST_ROWS` rows with their column names; says how many were left out."""
    rows = [tuple(row.values()) for row in table.slice(0, MOST_ROWS).to_pylist()]
    return as_text(ask.Answer(tuple(table.column_names), rows, max(table.num_rows - MOST_ROWS, 0)))


def as_text(answer: ask.Answer, advice: str = "") -> str:
    """One line per row under the names of the columns, never folded: a pager scrolls, a pipe cuts.

    `advice` is given where rows are left out.
    """
    if answer.names == EXPLAINED:
        return "\n".join(str(plan) for _, plan in answer.rows)
    lines = [[_cell(value) for value in row] for row in (answer.names, *answer.rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    right = [all(_is_number(row[at]) for row in answer.rows) for at in range(len(widths))]
    shown = [_line(cells, widths, right) for cells in lines]
    more = f"\n({answer.left:,} more rows{advice})" if answer.left else ""
    return "\n".join(shown) + more


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, numbers in zip(cells, widths, right, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if numbers else cell + space)
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text[: 4 * WIDEST].split()))
    if _width(text) <= WIDEST:
        return text
    while _width(text) >= WIDEST:
        text = text[:-1]
    return text + "…"


def statements(query: str | None, file: Path | None) -> str:
    """The SQL that the user gave: as a word, as a file, or (the word `-`) on stdin.

    Raises `InputError` for both, for none, and for a file that cannot be read.
    """
    if (query is None) == (file is None):
        raise InputError('give one query, or a file of them with -f: winnow sql "SELECT * FROM pools"')
    if file is None:
        return sys.stdin.read() if query == STDIN else str(query)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def answer(home: Path, sql: str, form: str | None, out: Path | None, rows: int) -> str:
    """What to print for the last statement of `sql`: a table of `rows` rows (0: all), or what was written where.

    Without `form` the end of `out` says which it is, and a table is printed where there is no `out`. Raises
    `InputError` where DuckDB refuses a statement and where `out` cannot be written.
    """
    form = form or (_form_of(out) if out else TABLE)
    if form == TABLE:
        text = as_text(ask.first_rows(home, sql, rows), "; add LIMIT or aggregate, or give --rows 0")
        if out is None:
            return text
        try:
            out.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror or error}") from error
        return f"wrote {out}"
    written = ask.copy(home, sql, form, out)
    return f"wrote {written:,} rows to {out}" if out else ""


def _form_of(out: Path) -> str:
    for form in ask.COPIES:
        if out.name.lower().endswith((f".{form}", f".{form}.gz", f".{form}.zst")):
            return form
    known = ", ".join(f".{form}" for form in ask.COPIES)
    raise InputError(f"{out}: expected a name that ends in {known} (or with .gz), or --format")
