"""docs/warehouse.md, made from the views themselves: `python -m warehouse.page > docs/warehouse.md`."""

import sys

from warehouse.view import View
from warehouse.views import VIEWS

INTRO = """\
# The warehouse

Everything a run makes is a file in the home, and one SQL query away.

    <home>/                      ./winnow-home, or WINNOW_HOME, or --home
      artifacts/<stage>/<key>/   immutable results; written aside, fsynced, renamed in; manifest.json last
      signals/<spec key>/        numbers and vectors per sample_id, append-only: new rows are measured once
      runs/<run>/                the log of a run, and its report.html
      leases/                    what living processes rely on, so that pruning beside them is safe
      winnow.duckdb              views over the artifacts' Parquet, and nothing else
      prefect/                   the home's own Prefect server

**Keys.** An artifact's key is a hash of the stage, the version of its code, all parameters, the keys of its inputs, the
content of the model and the seed. No path and no time is in it. `winnow cache explain A B` says which part differs
between two runs or two artifacts.

**Asking.** `winnow sql "..."` opens the catalogue read-only; so does any DuckDB 2.x:
`duckdb -readonly winnow-home/winnow.duckdb`. No run holds the file open, so an open shell never blocks a run, and a run
never locks you out; what a run finishes appears in the next query. The catalogue is a projection: delete it, and the
next command makes it again. pandas, Polars and `datasets` read the Parquet files as they are.

**Verified.** A result found in the store is checked against its manifest (sizes; hashes up to 64 MiB, of all shards
of a pool together) before use; damage means it is made again. `winnow cache ls --verify` hashes everything.

**Grown.** A source that grew is read whole to know what is new, because times and sizes of files prove nothing: 1.5
processor seconds a GB, spread over the cores. Read as rows, described, counted and filtered are the new pieces
alone (16 MiB of JSON lines; the last piece of a file that grew counts as new), near-duplicates go on from the answer
for the pieces before them. What is asked of the whole pool looks at the whole pool again: exact duplicates, candidates,
selections. The results are those of a fresh home, to the last bit.

**Pruning.** `winnow cache prune --keep 10` removes artifacts and signals that nothing kept was made from. Kept is what
the last ten finished runs used, what unfinished or failed runs used (and what came without a run) in the last `--days`
7 days, and whatever a living process relies on; logs and reports stay. See [sharing](sharing.md).

**Twenty questions** with their SQL: [questions](questions.md). A pool's files are shared by its versions, and the views
find `pool` and `row` by the files' names, so name the pool in a query over `samples`: only its files are opened then.

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
