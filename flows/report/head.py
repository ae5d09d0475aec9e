"""What run this is, and how to do it again."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flows.report.advice_given import Given
from flows.report.book import Book
from flows.report.chosen import Picks
from flows.report.made import Synthesis
from flows.report.results import Board
from flows.report.text import Excerpt, excerpt, label

RECIPE_CHARS = 60_000
VERBS = {"synth": "synth run", "evaluate": "evaluate", "advise": "advise"}  # of commands that are no `winnow run`


@dataclass(frozen=True, slots=True)
class Head:
    """`ended` is empty where the log has no end yet: a run writes its own report as its last step."""

    run: str
    recipe: str
    command: str
    version: str
    started: str
    ended: str
    status: str
    error: str
    home: str
    recipe_text: Excerpt
    lost: int


@dataclass(frozen=True, slots=True)
class Query:
    """A question and the SQL that answers it."""

    question: str
    sql: str


@dataclass(frozen=True, slots=True)
class Again:
    """The shell command that repeats the run, one for the first query, and queries about this run.

    `command` is empty where only the run's arguments are known (`winnow select`).
    """

    command: str
    shell: str
    queries: tuple[Query, ...]


def head_of(book: Book) -> Head:
    row = book.rows(
        """SELECT recipe, command, version, recipe_text, error, status,
                  epoch_us(started) / 1e6 AS started, epoch_us(ended) / 1e6 AS ended FROM runs WHERE run = ?""",
        book.run,
    )[0]
    return Head(
        run=book.run,
        recipe=label(row["recipe"]),
        command=label(row["command"]),
        version=label(row["version"]),
        started=_when(row["started"]),
        ended=_when(row["ended"]),
        status=row["status"],
        error=row["error"] or "",
        home=str(book.home),
        recipe_text=excerpt(row["recipe_text"], RECIPE_CHARS, 0),
        lost=_lost(book),
    )


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _lost(book: Book) -> int:
    """Artifacts of the run that are in the store no more; signals are no artifacts."""
    keys = {(stage.kind, stage.key) for stage in book.stages if stage.kind != "measure"}
    return sum(book.artifact(kind, key) is None for kind, key in keys)


def again_of(
    head: Head,
    picks: Picks,
    boards: Sequence[Board],
    syntheses: Sequence[Synthesis],
    advice: Sequence[Given],
    book: Book,
) -> Again:
    """Commands and queries to paste, with the keys of this run filled in."""
    home = shlex.quote(head.home)
    queries = (
        *_about_choice(picks),
        *(_about_results(book) if boards else ()),
        *_about_syntheses(syntheses),
        *_about_advice(advice),
        _about_stages(book),
    )
    return Again(_command(head, home), f"winnow sql --home {home} {_quoted(queries[0].sql)}", queries)


def _command(head: Head, home: str) -> str:
    if head.command == "select":
        return ""
    verb = VERBS.get(head.command, "run")
    what = "demo" if head.command == "demo" else f"{verb} {shlex.quote(head.recipe + '.yaml')}"
    return f"winnow {what} --home {home}"


def _quoted(sql: str) -> str:
    """One shell word. Our queries hold single quotes, which read badly when escaped."""
    return shlex.quote(sql) if set(sql) & set('"$`\\!') else f'"{sql}"'


def _about_choice(picks: Picks) -> tuple[Query, ...]:
    if not picks.picks:
        return ()
    keys = _list([pick.key for pick in picks.firsts])
    first = picks.firsts[0]
    return (
        Query(
            "What did each method take from each source? (lowest seed)",
            f"SELECT method, budget, source, count(*) AS n FROM selected\nWHERE selection IN ({keys})\n"
            "GROUP BY ALL ORDER BY method, budget, n DESC",
        ),
        Query(
            f"Which rows did {first.arm} take first, and why?",
            "SELECT rank, score, reason, source, messages FROM selected\n"
            f"WHERE selection = '{first.key}'\nORDER BY rank LIMIT 20",
        ),
    )


def _about_results(book: Book) -> tuple[Query, ...]:
    keys = _list(book.keys("compare"))
    return (
        Query(
            "Which method won?",
            "SELECT method, budget, task, metric, value, low, high, n, seeds,\n"
            "       difference, difference_low, difference_high, verdict\n"
            f"FROM results WHERE comparison IN ({keys})\nORDER BY task, metric, value DESC",
        ),
        Query(
            "Which test items does each evaluation get wrong?",
            "SELECT s.name, e.item_id, e.prompt, e.reply, e.gold\n"
            "FROM eval_items e JOIN stages s ON s.key = e.evaluation\n"
            f"WHERE s.run = '{book.run}' AND e.value = 0\nORDER BY e.item_id, s.name LIMIT 50",
        ),
    )


def _about_syntheses(syntheses: Sequence[Synthesis]) -> tuple[Query, ...]:
    if not syntheses:
        return ()
    keys = _list([each.key for each in syntheses])
    first = next(each for each in syntheses if each.models)
    return (
        Query(
            "What did each accepted row cost per synthesizer?",
            "SELECT synthesizer, accepted, tries, tokens, usd, tokens / accepted AS tokens_a_row,\n"
            "       usd / accepted AS usd_a_row\n"
            "FROM (SELECT generation, synthesizer, count(*) AS accepted FROM generations GROUP BY ALL)\n"
            "LEFT JOIN (SELECT generation, count(*) AS tries, sum(prompt_tokens + completion_tokens) AS tokens,\n"
            "                  sum(cost_usd) AS usd FROM attempts GROUP BY ALL) USING (generation)\n"
            f"WHERE generation IN ({keys})",
        ),
        Query(
            "Why were rows refused?",
            "SELECT source AS synthesizer, reason, count(*) AS n, any_value(detail) AS example FROM rejects\n"
            f"WHERE pool IN ({keys})\nGROUP BY ALL ORDER BY synthesizer, n DESC",
        ),
        Query(
            f"Prompt, reply and row of {first.title}, side by side",
            'SELECT g."row", r.prompt, r.text AS reply, s.messages FROM generations g\n'
            "JOIN replies r ON r.generation = g.generation AND list_contains(g.replies, r.reply)\n"
            "JOIN samples s ON s.sample_id = g.sample_id\n"
            f"WHERE g.generation = '{first.key}'{_in_pool(first)}\nORDER BY g.\"row\" LIMIT 20",
        ),
    )


def _about_advice(advice: Sequence[Given]) -> tuple[Query, ...]:
    if not advice:
        return ()
    keys = _list([given.key for given in advice])
    return (
        Query(
            "What was advised, and how sure is it?",
            "SELECT advisor, budget, kind, name, value, low, high, n, detail FROM advice\n"
            f"WHERE advice IN ({keys}) AND kind <> 'pilot'",
        ),
        Query(
            "How good was every pilot run, and on what mixture?",
            "SELECT a.name, a.value, a.low, a.high, a.n, a.detail,\n"
            "       string_agg(m.source || ' ' || m.share, ', ') AS shares\n"
            "FROM advice a LEFT JOIN mixtures m USING (mixture)\n"
            f"WHERE a.advice IN ({keys}) AND a.kind = 'pilot'\nGROUP BY ALL ORDER BY a.value",
        ),
    )


def _in_pool(one: Synthesis) -> str:
    return "" if one.pooled is None else f" AND s.pool = '{one.pooled.pool}'"


def _about_stages(book: Book) -> Query:
    return Query(
        "What did each stage do?",
        "SELECT name, computed, seconds, rows_in, rows_out, dropped FROM stages\n"
        f"WHERE run = '{book.run}' ORDER BY started",
    )


def _list(keys: Sequence[str]) -> str:
    return ", ".join(f"'{key}'" for key in keys)
