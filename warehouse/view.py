"""What a view is: one table that an analyst sees, made of globs over the artifacts' Parquet."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """One table an analyst sees: what a row is, its SQL over `{home}`, its columns, and a question it answers."""

    about: str
    sql: str
    columns: Mapping[str, str]
    question: str
    example: str


def parquet(pattern: str) -> str:
    """The SQL of all rows of the Parquet files that `pattern`, below the home, names."""
    return f"SELECT * FROM read_parquet('{{home}}/{pattern}', union_by_name = true, hive_partitioning = false)"


def known_by_rows(pattern: str, key: str) -> str:
    """As `parquet`, of tables with a column `data`; before there was one, training knew the rows by `key`."""
    return f"SELECT * REPLACE (coalesce(data, {key}) AS data) {parquet(pattern).removeprefix('SELECT * ')}"
