"""Asking the catalogue without loading what writes it: with DuckDB and no other heavy library, at once."""

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from warehouse.errors import InputError
from warehouse.leases import undisturbed

COPIES = {
    "csv": "FORMAT csv, HEADER",
    "json": "FORMAT json, ARRAY true",
    "jsonl": "FORMAT json, ARRAY false",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
STDOUT = Path("/dev/stdout")
DEFINED_IN = ("catalogue.py", "views.py", "lineage.py")  # the modules that define the views
Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Answer:
    """The first rows of an answer under the names of its columns; `left` rows more were not read."""

    names: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    left: int = 0

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


def definition() -> str:
    """Changes when the code that defines the views does; reading it is a hundred times faster than running it."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in DEFINED_IN)).hexdigest()


def is_current(home: Path) -> bool:
    """Whether the catalogue of `home` is there and was made by this code for this place."""
    try:
        stamp = json.loads((home / "catalogue.json").read_text())
    except (OSError, ValueError):
        return False
    made = (stamp.get("home"), stamp.get("code"))
    return made == (str(home), definition()) and (home / "winnow.duckdb").exists()


@contextlib.contextmanager
def connect(home: Path) -> Iterator[Connection]:
    """A read-only connection to the catalogue of `home`, during which nothing is pruned.

    Raises `InputError`, with the tables there are, where DuckDB refuses what is asked inside the block.
    """
    if not is_current(home):
        from warehouse.catalogue import ensure  # pyarrow and all that writes tables: needed once, not by each question

        ensure(home)
    try:
        with undisturbed(home), duckdb.connect(str(home / "winnow.duckdb"), read_only=True) as connection:
            yield connection
    except (duckdb.Error, RuntimeError) as error:
        raise refused(error) from error


def refused(error: Exception) -> InputError:
    """What DuckDB said, on one line, and the tables there are."""
    from warehouse.views import VIEWS

    said = re.sub(r"\s+", " ", str(error).strip())[:400].rstrip(".")
    return InputError(f"the query failed: {said}. Tables: {', '.join(VIEWS)}")


def answer(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    """All rows that one statement answers with; `?` in it are filled by `parameters`."""
    found = connection.execute(sql, list(parameters))
    return Answer(_names(found), found.fetchall())


def ask(home: Path, sql: str, parameters: Sequence[Any] = ()) -> Answer:
    """All rows that one statement over the catalogue answers with. Raises `InputError` where DuckDB refuses it."""
    with connect(home) as connection:
        return answer(connection, sql, parameters)


def first_rows(home: Path, sql: str, most: int) -> Answer:
    """The first `most` rows (0: all) of what the last statement of `sql` answers with; those before it are run.

    Raises `InputError` where there is no statement, where the last one answers nothing, or where DuckDB refuses one.
    """
    with connect(home) as connection:
        last = _run_to_last(connection, sql)
        found = connection.execute(last)
        if last.type == duckdb.StatementType.SELECT and most:
            names, rows = _names(found), found.fetchmany(most + 1)
            return Answer(names, rows[:most], _count(connection, last) - most if len(rows) > most else 0)
        return Answer(_names(found), found.fetchall())


def copy(home: Path, sql: str, form: str, out: Path | None) -> int:
    """Write what the last statement of `sql` answers with to `out` (None: stdout) in a format of `COPIES`; its rows.

    Rows are never in memory together. The file appears whole or not at all. Raises `InputError` as `first_rows` does,
    and for a file that cannot be written.
    """
    with connect(home) as connection:
        last = _run_to_last(connection, sql)
        if last.type != duckdb.StatementType.SELECT:
            raise InputError(f"only what a SELECT, DESCRIBE or SHOW answers can be written as {form}")
        try:
            with _placed(out) as place:
                written = connection.execute(
                    f"COPY (\n{_bare(last)}\n) TO '{_quoted(place)}' ({COPIES[form]})"
                ).fetchone()
        except duckdb.IOException as error:
            if out is None and "Broken pipe" in str(error):
                return 0  # who reads has seen enough
            raise
    return int(written[0]) if written else 0


def _run_to_last(connection: Connection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if not statements:
        raise InputError("there is no SQL statement to run; ask with SELECT, DESCRIBE or SHOW")
    *before, last = statements
    for statement in before:
        connection.execute(statement).fetchall()
    if duckdb.ExpectedResultType.NOTHING in last.expected_result_type:
        connection.execute(last).fetchall()  # DuckDB knows better why not: the warehouse is read-only
        raise InputError("the last statement answers nothing to show; end with SELECT, DESCRIBE or SHOW")
    return last


def _names(found: Connection) -> tuple[str, ...]:
    return tuple(column[0] for column in found.description or ())


def _bare(statement: duckdb.Statement) -> str:
    """The text of `statement` as it can stand in parentheses: without the semicolon that ends it and what follows."""
    text = str(statement.query)
    ends = [at for at, _ in duckdb.tokenize(text) if text[at] == ";"]
    return text[: ends[0]] if ends else text


def _count(connection: Connection, statement: duckdb.Statement) -> int:
    counted = connection.execute(f"SELECT count(*) FROM (\n{_bare(statement)}\n)").fetchone()
    return int(counted[0]) if counted else 0


@contextlib.contextmanager
def _placed(out: Path | None) -> Iterator[Path]:
    """Where to write so that `out` has the old bytes or all of the new ones."""
    if out is None:
        yield STDOUT
        return
    if out.is_dir() or not out.absolute().parent.is_dir():
        what = "it is a folder" if out.is_dir() else f"there is no folder {out.absolute().parent}"
        raise InputError(f"cannot write {out}: {what}")
    draft = out.with_name(f".{uuid.uuid4().hex}.{out.name}")  # DuckDB compresses as the end of the name says
    try:
        yield draft
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
