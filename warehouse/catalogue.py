"""The DuckDB catalogue: a file of views over globs of the artifacts' Parquet, and nothing else.

The pipeline never holds the file open, so an analyst's shell cannot block a run nor a run an analyst. Views are created
once; new artifacts appear in them by themselves. Delete the file and `ensure` rebuilds it.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse import ask, tables
from warehouse.errors import InputError
from warehouse.leases import undisturbed
from warehouse.records import canonical, digest
from warehouse.store import write_atomically
from warehouse.tables import write_rows
from warehouse.views import VIEWS

VERSION = 1
LEAST_FREE = 2**20  # bytes: with less, a failed write means a full disk


# An empty typed file per glob keeps every view valid before the first artifact of its kind.
EMPTIES: dict[str, pa.Schema] = {
    "artifacts/ingest/empty/pool.parquet": tables.POOL,
    "artifacts/ingest/empty/samples-000000000000.parquet": tables.SAMPLES,
    "artifacts/ingest/empty/rejects-000000.parquet": tables.REJECTS,
    "artifacts/clean/empty/filters.parquet": tables.FILTERS,
    "artifacts/clean/empty/drops.parquet": tables.DROPS,
    "artifacts/clean/empty/flags.parquet": tables.DROPS,
    "artifacts/clean/empty/neighbours.parquet": tables.NEIGHBOURS,
    "artifacts/describe/empty/tokens-000000000000.parquet": tables.TOKENS,
    "artifacts/describe/empty/describe.parquet": tables.DESCRIBE,
    "artifacts/select/empty/selection.parquet": tables.SELECTION,
    "artifacts/select/empty/selected.parquet": tables.SELECTED,
    "artifacts/mixture/empty/mixture.parquet": tables.MIXTURE,
    "artifacts/advice/empty/advice.parquet": tables.ADVICE,
    "artifacts/synthesize/empty/synthesis.parquet": tables.SYNTHESIS,
    "artifacts/synthesize/empty/generations.parquet": tables.GENERATIONS,
    "artifacts/synthesize/empty/rejects-synthesis.parquet": tables.SYNTHESIS_REJECTS,
    "artifacts/synthesize/empty/replies.parquet": tables.REPLIES,
    "artifacts/synthesize/empty/attempts.parquet": tables.ATTEMPTS,
    "artifacts/train/empty/checkpoint.parquet": tables.CHECKPOINT,
    "artifacts/train/empty/losses.parquet": tables.LOSSES,
    "artifacts/evaluate/empty/evaluation.parquet": tables.EVALUATION,
    "artifacts/evaluate/empty/eval_items.parquet": tables.EVAL_ITEMS,
    "artifacts/contamination/empty/contaminated.parquet": tables.CONTAMINATED,
    "artifacts/compare/empty/results.parquet": tables.RESULTS,
    "artifacts/compare/empty/efficiency.parquet": tables.EFFICIENCY,
    "runs/empty/run.parquet": tables.RUN,
    "runs/empty/end.parquet": tables.RUN_END,
    "runs/empty/stage-empty.parquet": tables.STAGE,
    "signals/empty/shard-empty.parquet": tables.SIGNALS,
}


def ensure(home: Path) -> Path:
    """The catalogue file of `home`, built where it is missing, moved or of another schema version."""
    path, stamp = home / "winnow.duckdb", home / "catalogue.json"
    current = {"version": VERSION, "home": str(home), "views": digest_views()}
    made = json.loads(stamp.read_text()) if path.exists() and stamp.exists() else {}
    code = made.pop("code", "")
    stamped = json.dumps(current | {"code": ask.definition()}).encode()
    if made != current:
        rebuild(home)
        write_atomically(stamp, stamped)
    elif code != ask.definition():
        with contextlib.suppress(OSError):  # who may not write here asks all the same, a little slower
            write_atomically(stamp, stamped)
    return path


def digest_views() -> str:
    """Changes when the definition of any view changes."""
    return digest(canonical({name: view.sql for name, view in VIEWS.items()}))


def rebuild(home: Path) -> None:
    """Build the catalogue as a new file and put it in place in one step; readers of the old file are not disturbed."""
    for name, schema in EMPTIES.items():
        file = home / name
        if not file.exists() or pq.read_schema(file) != schema:  # an older version's lacks the columns of today
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{uuid.uuid4().hex}")
            write_rows(draft, schema, [])
            os.replace(draft, file)
    nothing = home / "artifacts" / "empty" / "empty" / "manifest.json"
    nothing.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(nothing, b"{}")
    write_atomically(home / "signals" / "empty" / "spec.json", b"{}")
    (home / "tmp").mkdir(exist_ok=True)
    draft = home / "tmp" / f"catalogue-{uuid.uuid4().hex}.duckdb"
    try:
        with duckdb.connect(str(draft)) as connection:
            for name, view in VIEWS.items():
                connection.execute(f"CREATE VIEW {name} AS {view.sql.format(home=_quoted(home))}")
    except (duckdb.IOException, duckdb.TransactionException) as error:
        draft.unlink(missing_ok=True)
        full = shutil.disk_usage(home).free < LEAST_FREE
        raise OSError(errno.ENOSPC if full else errno.EIO, f"cannot write {home}/winnow.duckdb: {error}") from error
    os.replace(draft, home / "winnow.duckdb")


@contextlib.contextmanager
def connect(home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the catalogue of `home`, during which nothing is pruned: a glob names files that stay.

    Never held open by the pipeline.
    """
    with undisturbed(home), duckdb.connect(str(ensure(home)), read_only=True) as connection:
        yield connection


def query(home: Path, sql: str) -> pa.Table:
    """The answer to one SQL query over the catalogue. Raises `InputError` where DuckDB refuses the query."""
    try:
        with connect(home) as connection:
            answer = connection.sql(sql)
            if answer is None:
                raise InputError("the warehouse is read-only: ask with SELECT, DESCRIBE or SHOW")
            return answer.to_arrow_table()
    except (duckdb.Error, RuntimeError) as error:
        raise ask.refused(error) from error


def _quoted(home: Path) -> str:
    """The path as part of a glob inside an SQL string: quotes doubled, glob characters taken literally."""
    return re.sub(r"([*?\[])", r"[\1]", str(home)).replace("'", "''")
