"""docs/warehouse.md, made from the views themselves: `python -m warehouse.page > docs/warehouse.md`."""

import sys

from warehouse.views import VIEWS, View

INTRO = """\
# The warehouse

Everything a run makes is a file in the home, and one SQL query away.

    <home>/                      ./winnow-home, or WINNOW_HOME, or --home
      artifacts/<stage>/<key>/   immutable results; written aside, fsynced, renamed in; manifest.json last
      signals/<spec key>/        numbers and vectors per sample_id, append-only: new rows are measured once
      runs/<run>/                the log of a run, and its report.html
      winnow.duckdb              views over the artifacts' Parquet, and nothing else
      prefect/                   the home's own Prefect server

**Keys.** An artifact's key is a hash of the stage, the version of its code, all parameters, the keys of its inputs, the
content of the model and the seed. No path and no time is in it. `winnow cache explain A B` says which part differs
between two runs or two artifacts.

**Asking.** `winnow sql "..."` opens the catalogue read-only; so does any DuckDB 2.x:
`duckdb -readonly winnow-home/winnow.duckdb`. No run holds the file open, so an open shell never blocks a run, and a run
never locks you out; what a run finishes appears in the next query. The catalogue is a projection: delete it, and the
next command makes it again. pandas, Polars and `datasets` read the Parquet files as they are.

**Verified.** A result found in the store is checked against its manifest (sizes; hashes up to 64 MiB) before use;
damage means it is made again. `winnow cache ls --verify` hashes everything.

**Pruning.** `winnow cache prune --keep 10` removes what neither the last ten finished runs nor an unfinished one used,
and says what it freed. `--dry-run` only says.

## Tables
"""


def page() -> str:
    """The whole page."""
    return INTRO + "\n" + "\n".join(_section(name, view) for name, view in VIEWS.items())


def _section(name: str, view: View) -> str:
    columns = "\n".join(f"| `{column}` | {meaning} |" for column, meaning in view.columns.items())
    question = f"*{view.question}*\n\n    {view.example}\n"
    return f"### `{name}`\n\n{view.about}\n\n| column | means |\n|---|---|\n{columns}\n\n{question}"


if __name__ == "__main__":
    sys.stdout.write(page())
