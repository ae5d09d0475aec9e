"""The item rows behind the results of a board, as `eval` reads them."""

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from flows.report.book import Book
from flows.report.results import Result

_ITEMS = """SELECT evaluation, item_id, metric, value, n_tokens, prompt_hash, target_hash,
                   coalesce(repeat, 0) AS repeat, coalesce(cluster, '') AS cluster, coalesce(ability, '') AS ability,
                   coalesce(level, '') AS level, coalesce(difficulty, '') AS difficulty,
                   coalesce(language, '') AS language, coalesce(source, '') AS source,
                   coalesce(prompt_tokens, 0) AS prompt_tokens, coalesce(choices, 0) AS choices,
                   coalesce(parts, 1) AS parts
            FROM eval_items WHERE evaluation = ANY(?) AND metric = ANY(?)"""


def items_of(book: Book, results: Sequence[Result], columns: Sequence[str]) -> list[dict[int, Any]] | None:
    """For each result its item rows by seed, of the per-item values `columns`; None where any were pruned since."""
    keys = sorted({key for result in results for key in result.evaluations})
    rows = book.connection.sql(_ITEMS, params=[keys, list(columns)]).to_arrow_table()
    tables = {key: rows.filter(pc.equal(rows["evaluation"], key)) for key in keys}
    if not all(len(table) for table in tables.values()):
        return None
    return [{s: tables[key] for s, key in zip(r.seeds, r.evaluations, strict=True)} for r in results]
