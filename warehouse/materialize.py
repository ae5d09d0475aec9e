"""One DuckDB file that holds what a home knows of some pools, as tables of its own, for who does not have the home."""

import glob
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse import named
from warehouse.ask import Connection, connect
from warehouse.errors import InputError
from warehouse.lineage import ancestry
from warehouse.views import VIEWS

MEMORY = "2GB"
SUFFIX = ".duckdb"

# What is kept: keys of pools, and of all that was made from them or that they were made from. Each step sees those
# before it; the sets that selections and evaluations were asked with (targets, tests) come along. Selections of other
# pools do not, where they chose the same rows.
MADE = """
CREATE TEMP TABLE chosen AS SELECT unnest($1::VARCHAR[]) AS key;
CREATE TEMP TABLE choices AS
    SELECT selection AS key FROM selections WHERE pool IN (FROM chosen) UNION
    SELECT mixture FROM mixtures WHERE pool IN (FROM chosen);
CREATE TEMP TABLE advised AS SELECT DISTINCT advice AS key FROM advice WHERE pool IN (FROM chosen);
CREATE TEMP TABLE tuned AS SELECT checkpoint AS key FROM checkpoints WHERE data IN (
    SELECT data FROM selections WHERE selection IN (FROM choices) UNION
    SELECT data FROM mixtures WHERE mixture IN (FROM choices));
CREATE TEMP TABLE raced AS
    SELECT DISTINCT comparison AS key FROM results, unnest(from_json(selections, '["VARCHAR"]')) s(key)
    WHERE s.key IN (FROM choices);
CREATE TEMP TABLE assessed AS
    SELECT evaluation AS key FROM evaluations WHERE checkpoint IN (FROM tuned) UNION
    SELECT e.key FROM results, unnest(from_json(evaluations, '["VARCHAR"]')) e(key) WHERE comparison IN (FROM raced);
CREATE TEMP TABLE made AS
    FROM chosen UNION FROM choices UNION FROM tuned UNION FROM raced UNION FROM assessed UNION
    FROM advised UNION SELECT cleaning FROM filters WHERE pool IN (FROM chosen);
"""
KEPT = """
CREATE TEMP TABLE kept AS
    SELECT unnest($1::VARCHAR[]) AS key UNION
    SELECT key FROM artifacts WHERE stage = 'describe' AND inputs->>'pool' IN (FROM chosen);
CREATE TEMP TABLE pooled AS SELECT pool AS key FROM pools WHERE pool IN (FROM kept);
CREATE TEMP TABLE synthesized AS SELECT DISTINCT generation AS key FROM generations
    WHERE sample_id IN (SELECT sample_id FROM samples WHERE pool IN (FROM pooled));
"""
POOLED = "pool IN (FROM pooled)"
KEEP: Mapping[str, str] = {
    "pools": POOLED,
    "samples": POOLED,
    "token_counts": POOLED,
    "rejects": "pool IN (FROM pooled) OR pool IN (FROM synthesized)",
    "filters": POOLED,
    "drops": POOLED,
    "flags": POOLED,
    "neighbours": POOLED,
    "signals": f"spec IN (FROM kept) AND sample_id IN (SELECT sample_id FROM samples WHERE {POOLED})",
    "selections": "selection IN (FROM choices)",
    "selected": "selection IN (FROM choices)",
    "mixtures": "mixture IN (FROM choices)",
    "advice": "advice IN (FROM advised)",
    "syntheses": "generation IN (FROM synthesized)",
    "generations": "generation IN (FROM synthesized)",
    "replies": "generation IN (FROM synthesized)",
    "attempts": "generation IN (FROM synthesized)",
    "checkpoints": "checkpoint IN (FROM tuned)",
    "losses": "checkpoint IN (FROM tuned)",
    "evaluations": "evaluation IN (FROM assessed)",
    "eval_items": "evaluation IN (FROM assessed)",
    "slices": "evaluation IN (FROM assessed)",
    "reliability": "evaluation IN (FROM assessed)",
    "repeats": "evaluation IN (FROM assessed)",
    "contaminated_items": "pool IN (FROM chosen)",
    "results": "comparison IN (FROM raced)",
    "growth": "comparison IN (FROM raced)",
    "efficiency": "comparison IN (FROM raced)",
    "runs": "run IN (SELECT run FROM stages WHERE key IN (FROM made))",
    "stages": "run IN (SELECT run FROM stages WHERE key IN (FROM made))",
    "artifacts": "key IN (FROM kept) OR key IN (FROM synthesized)",
    "lineage": "key IN (FROM kept)",
}
PLACES = ("runs", "checkpoints", "artifacts")  # the tables whose texts may name a place on the disk


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds: rows by table, and its size."""

    rows: Mapping[str, int]
    bytes: int


def materialize(
    home: Path, names: Sequence[str], out: Path, *, force: bool, tell: Callable[[str, int], None]
) -> Written:
    """Write the pools of `names`, and all that was made of them, to `out`; `tell` hears each table and its rows.

    Tables and columns are those of the catalogue, and no path of the home is in them. The file appears whole or not at
    all. Raises `InputError` for a pool that is not there, a file that is (without `force`), or a place that cannot be
    written.
    """
    _check(home, out, force)
    keys = [named.pool(home, name).key for name in names]
    draft = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with connect(home) as connection:
            connection.execute(f"SET memory_limit = '{MEMORY}'; SET preserve_insertion_order = false")
            connection.execute(f"SET temp_directory = '{_quoted(draft)}.tmp'")
            connection.execute(f"ATTACH '{_quoted(draft)}' AS copied (READ_WRITE)")
            _note_kept(connection, home, keys)
            rows = {}
            for table in VIEWS:
                rows[table] = _copy(connection, home, table)
                tell(table, rows[table])
            connection.execute("DETACH copied")
        os.replace(draft, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        for left in draft.parent.glob(f"{glob.escape(draft.name)}*"):  # its log and spilled rows too
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return Written(rows, out.stat().st_size)


def _check(home: Path, out: Path, force: bool) -> None:
    if out.suffix.lower() != SUFFIX:
        raise InputError(f"{out}: expected a name that ends in {SUFFIX}")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"cannot write {out}: it is a folder, or its folder is not there")
    if out.resolve().is_relative_to(home.resolve()):
        raise InputError(f"{out} lies in the home {home}; write it elsewhere")
    if out.exists() and not force:
        raise InputError(f"{out} is there already; --force replaces it")


def _note_kept(connection: Connection, home: Path, keys: Sequence[str]) -> None:
    _note(connection, MADE, keys)
    made = [key for (key,) in connection.execute("FROM made").fetchall()]
    _note(connection, KEPT, [*ancestry(home, made)])


def _note(connection: Connection, script: str, keys: Sequence[str]) -> None:
    first, *others = duckdb.extract_statements(script)
    connection.execute(first, [list(keys)])
    for statement in others:
        connection.execute(statement)


def _copy(connection: Connection, home: Path, table: str) -> int:
    """Write one table with what its view and columns mean; its rows."""
    view = VIEWS[table]
    columns = f"* REPLACE ({_without_places(connection, home, table)})" if table in PLACES else "*"
    counted = connection.execute(
        f"CREATE TABLE copied.{table} AS SELECT {columns} FROM {table} WHERE {KEEP[table]}"
    ).fetchone()
    connection.execute(f"COMMENT ON TABLE copied.{table} IS '{_quoted(view.about)}'")
    for column, meaning in view.columns.items():
        connection.execute(f"""COMMENT ON COLUMN copied.{table}."{column}" IS '{_quoted(meaning)}'""")
    return int(counted[0]) if counted else 0


def _without_places(connection: Connection, home: Path, table: str) -> str:
    """Every text column, with the path of the home taken out of it."""
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    texts = [(str(name), str(kind)) for name, kind, *_ in described if kind in ("VARCHAR", "JSON")]
    return ", ".join(
        f"""replace("{name}"::VARCHAR, '{_quoted(home)}/', '')::{kind} AS "{name}\"""" for name, kind in texts
    )


def _quoted(text: object) -> str:
    return str(text).replace("'", "''")
