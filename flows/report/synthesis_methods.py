"""What single synthesizers say of their rows, as tables: coverage of hard questions, who is sure, whose words, and what
each recipe cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.book import Book
from flows.report.text import count, label, number, percent

REPEATED = ("duplicate", "duplicate_instance", "same_as_earlier", "similar")
OF_NO_REPLY = ("budget_spent", "duplicate_seed", "no_document", "no_task", "not_used", "stalled", "used_up")
"""Reasons of rows that stand for a seed or for the end of a job."""
PER_ROW = ("tokens per accepted row", "USD per accepted row")
RECIPES = "What each recipe made of its budget: rows that came of replies, and what all tries cost per accepted row."


@dataclass(frozen=True, slots=True)
class FactTable:
    """`rows` of one text per column; the first column names the row."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fact_table(book: Book, synthesizer: str, key: str) -> FactTable | None:
    """The table for the facts of this synthesizer's rows; None where it has none or no row has them."""
    tables = {"dart": _coverage, "r_tuning": _sureness, "s3ft": _words}
    table = tables[synthesizer](book, key) if synthesizer in tables else None
    return table if table and table.rows else None


_TOLD = """WITH told AS (
    SELECT generation, meta::JSON AS meta, '' AS reason FROM generations WHERE generation = ANY($1)
    UNION ALL SELECT pool, meta::JSON, reason FROM rejects WHERE pool = ANY($1))"""
_QUERIES = """
    SELECT least(floor(round(difficulty * 10, 9)), 9)::INT AS tenth, count(*) AS n,
           count(*) FILTER (kept > 0) AS covered, count(*) FILTER (target IS NULL OR kept >= target) AS reached,
           avg(kept) AS kept, avg(trials) AS trials
    FROM (SELECT any_value(TRY_CAST((meta->>'difficulty') AS DOUBLE)) AS difficulty,
                 any_value(TRY_CAST((meta->>'kept') AS BIGINT)) AS kept,
                 any_value(TRY_CAST((meta->>'target') AS BIGINT)) AS target,
                 any_value(TRY_CAST((meta->>'trials') AS BIGINT)) AS trials
          FROM told WHERE (meta->>'trials') IS NOT NULL GROUP BY (meta->>'query_id'))
    WHERE difficulty BETWEEN 0 AND 1 GROUP BY ALL ORDER BY tenth"""


def _coverage(book: Book, key: str) -> FactTable:
    """Questions by the share of tries that were wrong, in tenths."""
    rows = book.rows(_TOLD + _QUERIES, [key])
    return FactTable(
        "Coverage by difficulty",
        "Questions by the share of their tries that were wrong; a question is covered where a right reply was kept.",
        ("tries wrong", "questions", "covered", "target reached", "replies kept per question", "tries per question"),
        tuple(
            (
                f"{row['tenth'] * 10} to {row['tenth'] * 10 + 10} %",
                count(row["n"]),
                percent(row["covered"] / row["n"]),
                percent(row["reached"] / row["n"]),
                number(row["kept"]),
                number(row["trials"]),
            )
            for row in rows
        ),
    )


def _sureness(book: Book, key: str) -> FactTable:
    rows = book.rows(
        f"""{_TOLD} SELECT (meta->>'sure')::BOOLEAN AS sure, count(*) FILTER (reason = '') AS accepted,
                           count(*) FILTER (reason <> '') AS refused, sum(count(*) FILTER (reason = '')) OVER () AS n
            FROM told WHERE (meta->>'sure') IN ('true', 'false') GROUP BY ALL ORDER BY sure DESC""",
        [key],
    )
    return FactTable(
        "Sure and unsure",
        "Whether the model knows the answers of the seeds, as its own replies show.",
        ("the model is", "rows accepted", "of the accepted", "rows refused"),
        tuple(
            (
                "sure" if row["sure"] else "unsure",
                count(row["accepted"]),
                percent(row["accepted"] / max(1, int(row["n"]))),
                count(row["refused"]),
            )
            for row in rows
        ),
    )


_WORDS = {"self": "the model's own answer", "paraphrase": "its wording of the gold reply", "gold": "the gold reply"}


def _words(book: Book, key: str) -> FactTable:
    rows = book.rows(
        f"""{_TOLD} SELECT (meta->>'source') AS source, count(*) AS n, sum(count(*)) OVER () AS total FROM told
            WHERE reason = '' AND (meta->>'source') = ANY($2) GROUP BY ALL ORDER BY n DESC, source""",
        [key],
        list(_WORDS),
    )
    return FactTable(
        "Whose words the rows have",
        "The model's own words where they are right; else the gold reply's.",
        ("reply", "rows", "of the accepted"),
        tuple((_WORDS[row["source"]], count(row["n"]), percent(row["n"] / int(row["total"]))) for row in rows),
    )


def recipes_of(book: Book, keys: Sequence[str]) -> FactTable | None:
    """The recipes that the rows of these syntheses name, beside each other; None where they name none."""
    rows = book.rows(_TOLD + _RECIPES, list(keys), list(REPEATED), list(OF_NO_REPLY))
    columns = ("recipe", "rows made", "accepted", "repeats", "judge's mark (n)", "tries", *PER_ROW)
    return FactTable("Recipes beside each other", RECIPES, columns, tuple(map(_recipe, rows))) if rows else None


_RECIPES = """,
    cost AS (SELECT generation, count(*) AS tries, sum(cost_usd) AS usd,
                    sum(prompt_tokens + completion_tokens) AS tokens
             FROM attempts WHERE generation = ANY($1) GROUP BY ALL),
    made AS (SELECT generation, (meta->>'recipe') AS recipe, reason,
                    TRY_CAST((meta->>'judge_score') AS DOUBLE) AS mark FROM told)
    SELECT recipe, count(*) AS made, count(*) FILTER (reason = '') AS accepted,
           count(*) FILTER (reason = ANY($2)) AS repeated, avg(mark) AS mark, count(mark) AS marks,
           any_value(tries) AS tries, any_value(tokens) AS tokens, any_value(usd) AS usd
    FROM made LEFT JOIN cost USING (generation) WHERE recipe IS NOT NULL AND NOT reason = ANY($3)
    GROUP BY generation, recipe ORDER BY accepted DESC, recipe"""


def _recipe(row: Mapping[str, Any]) -> tuple[str, ...]:
    made, accepted = row["made"], row["accepted"]

    def per_row(total: float | None) -> str:
        return number(float(total) / accepted) if total is not None and accepted else "–"

    return (
        label(row["recipe"]),
        count(made),
        f"{count(accepted)} ({percent(accepted / made)})",
        percent(row["repeated"] / made),
        f"{number(row['mark'])} ({count(row['marks'])})" if row["marks"] else "–",
        count(row["tries"]),
        per_row(row["tokens"]),
        per_row(row["usd"]),
    )
